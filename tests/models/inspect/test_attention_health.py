"""Entropy and shared keys of attention maps, against loops from their definition."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from dnl_video.models.context_block import AttentionMaps
from dnl_video.models.create import create_model
from dnl_video.models.inspect import attention_health as module
from dnl_video.models.inspect.attention_health import attention_health, collapse_note, map_health
from dnl_video.models.inspect.geometry import placed_blocks

NAMES = ["res3.1", "res3.3", "res4.1", "res4.3", "res4.5"]
PAIRWISE, UNARY = {"pairwise_entropy", "same_key_share"}, {"unary_entropy"}


def entropy(weights: list[float]) -> float:
    return -sum(w * math.log(w) for w in weights if w) / math.log(len(weights))


def by_definition(pairwise: torch.Tensor, unary: torch.Tensor) -> dict[str, float]:
    rows = [row for clip in pairwise.tolist() for row in clip]
    shares = []
    for clip in pairwise.tolist():
        strongest = Counter(row.index(max(row)) for row in clip)
        shares.append(max(strongest.values()) / len(clip))
    return {
        "pairwise_entropy": sum(map(entropy, rows)) / len(rows),
        "same_key_share": sum(shares) / len(shares),
        "unary_entropy": sum(map(entropy, unary.tolist())) / len(unary),
    }


def test_numbers_of_random_maps() -> None:
    pairwise, unary = (3 * torch.randn(2, 7, 5)).softmax(-1), torch.randn(2, 5).softmax(-1)
    assert map_health(AttentionMaps(pairwise, unary)) == pytest.approx(by_definition(pairwise, unary), rel=1e-5)
    assert map_health(AttentionMaps(None, unary)).keys() == UNARY
    assert map_health(AttentionMaps(pairwise, None)).keys() == PAIRWISE
    alone = map_health(AttentionMaps(torch.ones(1, 4, 1), torch.ones(1, 1)))
    assert not collapse_note({"res3.1": alone}), "a single key is no choice"


@pytest.mark.parametrize(
    ("pairwise", "health", "collapsed"),
    [
        (torch.eye(4), (0.0, 0.25), True),  # each query has its own single key
        (torch.eye(4)[[2, 2, 2, 1]], (0.0, 0.75), True),
        (torch.full((4, 4), 0.25), (1.0, 1.0), False),  # uniform: the first of equal weights is the strongest
        (torch.tensor([[0.55, 0.15, 0.15, 0.15]] * 4), (0.84, 1.0), True),  # the same map for every query
        (0.4 * torch.eye(4) + 0.15, (0.84, 0.25), False),
    ],
)
def test_collapsed_maps(pairwise: torch.Tensor, health: tuple[float, float], collapsed: bool) -> None:
    found = map_health(AttentionMaps(pairwise[None], None))
    assert (found["pairwise_entropy"], found["same_key_share"]) == pytest.approx(health, abs=0.02)
    assert bool(collapse_note({"res3.1": found})) is collapsed


def test_note() -> None:
    good = {"pairwise_entropy": 0.8, "same_key_share": 0.3, "unary_entropy": 0.9}
    assert collapse_note({}) == collapse_note({"res3.1": good, "res4.1": {"unary_entropy": 0.21}}) == ""
    peaked = good | {"pairwise_entropy": 0.052, "same_key_share": 0.47}
    assert collapse_note({"res3.1": good, "res4.1": peaked}) == (
        "attention collapsed in 1 of 2 blocks: entropy 0.05, 47% of queries on one key"
    )
    assert collapse_note({"a": {"unary_entropy": 0.1}}) == "attention collapsed in 1 of 1 blocks: entropy 0.10"


@pytest.mark.parametrize(
    ("context", "options", "expected"),
    [
        ("dnl", {}, PAIRWISE | UNARY),
        ("nl", {}, PAIRWISE),
        ("nl", {"attention": "gaussian"}, PAIRWISE),
        ("nl", {"attention": "dot_product"}, None),
        ("pairwise", {}, PAIRWISE),
        ("unary", {}, UNARY),
        ("snl", {}, UNARY),
        ("gc", {}, UNARY),
        ("none", {}, None),
    ],
)
def test_the_maps_of_every_context(
    context: Any, options: Any, expected: set[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = create_model("slow_r50", context=context, num_classes=3, stem_channels=8, **options).eval()
    for parameter in network.parameters():
        parameter.data *= 3.0
    inputs: dict[str, torch.Tensor] = {}
    for place in placed_blocks(network):
        place.block.register_forward_hook(lambda _, args, out, name=place.name: inputs.update({name: args[0]}))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    clips = torch.randn(2, 3, 4, 48, 48, generator=torch.Generator().manual_seed(1))
    found = attention_health(network, clips)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert list(found) == ([] if expected is None else NAMES)
    for place in placed_blocks(network) if expected else ():
        maps = place.block.attention_maps(inputs[place.name])
        pairwise = torch.ones(1, 1, 2) if maps.pairwise is None else maps.pairwise
        unary = torch.ones(1, 2) if maps.unary is None else maps.unary
        loop = by_definition(pairwise.detach(), unary.detach())
        assert found[place.name] == pytest.approx({name: loop[name] for name in expected or ()}, rel=1e-4)
    if context == "dnl":
        # A few queries stand for all: the same ones each time.
        monkeypatch.setattr(module, "_MOST_QUERIES", 20)
        some = attention_health(network, clips)
        assert some == attention_health(network, clips)
        assert some["res3.1"]["unary_entropy"] == found["res3.1"]["unary_entropy"]
        assert some["res3.1"]["pairwise_entropy"] != found["res3.1"]["pairwise_entropy"]
        assert some["res3.1"]["pairwise_entropy"] == pytest.approx(found["res3.1"]["pairwise_entropy"], abs=0.1)
