# shellcheck shell=bash disable=SC2154 # read by check.sh, which sets root, here and work
# The small worker: it refuses what it does not have by name, joins a hub over HTTP with a key, and calls a tool.
# Part of check.sh.

commands_of() { "$1" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p'; }
commands_of "$work/full" | sort >"$work/all"
commands_of "$work/worker" | sort >"$work/few"
if [ -s "$work/few" ] && [ -z "$(comm -13 "$work/all" "$work/few")" ]; then
    ok "the worker's commands are all in the full build"
else
    not_ok "the worker's commands are all in the full build" "$work/few"
fi
for command in $(comm -23 "$work/all" "$work/few"); do
    must "\`$command\` is told to be elsewhere" 2 "\`$command\` is not in this build" "full one" -- "$work/worker" "$command"
done
must "what no build has is refused as ever" 2 "unrecognized subcommand" -- "$work/worker" hubb
must "the worker's build says what it is" 0 "features: worker" "mcp:" "2025-11-25" -- "$work/worker" --version
must "a worker without traces says so" 2 "OTEL_EXPORTER_OTLP_ENDPOINT" "exports no traces" "no JSON Web Token" -- \
    env OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9 "$work/worker" worker echo --url http://127.0.0.1:9 --key none

# Waits until a file has a line with these words.
wait_for() {
    for _ in $(seq 600); do
        grep -qF -- "$2" "$1" && return 0
        sleep 0.1
    done
    cat "$1" >&2
    return 1
}
end() {
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

"$work/full" up --listen 127.0.0.1:0 >"$work/up.log" 2>&1 &
up=$!
trap 'end "${worker:-}"; end "$up"; rm -rf "$work"' EXIT
wait_for "$work/up.log" "Ctrl-C" || not_ok "a hub starts" "$work/up.log"
url=$(grep -o 'http://127.0.0.1:[0-9]*' "$work/up.log" | head -n 1)
"$work/full" token mint --tenant default --worker pc --topic '*' --send '*' >"$work/key" 2>/dev/null
chmod 600 "$work/key"

mkdir "$work/configs"
printf '{"toolsets": {"mine": {"command": "python3", "args": ["%s"]}}}\n' "$here/tool.py" >"$work/configs/mcp.json"
away=("$work/worker" --url "$url" --key-file "$work/key" --config-dir "$work/configs" --data-dir "$work/away")
"${away[@]}" worker mcp-gateway --metrics-listen 127.0.0.1:0 >"$work/worker.log" 2>&1 &
worker=$!
if wait_for "$work/worker.log" "is ready"; then ok "the small worker joins a hub"; else not_ok "the small worker joins a hub"; fi
must "its tool is called through the bus" 0 "twice 21 is 42" -- \
    "${away[@]}" mcp call mine twice --params '{"n": 21}' --timeout 60s
must "the full build calls it too" 0 "twice 4 is 8" -- "$work/full" mcp call mine twice --params '{"n": 4}' --timeout 60s
must "the hub sees who did it" 0 "pc.mcp-gateway" -- "$work/full" workers
probe=$(grep -o 'http://127.0.0.1:[0-9]*/metrics' "$work/worker.log" | head -n 1)
must "its metrics are served" 0 "cogo_mcp_calls_total" -- curl -fsS "$probe"
if [ -r "/proc/$worker/status" ]; then grep VmRSS "/proc/$worker/status"; fi
end "$worker"
end "$up"
trap 'rm -rf "$work"' EXIT
