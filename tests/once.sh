# For the install.sh beside the pins, which sets `pins`, `target` and `who` and then says what it wants.

# Runs the rest of its arguments in a fresh directory, unless they did so once for the same pins.
once() {
    name=$1
    shift
    home=$target/$name
    stamp=$(cat "$pins/$name"/package-lock.json "$pins/$name"/requirements.txt 2>/dev/null | cksum)
    [ "$(cat "$home/.installed" 2>/dev/null)" = "$stamp" ] && return
    echo "$who: installing $name" >&2
    rm -rf "$home"
    mkdir -p "$home"
    if ! (cd "$home" && "$@") >"$home/install.log" 2>&1; then
        cat "$home/install.log" >&2
        echo "$who: $name could not be installed" >&2
        exit 1
    fi
    printf '%s\n' "$stamp" >"$home/.installed"
}

# No scripts: what they would fetch is in no lock file.
npm_client() {
    cp "$pins/$name/package.json" "$pins/$name/package-lock.json" .
    npm ci --ignore-scripts --no-audit --no-fund
}

pip_client() {
    python3 -m venv .
    bin/python -m pip install --require-hashes -r "$pins/$name/requirements.txt"
}
