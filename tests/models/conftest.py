"""Seeds and sizes for the tests of dnl_video.models."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def stem_channels(full_size: bool) -> int:
    """Width of the backbones under test: the published 64 at full size."""
    return 64 if full_size else 8


@pytest.fixture
def sdpa_kernels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The kernel (a value of SDPBackend) of every call of `scaled_dot_product_attention` in a test."""
    chosen: list[int] = []
    real = F.scaled_dot_product_attention

    def spy(query, key, value, **options):
        chosen.append(torch._fused_sdp_choice(query, key, value, **options))
        return real(query, key, value, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return chosen
