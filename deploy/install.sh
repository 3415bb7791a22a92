#!/bin/sh
# Installs this checkout on Debian 12, Ubuntu 24.04 or newer, as root: user, code, settings, units, logs, nginx.
# May be run again at any time: an upgrade is `git pull` and this; what is as it should be is left alone.
#
#   deploy/install.sh --domain voice.example.com --email you@example.com
#
# The code goes to /opt/websocket-voice-server.releases/TIME and /opt/websocket-voice-server is a link to the one in use,
# so a process that still drains keeps the files it began with, and --rollback is one link.
set -eu
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin # never a Python below somebody's home
export PATH DEBIAN_FRONTEND=noninteractive

NAME=websocket-voice-server
LINK=/opt/$NAME
RELEASES=$LINK.releases
SETTINGS=/etc/$NAME
STATE=/var/lib/$NAME
LOGS=/var/log/$NAME
OWNER=voicegw # "voice" is a base group of Debian's
UNITS=/etc/systemd/system
PYTHON=/usr/bin/python3
KEEP=3 # releases: the one in use, the one before, and one that may still drain
FIRST_PORT=8081 # of the instances, one port each, as deploy/nginx.conf has them

usage() {
    cat <<'USAGE'
usage: deploy/install.sh [options]        as root

  --domain NAME     public name: makes the nginx site
  --email ADDRESS   gets a certificate for it from Let's Encrypt, whose terms you accept by this
  --instances N     processes behind nginx, on ports from 8081 (default 2: restarts cut no talk)
  --single          one process, on port 8080
  --no-packages     install no Debian packages
  --dry-run         say what would be done
  --rollback        go back to the release before the one in use

deploy/uninstall.sh removes it again. What was given once is kept in /etc/websocket-voice-server/install.conf.
USAGE
}

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "install: $*"
    exit 1
}
run() {
    if [ -n "$dry" ]; then
        say "+ $*"
    else
        "$@"
    fi
}
# Notes that the services run something older, until they are restarted; it outlives an install.sh that was stopped.
changed() { [ -n "$dry" ] || { mkdir -p "$RELEASES/.put" && : >"$RELEASES/.put/restart"; }; }
systemd_runs() { [ -d /run/systemd/system ]; }

domain='' email='' instances='' dry='' action=install packages=yes
wanted_domain='' wanted_email='' wanted_instances=''
while [ $# -gt 0 ]; do
    case $1 in
        --domain | --email | --instances) [ $# -ge 2 ] || fail "$1 needs a value" ;;
    esac
    case $1 in
        --domain) wanted_domain=$2 && shift ;;
        --email) wanted_email=$2 && shift ;;
        --instances) wanted_instances=$2 && shift ;;
        --single) wanted_instances=1 ;;
        --no-packages) packages='' ;;
        --dry-run) dry=yes ;;
        --rollback) action=rollback ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && fail "there is no option $1" ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || fail "must run as root: sudo $0"
command -v apt-get >/dev/null || fail "this is for Debian and Ubuntu; docs/deploy.md tells the steps one by one"

# Lines NAME=value, read as data and not run.
kept() { [ ! -f "$SETTINGS/install.conf" ] || sed -n "s/^$1=//p" "$SETTINGS/install.conf" | tail -n 1 | tr -d "\"'"; }
domain=${wanted_domain:-$(kept DOMAIN)}
email=${wanted_email:-$(kept EMAIL)}
instances=${wanted_instances:-$(kept INSTANCES)}
instances=${instances:-2}
case $domain in *[!a-zA-Z0-9.-]* | .* | -*) fail "--domain $domain is no host name" ;; esac
case $email in *[!a-zA-Z0-9.@_+-]* | -*) fail "--email $email is no address" ;; esac
case $instances in '' | *[!0-9]* | 0* | ???*) fail "--instances must be a number from 1 to 99" ;; esac

if [ "$instances" = 1 ]; then
    unit=voice.service services=voice
else
    unit=voice@.service services='' port=$FIRST_PORT
    while [ "$port" -lt $((FIRST_PORT + instances)) ]; do
        services="$services voice@$port"
        port=$((port + 1))
    done
fi

