#!/bin/sh
# The nginx part of install.sh, which reads this file: site, certificate, limits of nginx itself. Run alone it does nothing.
# shellcheck disable=SC2154 # $domain, $email, $instances, $dry and $LINK are install.sh's

SITE=/etc/nginx/sites-available/voice.conf
CONNECTIONS=4096 # of an nginx worker: two a session, for 1,000 sessions and as many page loads
NGINX_FILES=8192 # twice the connections, as a proxied connection has two sockets

tune_nginx() {
    conf=/etc/nginx/nginx.conf
    if ! grep -q worker_rlimit_nofile "$conf"; then
        [ -e "$conf.before-voice" ] || cp "$conf" "$conf.before-voice"
        sed -i "s/^worker_processes .*/&\nworker_rlimit_nofile $NGINX_FILES;/" "$conf"
        say "-- $conf: worker_rlimit_nofile $NGINX_FILES"
    fi
    now=$(sed -n 's/^[[:space:]]*worker_connections[[:space:]]*\([0-9]*\);.*/\1/p' "$conf" | head -n 1)
    if [ -n "$now" ] && [ "$now" -lt "$CONNECTIONS" ]; then
        sed -i "s/\(^[[:space:]]*worker_connections[[:space:]]*\)[0-9]*;/\1$CONNECTIONS;/" "$conf"
        say "-- $conf: worker_connections $CONNECTIONS"
    fi
}

reload_nginx() {
    nginx -t -q || fail "nginx does not take its configuration, and goes on with the one it has"
    ! systemd_runs || systemctl reload-or-restart nginx
}

get_certificate() {
    say "-- certificate for $domain"
    certbot certonly --webroot -w /var/www/html -d "$domain" --non-interactive --agree-tos -m "$email" \
        --keep-until-expiring >&2 ||
        say "-- no certificate yet: does $domain lead to this machine, and is port 80 open? Then run this again."
}

make_site() {
    [ -n "$domain" ] || return 0
    chain=/etc/letsencrypt/live/$domain/fullchain.pem
    if [ -n "$dry" ]; then
        say "+ write $SITE for $domain${email:+, get a certificate}, nginx -t, reload nginx"
        return
    fi
    mkdir -p /var/www/html /etc/nginx/sites-enabled /etc/letsencrypt/renewal-hooks/deploy
    tune_nginx
    printf '#!/bin/sh\nexec systemctl reload nginx\n' | put /etc/letsencrypt/renewal-hooks/deploy/reload-nginx
    chmod 0755 /etc/letsencrypt/renewal-hooks/deploy/reload-nginx
    ln -sfn "$SITE" /etc/nginx/sites-enabled/voice.conf
    if [ ! -e "$chain" ]; then
        # nginx refuses a site whose certificate is not there, and certbot needs nginx to get it.
        sed "s/voice\.example\.com/$domain/" "$LINK/deploy/nginx-challenge.conf" | put "$SITE"
        reload_nginx
        if [ -n "$email" ] && systemd_runs; then
            get_certificate
        fi
    fi
    if [ -e "$chain" ]; then
        "$LINK/voice" init nginx --domain "$domain" --instances "$instances" | put "$SITE"
        reload_nginx
    fi
}
