#!/bin/sh
# Restarts the instances under PM2 one after the other, so that no caller is refused and no talk is cut: `pm2 reload`
# stops one, which may drain for DRAIN_TIMEOUT, and starts it anew; the next one's turn comes when /ready says 200.
#
#   deploy/pm2-reload.sh                all instances of deploy/ecosystem.config.js that run
#   deploy/pm2-reload.sh 8081 8082      these
set -eu

READY_S=60 # from its start to /ready; it needs one second

say() { printf '%s\n' "$*" >&2; }

# The port of every instance PM2 knows, one a line.
known() { pm2 jlist --silent | tr ',' '\n' | sed -n 's/.*"name":"voice-\([0-9]*\)".*/\1/p' | sort -un; }

is_ready() {
    [ "$(curl --silent --max-time 5 --noproxy '*' --output /dev/null --write-out '%{http_code}' \
        "http://127.0.0.1:1$1/ready" || true)" = 200 ]
}

[ $# -gt 0 ] || {
    # shellcheck disable=SC2046 # one word a port
    set -- $(known)
}
[ $# -gt 0 ] || {
    say "pm2-reload: PM2 knows no instance: pm2 start deploy/ecosystem.config.js"
    exit 1
}
for port in "$@"; do
    say "voice-$port: reloading; its talks may go on for DRAIN_TIMEOUT"
    pm2 reload --update-env "voice-$port" >/dev/null
    left=$READY_S
    until is_ready "$port"; do
        [ "$left" -gt 0 ] || {
            say "pm2-reload: voice-$port is not ready after $READY_S s, the rest is left running: pm2 logs voice-$port"
            exit 1
        }
        left=$((left - 1))
        sleep 1
    done
    say "voice-$port: ready"
done
