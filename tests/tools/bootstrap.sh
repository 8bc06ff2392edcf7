#!/bin/sh
# Makes .venv from requirements-dev.txt. When .venv was made from this very lock in this very place, it does nothing.
set -eu
cd "$(dirname "$0")/../.."

lock=requirements-dev.txt
stamp=.venv/made-from
# The place counts as well: the commands in .venv/bin carry its absolute path, so a moved checkout needs a new one.
want="$(sha256sum "$lock") $PWD"
if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && .venv/bin/python -c ''; then
    exit 0
fi

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

if ! python=$(find_python); then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: apt-get install python3 python3-venv"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3 python3-venv >/dev/null
    fi
    python=$(find_python) || {
        echo "setup: no Python >= 3.11 with venv here; install python3 and python3-venv, then repeat" >&2
        exit 1
    }
fi

echo "setup: .venv with $("$python" --version) from $lock (20 s)"
"$python" -m venv --clear .venv
# Byte code comes with the first import of the few modules that are used: compiling all of them doubles the time.
.venv/bin/pip install --quiet --disable-pip-version-check --no-compile --only-binary :all: --require-hashes -r "$lock"
echo "$want" >"$stamp"
