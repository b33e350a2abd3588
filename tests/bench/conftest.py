"""Make the modules of scripts/bench importable by their names, as they are when a script runs."""

from __future__ import annotations

import sys

from tests.conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts" / "bench"))
