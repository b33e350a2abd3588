"""Seeds and sizes for the tests of dnl_video.models."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def stem_channels(full_size: bool) -> int:
    """Width of the backbones under test: the published 64 at full size."""
    return 64 if full_size else 8
