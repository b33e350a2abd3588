# shellcheck shell=bash
# Sourced by the other scripts: creates a virtual environment with this package, or reuses it if it is up to date.
#   prepare_environment [EXTRA] [VERSIONS]   EXTRA: "dev" adds the test tools. VERSIONS: "lowest" installs the lowest
#                                            versions that pyproject.toml allows, with uv (default: newest)
# DNL_VENV: folder of the environment (default: .venv or .venv-lowest). PYTHON: interpreter to create it with (default:
# python3).
set -euo pipefail
trap 'printf "error: %s stopped at line %s (status %s)\n" "$0" "$LINENO" "$?" >&2' ERR

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

install_package() {
    if [ "$1" = newest ]; then
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$2"
    else # pip cannot choose the lowest versions
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check uv &&
            "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" --resolution lowest-direct --editable "$2"
    fi
}

prepare_environment() {
    local extra=${1:-} versions=${2:-newest} python=${PYTHON:-python3} wanted stamp
    VENV=${DNL_VENV:-$PWD/.venv}
    [ "$versions" = newest ] || VENV=${DNL_VENV:-$PWD/.venv-$versions}
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
        install_package "$versions" ".${extra:+[$extra]}" ||
            fail "the installation into $VENV failed; the lines above say why"
        printf '%s' "$wanted" >"$stamp"
    fi
    PATH=$VENV/bin:$PATH
}
