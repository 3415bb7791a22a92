#!/bin/sh
# Starts the server in a container whose volume belongs to root: gives STATE_DIR to voicegw, then becomes voicegw.
# exec: the server takes this process's place and gets its signals.
set -eu
state=${STATE_DIR:-/var/lib/websocket-voice-server}
install -d -o voicegw -g voicegw -m 0700 "$state"
chown -R voicegw:voicegw "$state" # lost+found of a new volume too
exec setpriv --reuid voicegw --regid voicegw --init-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