source=$(cd "$(dirname "$0")/.." && pwd -P)
[ -f "$source/server.py" ] || fail "$source is no checkout of the voice server"
[ -L "$LINK" ] || [ ! -e "$LINK" ] ||
    fail "$LINK is a folder, and must be free for a link. Clone elsewhere, such as /usr/local/src, or: mv $LINK $LINK.before"

if [ -z "$dry" ]; then
    exec 9>/run/lock/$NAME-install
    flock -n 9 || fail "another install.sh is running"
fi

install_packages() {
    [ -n "$packages" ] || return 0
    missing=''
    [ -x "$PYTHON" ] && "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing="python3 python3-venv"
    [ -x /bin/kill ] || missing="$missing procps" # systemctl reload uses it
    for program in curl logrotate ${domain:+nginx certbot}; do
        command -v "$program" >/dev/null || missing="$missing $program"
    done
    [ -n "$missing" ] || return 0
    say "-- packages:$missing"
    run apt-get update -qq
    # shellcheck disable=SC2086 # several words
    run apt-get install -y -qq --no-install-recommends ca-certificates $missing >&2
}

make_user() {
    getent passwd "$OWNER" >/dev/null && return
    say "-- user $OWNER"
    run useradd --system --user-group --home-dir "$LINK" --no-create-home --shell /usr/sbin/nologin "$OWNER"
}

# The parts of the checkout that run; always the same bytes for the same files.
pack() {
    tar -C "$source" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u+w,go-w,a+rX \
        --exclude=./.git --exclude=./.venv --exclude=./.env --exclude=./data --exclude=./logs --exclude=./tests \
        --exclude=./.fingerprint --exclude=node_modules --exclude=__pycache__ --exclude='.*_cache' --exclude=.hypothesis \
        --exclude='.coverage*' -cf - .
}

# Sets $release: the folder of this code, built unless it is there. The Python counts, as .venv is made for one.
build_release() {
    if [ -n "$dry" ]; then
        release=$RELEASES/TIME
        say "+ copy $source to $release, make its .venv, install requirements.txt"
        return
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$PYTHON" --version) is too old: Debian 12, Ubuntu 24.04 or newer is needed"
    print=$({ pack && "$PYTHON" --version; } | sha256sum | cut -d' ' -f1)
    for release in "$RELEASES"/*/; do
        release=${release%/}
        if [ "$(cat "$release/.fingerprint" 2>/dev/null)" = "$print" ]; then
            say "-- code: as in ${release##*/}"
            return
        fi
    done
    release=$RELEASES/$(date -u +%Y%m%dT%H%M%SZ)
    say "-- code: $release"
    mkdir -p "$RELEASES"
    mkdir "$release"
    trap 'rm -rf "$release"' EXIT # half a release is none
    pack | tar -C "$release" --no-same-owner -m -xf -
    reuse_packages "$(readlink "$LINK" || true)"
    VOICE_PYTHON=$PYTHON "$release/voice" --help >/dev/null # makes .venv and installs the packages, unless they are there
    (cd "$release" && .venv/bin/python -m compileall -q core services handlers simulator cli server.py)
    printf '%s\n' "$print" >"$release/.fingerprint"
    trap - EXIT
}

