#!/bin/sh
# Plays Docker for the tests: writes down what it was told, and brings up a real `cogo up` in place of containers.
# $FAKE is where it keeps what it knows; the files there say what goes wrong. $COGO is the program.
printf '%s\n' "$*" >>"$FAKE/calls"
case "$1 $2" in
"compose version") echo 2.40.3; exit 0 ;;
info*)
    [ ! -e "$FAKE/no-engine" ] || { echo "Cannot connect to the Docker daemon at unix:///nowhere.sock." >&2; exit 1; }
    echo 28.0.0; exit 0 ;;
"ps --all") cat "$FAKE/containers" 2>/dev/null; exit 0 ;;
esac
[ "$1" = compose ] || { echo "no such command: $*" >&2; exit 99; }
shift
while [ "${1#--}" != "$1" ]; do shift 2; done
command=$1
shift
case $command in
config) cat "$FAKE/config.json" ;;
build)
    [ ! -e "$FAKE/build-hangs" ] || { : >"$FAKE/building"; exec sleep 600; }
    [ ! -e "$FAKE/build-fails" ] || { echo "failed to solve: no space left on device"; exit 17; } ;;
up)
    [ ! -e "$FAKE/unhealthy" ] || { echo "dependency failed to start: container x-hub-1 is unhealthy"; exit 1; }
    [ ! -e "$FAKE/no-hub" ] || exit 0
    echo 0123456789ab >"$FAKE/containers"
    COGO_DATA_DIR=$FAKE/data COGO_CONFIG_DIR=$FAKE/configs \
        setsid "$COGO" up --listen 127.0.0.1:0 >"$FAKE/hub.log" 2>&1 &
    echo $! >"$FAKE/pid"
    tries=600
    until grep -q 'COGO is up' "$FAKE/hub.log"; do
        tries=$((tries - 1))
        kill -0 "$(cat "$FAKE/pid")" && [ $tries -gt 0 ] || { cat "$FAKE/hub.log"; exit 1; }
        sleep 0.1
    done ;;
ps) cat "$FAKE/ps.json" ;;
port) sed -n 's#^ *hub *http://##p' "$FAKE/hub.log" ;;
exec)
    [ ! -e "$FAKE/replay.json" ] || { cat "$FAKE/replay.json"; exit 0; }
    # --no-TTY hub cogo …
    shift 3
    COGO_DATA_DIR=$FAKE/data "$COGO" "$@" ;;
logs) cat "$FAKE/said" ;;
down)
    if [ -e "$FAKE/pid" ]; then
        kill "$(cat "$FAKE/pid")"
        while kill -0 "$(cat "$FAKE/pid")" 2>/dev/null; do sleep 0.1; done
        rm "$FAKE/pid"
    fi
    [ -e "$FAKE/leaves-one" ] || rm -f "$FAKE/containers" ;;
*) echo "no such command: compose $command $*" >&2; exit 99 ;;
esac
