"""The counts that `dnl-video models` prints, compared with the networks."""

from __future__ import annotations

import csv
from typing import get_args

import pytest
import torch

import costs
from dnl_video.cli import models
from dnl_video.models.create import create_model
from dnl_video.spec import Architecture, Context, list_models

LINES = models._COUNTED.read_text(encoding="utf-8").splitlines()
NETWORKS = [(architecture, context) for architecture, contexts in list_models().items() for context in contexts]
SMALL: list[tuple[Architecture, Context]] = [("c2d_r50", "gc"), ("slow_r50", "dnl")]


def test_every_network_has_a_line() -> None:
    assert LINES[0] == "architecture,context,params,macs_224,macs_256"
    assert [tuple(line.split(",")[:2]) for line in LINES[1:]] == NETWORKS


@pytest.mark.full
@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_parameters(architecture: Architecture, full_size: bool) -> None:
    contexts: tuple[Context, ...] = get_args(Context) if full_size else ("none", "dnl")
    with torch.device("meta"):
        counted = {c: sum(p.numel() for p in create_model(architecture, context=c).parameters()) for c in contexts}
    rows = {r["context"]: int(r["params"]) for r in csv.DictReader(LINES) if r["architecture"] == architecture}
    assert counted == {context: rows[context] for context in contexts}


@pytest.mark.full
def test_multiply_accumulates(full_size: bool) -> None:
    for architecture, context in NETWORKS if full_size else SMALL:
        line = costs.row(architecture, context, costs.SIDES if full_size else costs.SIDES[:1])
        assert [known for known in LINES if known.startswith(line)], line