# Takes the packages of another release when the same are wanted: an upgrade of the code alone needs no package index.
reuse_packages() {
    [ -n "$1" ] && cmp -s "$1/requirements.txt" "$release/requirements.txt" || return 0
    [ "$("$1/.venv/bin/python" --version 2>/dev/null)" = "$("$PYTHON" --version)" ] || return 0
    cp -a "$1/.venv" "$release/.venv"
    grep -lIs "^#!$1/" "$release"/.venv/bin/* | while IFS= read -r script; do
        sed -i "1s|^#!$1/|#!$release/|" "$script"
    done
}

# Packages of extras the settings ask for.
install_extras() {
    grep -qs '^OTEL_EXPORTER_OTLP_ENDPOINT=.' "$SETTINGS/environment" || return 0
    run "$release/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        -r "$release/requirements-otel.txt"
}

make_settings() {
    run install -d -o root -g root -m 0700 "$SETTINGS"
    run install -d -o "$OWNER" -g "$OWNER" -m 0700 "$STATE"
    run install -d -o "$OWNER" -g "$OWNER" -m 0750 "$LOGS"
    if [ -n "$dry" ]; then
        say "+ make $SETTINGS/environment and a file for each secret, mode 0600, unless they are there"
        return
    fi
    umask 077
    {
        printf 'DOMAIN=%s\nEMAIL=%s\nINSTANCES=%s\n' "$domain" "$email" "$instances"
        [ ! -e "$SETTINGS/install.conf" ] || grep -Ev '^(DOMAIN|EMAIL|INSTANCES)=' "$SETTINGS/install.conf" || true
    } >"$SETTINGS/.install.conf"
    mv "$SETTINGS/.install.conf" "$SETTINGS/install.conf"
    if [ ! -e "$SETTINGS/environment" ]; then
        say "-- settings: $SETTINGS/environment"
        {
            printf '%s\n' "# Settings that are no secrets, NAME=value a line; environment.example explains all of them." \
                "# Each secret is a file of its own in this folder, which holds the value alone." "" \
                "SUPABASE_URL=" "SUPABASE_PUBLISHABLE_KEY="
            printf '%s\n' "PUBLIC_URL=${domain:+https://$domain}" "TWILIO_ACCOUNT_SID=" "ALLOWED_ORIGINS="
        } >"$SETTINGS/environment"
    fi
    cp "$LINK/.env.example" "$SETTINGS/environment.example"
    for name in $("$LINK/voice" init credentials | sed -n 's/^LoadCredential=\([a-z-]*\):.*/\1/p'); do
        [ -e "$SETTINGS/$name" ] || : >"$SETTINGS/$name"
    done
    chmod 0600 "$SETTINGS"/*
    umask 022
}

# Makes a file hold standard input. One that somebody changed by hand stays, and what is new for it is put beside it.
put() {
    mkdir -p "$(dirname "$1")" "$RELEASES/.put"
    before=$RELEASES/.put/$(printf '%s' "$1" | tr / _)
    cat >"$before.part"
    if cmp -s "$1" "$before.part"; then
        mv "$before.part" "$before"
    elif [ ! -e "$1" ] || cmp -s "$1" "$before"; then
        install -m 0644 "$before.part" "$1"
        mv "$before.part" "$before"
        say "-- $1"
        case $1 in "$UNITS"/*) changed ;; esac
    elif cmp -s "$before" "$before.part"; then
        rm "$before.part"
    else
        install -m 0644 "$before.part" "$1.dpkg-dist" # a name that systemd, nginx and logrotate pass over
        mv "$before.part" "$before"
        say "-- $1 was changed by hand and stays; the new text is $1.dpkg-dist"
    fi
}

make_units() {
    if [ -n "$dry" ]; then
        say "+ write $UNITS/$unit, its credentials, /etc/logrotate.d/$NAME, /usr/local/bin/voice"
    else
        "$LINK/voice" init systemd --instances "$instances" --folder "$LINK" | put "$UNITS/$unit"
        "$LINK/voice" init credentials --instances "$instances" | put "$UNITS/$unit.d/credentials.conf"
        put "/etc/logrotate.d/$NAME" <"$LINK/deploy/logrotate.conf"
        # maxsize is looked at when logrotate runs, which Debian does once a day.
        printf '[Timer]\nOnCalendar=\nOnCalendar=hourly\n' | put "$UNITS/logrotate.timer.d/$NAME.conf"
        ln -sfn "$LINK/voice" /usr/local/bin/voice
    fi
    ! systemd_runs || run systemctl daemon-reload
    # shellcheck disable=SC2086 # several words
    run systemctl --quiet enable $services
}

# shellcheck source=deploy/install-site.sh
. "$source/deploy/install-site.sh"

switch_to() {
    [ "$(readlink "$LINK" 2>/dev/null)" = "$1" ] && return
    run ln -sfn "$1" "$LINK.next"
    run mv -T "$LINK.next" "$LINK" # rename: at no moment is there no code
    changed
}

is_active() { systemctl --quiet is-active "$1"; }

# True when code or unit changed after the service started.
is_old() {
    [ -e "$RELEASES/.put/restart" ] || return 1
    since=$(date -d "$(systemctl show -p ActiveEnterTimestamp --value "$1")" +%s)
    [ "$since" -le "$(stat -c %Y "$RELEASES/.put/restart")" ]
}

# Brings every service to the code and settings in use; live talks of the old ones go on in their drain.
start_services() {
    systemd_runs || return 0
    if [ -n "$dry" ]; then
        say "+ start or restart$services, one after the other"
        return
    fi
    "$LINK/voice" doctor --only settings >&2 || {
        say "-- not started: the settings are not complete"
        return 0
    }
    status=0
    missing=$("$LINK/voice" migrate --status 2>&1) || status=$? # 2: no PostgreSQL here
    [ "$status" != 1 ] || {
        say "-- nothing started or restarted: the database is not ready ($missing). Then: voice migrate && $0"
        return 0
    }
    old=''
    for service in $services; do
        if ! is_active "$service"; then
            systemctl start "$service" || fail "$service does not start: journalctl -u $service"
        elif is_old "$service"; then
            old="$old $service"
        fi
    done
    [ -n "$old" ] || return 0
    say "-- restarting$old: live talks may go on for DRAIN_TIMEOUT"
    if [ "$instances" = 1 ]; then
        systemctl restart --no-block voice
    else
        # shellcheck disable=SC2046,SC2086 # several words, the ports
        "$LINK/deploy/rolling-restart.sh" $(printf '%s\n' $old | sed 's/.*@//') >&2 ||
            fail "not all were restarted. Mend it and run this again, or go back: $0 --rollback"
    fi
}

# Ends services that are no more wanted. Between one process and several it must be done first and waited for, as the
# health port of voice is the port of voice@8081; among several, last.
stop_others() {
    others=$(find "$UNITS/multi-user.target.wants" -name 'voice.service' -o -name 'voice@*.service' 2>/dev/null || true)
    for path in $others; do
        other=${path##*/}
        other=${other%.service}
        case " $services " in *" $other "*) continue ;; esac
        wait=--no-block
        case "$unit $other" in 'voice.service '* | *' voice') wait='' ;; esac
        [ "$1" = all ] || [ -z "$wait" ] || continue
        say "-- stopping $other, which is no more wanted: live talks may go on for DRAIN_TIMEOUT"
        run systemctl --quiet disable "$other"
        # shellcheck disable=SC2086 # an option or none
        ! systemd_runs || run systemctl stop $wait "$other"
    done
}

