#!/bin/sh
# Removes what deploy/install.sh installed, as root: code, units, site, log rotation.
# Settings, transcripts that wait and logs stay, unless --purge is given.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

NAME=websocket-voice-server
LINK=/opt/$NAME
UNITS=/etc/systemd/system
OWNER=voicegw

say() { printf '%s\n' "$*" >&2; }
systemd_runs() { [ -d /run/systemd/system ]; }

case ${1:-} in
    '' | --purge) ;;
    *) say "usage: deploy/uninstall.sh [--purge]        as root; --purge removes settings, state, logs and user too" && exit 2 ;;
esac
if [ "$(id -u)" != 0 ]; then
    say "uninstall: must run as root: sudo $0"
    exit 1
fi

services=$(find "$UNITS/multi-user.target.wants" -name 'voice.service' -o -name 'voice@*.service' 2>/dev/null || true)
for path in $services; do
    service=${path##*/}
    if systemd_runs; then
        say "-- stopping $service: live talks may go on for DRAIN_TIMEOUT; systemctl kill -s TERM $service ends them"
        systemctl stop "$service"
    fi
    systemctl --quiet disable "$service"
done
rm -rf "$UNITS/voice.service" "$UNITS/voice@.service" "$UNITS/voice.service.d" "$UNITS/voice@.service.d"
rm -f /etc/nginx/sites-enabled/voice.conf /etc/nginx/sites-available/voice.conf "/etc/logrotate.d/$NAME"
rm -f "$UNITS/logrotate.timer.d/$NAME.conf" /usr/local/bin/voice /etc/letsencrypt/renewal-hooks/deploy/reload-nginx "$LINK"
rm -rf "$LINK.releases"
if systemd_runs; then
    systemctl daemon-reload
    systemctl --quiet is-active nginx && systemctl reload nginx
fi
if [ "${1:-}" = --purge ]; then
    rm -rf "/etc/${NAME:?}" "/var/lib/${NAME:?}" "/var/log/${NAME:?}"
    if getent passwd "$OWNER" >/dev/null; then userdel "$OWNER"; fi
else
    say "Kept: /etc/$NAME, /var/lib/$NAME, /var/log/$NAME. With --purge they go too."
fi
