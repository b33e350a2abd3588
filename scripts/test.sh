#!/usr/bin/env bash
# Lint, types, documentation and tests.
#   scripts/test.sh            every check at a small size, about six minutes on two cores
#   scripts/test.sh --full     the same checks at full size, up to 45 minutes; run it before a release
#   scripts/test.sh --lowest   the tests with the lowest versions that pyproject.toml allows, in .venv-lowest
# Further arguments go to pytest. PYTHON chooses the interpreter of a new environment.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

export DNL_TEST_FULL=0
versions=newest
case ${1:-} in
    --full) DNL_TEST_FULL=1; shift ;;
    --lowest) versions=lowest; shift ;;
esac
prepare_environment dev "$versions"
# nproc returns OMP_NUM_THREADS if it is set, so it runs without it.
cores=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu)
# One thread per test process: with more threads than cores, the tests take several times as long.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Bytecode files spare every test process from compiling every test.
unset PYTHONDONTWRITEBYTECODE

if [ "$versions" = newest ]; then
    say "lint"
    ruff check .
    ruff format --check .
    say "types"
    mypy
    say "documentation"
    NO_MKDOCS_2_WARNING=1 mkdocs build --strict
fi
say "tests"
pytest -n "$cores" --dist worksteal -q "$@"
