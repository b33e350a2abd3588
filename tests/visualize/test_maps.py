from __future__ import annotations

import numpy as np
import pytest
import torch

from dnl_video.errors import InputError
from dnl_video.visualize.clip import Clip, Query
from dnl_video.visualize.maps import clip_maps
from tests.visualize.planted import untrained

QUERIES = [Query(0, 0.1, 0.9), Query(7, 0.5, 0.5)]


def noise(num_frames: int = 8, height: int = 72, width: int = 104) -> Clip:
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    return Clip("noise.mp4", frames, np.arange(num_frames) / 10, num_frames / 10)


@pytest.mark.parametrize(
    ("architecture", "context", "kind", "has_unary", "has_pairwise"),
    [
        ("slow_r50", "dnl", "DNL", True, True),
        ("slow_r50", "nl", "NL", False, True),
        ("slow_r50", "pairwise", "pairwise", False, True),
        ("slow_r50", "unary", "unary", True, False),
        ("slow_r50", "snl", "SNL", True, False),
        ("slow_r50", "gc", "GC", True, False),
        ("i3d_r50", "dnl", "DNL", True, True),
        ("slowfast_r50", "nl", "NL", False, True),
    ],
)
def test_every_map_sums_to_one(architecture, context, kind, has_unary, has_pairwise):
    found = clip_maps(untrained(architecture, context), noise(), QUERIES)
    assert found.kind == kind
    assert list(found.blocks) == ["res3.1", "res3.3", "res4.1", "res4.3", "res4.5"]
    times = {"slow_r50": 8, "i3d_r50": 4, "slowfast_r50": 2}[architecture]
    # 72 x 104 pixels are 9 x 13 positions in res3 and 5 x 7 in res4; snl and gc pool no keys.
    grids = [(9, 13), (5, 7)] if context in ("snl", "gc") else [(4, 6), (2, 3)]
    for name, block in found.blocks.items():
        shape = (times, *grids[name.startswith("res4")])
        assert block.keys.shape == shape
        assert (block.unary is not None, block.pairwise is not None) == (has_unary, has_pairwise)
        assert (block.logits is not None) == (context == "nl")
        if block.unary is not None:
            assert block.unary.shape == shape
            assert block.unary.sum() == pytest.approx(1, abs=1e-5)
        if block.pairwise is not None:
            assert block.pairwise.shape == (2, *shape)
            np.testing.assert_allclose(block.pairwise.sum(axis=(1, 2, 3)), 1, atol=1e-5)


def test_the_decomposition_gives_the_map():
    """softmax(pairwise + unary) is the coupled map; subtracting a constant from the unary logits changes nothing."""
    block = clip_maps(untrained("slow_r50", "nl"), noise(), QUERIES, ["res3.1"]).blocks["res3.1"]
    total = (block.logits.pairwise + block.logits.unary).reshape(2, -1).astype(np.float64)
    expected = np.exp(total - total.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(block.pairwise.reshape(2, -1), expected, atol=1e-5)
    assert block.logits.pairwise_share + block.logits.unary_share == pytest.approx(1)


def test_axes_of_pooled_keys():
    keys = clip_maps(untrained("i3d_r50", "dnl"), noise(), QUERIES, ["res3.1"]).blocks["res3.1"].keys
    np.testing.assert_allclose(keys.frames, [0.5, 2.5, 4.5, 6.5])
    # Features at 0, 8, ..., 64; keys are pairs of them, and the ninth row has no partner.
    np.testing.assert_allclose(keys.rows, [4, 20, 36, 52])
    np.testing.assert_allclose(keys.columns, [4, 20, 36, 52, 68, 84])
    assert keys.end == (64, 96)
    slow = clip_maps(untrained("slowfast_r50", "dnl"), noise(), QUERIES, ["res3.1"])
    assert slow.shown == [0, 7]
    np.testing.assert_allclose(slow.blocks["res3.1"].keys.frames, [0, 7])


def test_networks_without_attention_maps_are_refused():
    with pytest.raises(
        InputError, match=r"no context blocks \(context: none\), so there is no attention to draw; give"
    ):
        clip_maps(untrained("slow_r50", "none"), noise(), QUERIES)
    for similarity in ("dot_product", "concatenation"):
        with pytest.raises(InputError, match=f"attention {similarity} has no softmax, so its weights are no map"):
            clip_maps(untrained("slow_r50", "nl", attention=similarity), noise(), QUERIES)
    with pytest.raises(InputError, match=r"no block 'res3\.2'; this network has res3\.1, res3\.3.*did you mean"):
        clip_maps(untrained("slow_r50", "dnl"), noise(), QUERIES, ["res3.2"])


def test_the_network_is_unchanged():
    used = untrained("slow_r50", "dnl")
    found = clip_maps(used, noise(), QUERIES)
    assert not any(module._forward_pre_hooks for module in used.network.modules())
    # Untrained blocks are the identity, so the prediction is that of the whole network.
    clip = torch.from_numpy(noise().frames)[None]
    scores = used.score_views(clip)[0]
    assert found.prediction == (used.class_names[int(scores.argmax())], pytest.approx(float(scores.max()), abs=1e-5))
