#!/usr/bin/env bash
# Lint, types, documentation and tests.
#   scripts/test.sh          every check at a small size, about six minutes on two cores
#   scripts/test.sh --full   the same checks at full size, up to 45 minutes; run it before a release
# Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

export DNL_TEST_FULL=0
if [ "${1:-}" = "--full" ]; then
    DNL_TEST_FULL=1
    shift
fi
prepare_environment dev
# nproc returns OMP_NUM_THREADS if it is set, so it runs without it.
cores=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu)
# One thread per test process: with more threads than cores, the tests take several times as long.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Bytecode files spare every test process from compiling every test.
unset PYTHONDONTWRITEBYTECODE

say "lint"
ruff check .
ruff format --check .
say "types"
mypy
say "documentation"
NO_MKDOCS_2_WARNING=1 mkdocs build --strict
say "tests"
pytest -n "$cores" --dist worksteal -q "$@"
