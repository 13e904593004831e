# Usage: keeper.sh RUNNER DIR
# Waits until the test run with pid RUNNER is over, however it ends; then stops the servers below DIR
# and removes DIR. Plain POSIX sh, because it must outlive the process that starts it.

trap '' HUP INT QUIT

# Whether a process lives. Where nobody reaps, a dead one stays as a zombie, which is no life.
alive() {
    kill -0 "$1" 2>/dev/null || return 1
    [ -r "/proc/$1/status" ] || return 0
    while read -r key value _; do
        case "$key$value" in State:Z | State:X) return 1 ;; esac
    done <"/proc/$1/status"
    return 0
}

while alive "$1"; do
    [ -d "$2" ] || exit 0
    sleep 1
done

for file in "$2"/*/data/postmaster.pid; do
    [ -f "$file" ] || continue
    read -r pid <"$file" || continue
    kill -QUIT "$pid" 2>/dev/null # an immediate shutdown; nothing here is worth more
    tries=0
    while alive "$pid" && [ "$tries" -lt 10 ]; do
        sleep 1
        tries=$((tries + 1))
    done
done
# Once more: a test process may outlive its runner for a moment, and write.
rm -rf "$2" || { sleep 1; rm -rf "$2"; }