# A release is in use while a process works in it.
forget_old_releases() {
    [ -z "$dry" ] || return 0
    used=$(for process in /proc/[0-9]*; do readlink "$process/cwd" || true; done 2>/dev/null)
    ours=$(readlink "$LINK")
    number=0
    for old in $(find "$RELEASES" -mindepth 1 -maxdepth 1 -type d -name '2*' | sort -r); do
        number=$((number + 1))
        [ "$number" -gt "$KEEP" ] && [ "$old" != "$ours" ] || continue
        if printf '%s\n' "$used" | grep -qxF "$old"; then continue; fi
        say "-- removing ${old##*/}"
        rm -rf "$old"
    done
}

tell_next() {
    [ -z "$dry" ] || return 0
    say ""
    say "Installed. Next:"
    "$LINK/voice" doctor --only settings >/dev/null 2>&1 || {
        say "  editor $SETTINGS/environment                      settings that are no secrets"
        say "  editor $SETTINGS/supabase-service-role-key        one file for each secret"
        say "  systemctl start$services"
    }
    if [ -z "$domain" ]; then
        say "  $0 --domain NAME --email ADDRESS    the site and its certificate"
    elif [ ! -e "/etc/letsencrypt/live/$domain/fullchain.pem" ]; then
        say "  certbot certonly --webroot -w /var/www/html -d $domain && $0"
    fi
    say "  voice doctor                                      says what is wrong and how to mend it"
}

install_all() {
    install_packages
    make_user
    build_release
    install_extras
    switch_to "$release"
    make_settings
    make_units
    stop_others first
    start_services
    make_site
    stop_others all
    forget_old_releases
    tell_next
}

rollback() {
    current=$(readlink "$LINK" || fail "nothing is installed")
    previous=''
    for release in "$RELEASES"/2*/; do
        release=${release%/}
        [ "$release" != "$current" ] || break
        previous=$release
    done
    [ -n "$previous" ] || fail "there is no release before ${current##*/}"
    say "-- from ${current##*/} back to ${previous##*/}"
    switch_to "$previous"
    make_units
    start_services
    say "Rolled back. A database that was migrated stays as it is: migrations only add."
}

case $action in
    install) install_all ;;
    rollback) rollback ;;
esac
