#!/bin/sh
# Restarts the instances of the voice server one after the other, so that no caller is refused and no talk is cut:
# an instance that stops is passed over by nginx at once, and its talks go on until they end, at most DRAIN_TIMEOUT.
# The next one stops only when this one is ready again. When one does not come up, the rest is left running.
#
#   rolling-restart.sh                  all running voice@ instances
#   rolling-restart.sh 8081 8082        these
#   rolling-restart.sh --dry-run        say what would be done
#   rolling-restart.sh --timeout 60     seconds an instance may take from its start to /ready (default 60)
#
# Exit status: 0 all restarted, 1 one did not come up or was not ready before, 2 wrong use.
#
# Environment, for tests and other service managers:
#   SYSTEMCTL   in place of systemctl: called with "list-units …", "restart UNIT", "show -p StatusText --value UNIT"
set -eu

SYSTEMCTL=${SYSTEMCTL:-systemctl}
TIMEOUT=60
DRY_RUN=no

say() {
    printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"
}

fail() {
    status=$1
    shift
    printf 'rolling-restart: %s\n' "$*" >&2
    exit "$status"
}

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

# The port of every running instance, one a line.
running() {
    $SYSTEMCTL list-units --plain --no-legend --state=active 'voice@*.service' |
        sed -n 's/^voice@\([0-9][0-9]*\)\.service .*/\1/p' | sort -n
}

# What an instance answers to "do you take new sessions?": its health port is its port with a 1 before it.
is_ready() {
    [ "$(curl --silent --max-time 5 --noproxy '*' --output /dev/null --write-out '%{http_code}' \
        "http://127.0.0.1:1$1/ready" || true)" = 200 ]
}

wait_until_ready() {
    left=$TIMEOUT
    until is_ready "$1"; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 1
    done
}

restart() {
    say "voice@$1: restarting; its talks go on until they end ($($SYSTEMCTL show -p StatusText --value "voice@$1"))"
    if [ "$DRY_RUN" = yes ]; then
        return 0
    fi
    # Waits for the drain, the stop, and READY=1 of the new process.
    $SYSTEMCTL restart "voice@$1" ||
        fail 1 "voice@$1 did not start; the other instances were left running. Look: journalctl -u voice@$1 -n 50"
    wait_until_ready "$1" ||
        fail 1 "voice@$1 is not ready after $TIMEOUT s; the other instances were left running." \
            "Look: curl -s 127.0.0.1:1$1/health"
    say "voice@$1: ready"
}

PORTS=
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) DRY_RUN=yes ;;
    --timeout)
        [ $# -ge 2 ] || fail 2 "--timeout needs a number of seconds"
        TIMEOUT=$2
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    '' | *[!0-9]*) fail 2 "what is '$1'? Instances are named by their port; --help shows the options" ;;
    *) PORTS="$PORTS $1" ;;
    esac
    shift
done
case $TIMEOUT in '' | *[!0-9]*) fail 2 "--timeout needs a number of seconds, not '$TIMEOUT'" ;; esac
command -v curl >/dev/null || fail 2 "curl is not installed: apt-get install curl"

RUNNING=$(running)
: "${PORTS:=$RUNNING}"
[ -n "$PORTS" ] || fail 2 "no instance of voice@ runs. Start two: systemctl enable --now voice@8081 voice@8082"
[ "$(printf '%s\n' "$RUNNING" | grep -c .)" -ge 2 ] ||
    fail 2 "only one instance runs: while it restarts nobody would answer. Start another: systemctl start voice@8082"

for port in $PORTS; do
    for other in $RUNNING; do
        if [ "$other" != "$port" ] && ! is_ready "$other"; then
            fail 1 "voice@$other is not ready, so voice@$port is left running. Look: curl -s 127.0.0.1:1$other/health"
        fi
    done
    restart "$port"
done
if [ "$DRY_RUN" = yes ]; then
    say "nothing was done"
else
    say "all restarted"
fi
