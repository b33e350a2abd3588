# shellcheck shell=bash
# Sourced by the other scripts: creates a virtual environment with this package, or reuses it if it is up to date.
#   prepare_environment [EXTRA]   EXTRA: "dev" adds the test tools
# DNL_VENV: folder of the environment (default: .venv). PYTHON: interpreter to create it with (default: python3).
set -euo pipefail
trap 'printf "error: %s stopped at line %s (status %s)\n" "$0" "$LINENO" "$?" >&2' ERR

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

prepare_environment() {
    local extra=${1:-} python=${PYTHON:-python3} wanted stamp
    VENV=${DNL_VENV:-$PWD/.venv}
    command -v "$python" >/dev/null || fail "no $python on this machine; install Python 3.10 or newer, or set PYTHON"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$("$python" --version) is too old; this package needs Python 3.10 or newer (set PYTHON to choose one)"
    stamp=$VENV/.dnl-video-environment
    wanted="$PWD $(cksum <pyproject.toml) extra=$extra"
    # An environment with the test tools also works without the extra.
    if [ -f "$stamp" ] && { [ "$(cat "$stamp")" = "$wanted" ] || [ "$(cat "$stamp")" = "${wanted}dev" ]; }; then
        say "environment: $VENV (up to date)"
    else
        say "environment: setting up $VENV (torch and its libraries are about 5 GB; a few minutes)"
        # Without ensurepip, venv fails but leaves a python without pip.
        "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv "$VENV" ||
            fail "cannot create $VENV; on Debian and Ubuntu: apt install python3-venv"
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${extra:+[$extra]}" ||
            fail "the installation into $VENV failed; the lines above say why"
        printf '%s' "$wanted" >"$stamp"
    fi
    PATH=$VENV/bin:$PATH
}
