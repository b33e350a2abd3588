"""Backbones compared with the hub's, heads with an independent computation, pooled features with the classifier."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest
import torch
from pytorchvideo.models.net import MultiPathWayWithFuse
from torch import nn

from dnl_video.models.backbones import create_backbone, slow_pathway_frames
from dnl_video.models.build import build_model
from dnl_video.spec import ModelSpec
from tests.models.helpers import hub_network, make_backbone, make_clip, perturb, perturb_backbone

R50 = ("slow_r50", "i3d_r50", "c2d_r50", "slowfast_r50")
R50S = pytest.mark.parametrize("architecture", R50)
SLOW_FRAMES_OF_32 = [0, 4, 8, 13, 17, 22, 26, 31]


# ---- against the hub


@pytest.mark.full
@pytest.mark.parametrize("architecture", [*R50, "slowfast_r101"])
@torch.no_grad()
def test_backbone_equals_the_hubs(architecture, stem_channels, full_size):
    """Same keys, and the same logits at the hub's nominal clip, at one window (224) and at several (256)."""
    slowfast = architecture.startswith("slowfast")
    theirs = hub_network(architecture, stem_channels)
    ours = make_backbone(architecture, stem_channels)
    frames = 32 if slowfast else 8
    perturb_backbone(ours, make_clip(frames, 64, 64))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for side in (224, 256):
        clip = make_clip(frames, side, side, batch=1)
        expected = theirs([clip[:, :, SLOW_FRAMES_OF_32], clip] if slowfast else clip)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(clip), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "millions"), [("i3d_r50", "28.04"), ("slow_r50", "32.45"), ("slowfast_r50", "34.57")]
)
def test_published_parameter_counts(architecture, millions):
    with torch.device("meta"):
        model = create_backbone(ModelSpec(architecture))
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == millions


@R50S
def test_strides_are_ints(architecture):
    convolutions = [m for m in make_backbone(architecture).modules() if isinstance(m, nn.Conv3d)]
    assert len(convolutions) > 50
    assert {type(s) for m in convolutions for s in m.stride} == {int}


@pytest.mark.parametrize("zero_init", [True, False])
@R50S
def test_zero_init_of_residual_branches(architecture, zero_init):
    model = make_backbone(architecture, zero_init_residual=zero_init)
    scales = [m.weight for m in model.modules() if getattr(m, "block_final_bn", False)]
    assert len(scales) == (32 if architecture == "slowfast_r50" else 16)
    assert all((scale == (0 if zero_init else 1)).all() for scale in scales)


# ---- clips of any size


@pytest.mark.parametrize(
    ("frames", "alpha", "expected"),
    [
        (32, 4, SLOW_FRAMES_OF_32),
        (16, 4, [0, 5, 10, 15]),
        (8, 4, [0, 7]),
        (64, 8, [0, 9, 18, 27, 36, 45, 54, 63]),
        (1, 4, [0]),
        (10, 4, [0, 4, 9]),
    ],
)
def test_slow_pathway_frames(frames, alpha, expected):
    assert slow_pathway_frames(frames, alpha) == expected


@pytest.mark.parametrize("alpha", [2, 3, 4, 8])
def test_slow_pathway_frames_equal_torch_linspace(alpha):
    for frames in range(1, 600):
        expected = torch.linspace(0, frames - 1, -(-frames // alpha)).long().tolist()
        assert slow_pathway_frames(frames, alpha) == expected


@pytest.mark.parametrize("frames", [8, 9, 10, 11, 12, 32, 33, 160, 161])
def test_slow_pathway_frames_match_the_lateral_convolution(frames):
    slow = slow_pathway_frames(frames, 4)
    assert all(0 <= a < b < frames for a, b in itertools.pairwise(slow))
    assert (slow[0], slow[-1]) == (0, frames - 1)
    for kernel in (7, 5):
        lateral = nn.Conv3d(1, 1, (kernel, 1, 1), stride=(4, 1, 1), padding=(kernel // 2, 0, 0))
        assert len(slow) == lateral(torch.zeros(1, 1, frames, 1, 1)).shape[2]


@pytest.mark.full
@pytest.mark.parametrize("head", ["dense_logits", "dense_probabilities", "global"])
@R50S
@torch.no_grad()
def test_any_number_of_frames_and_any_crop_run(architecture, head, stem_channels, full_size):
    model = build_model(ModelSpec(architecture, num_classes=5, stem_channels=stem_channels, head=head)).eval()
    perturb_backbone(model, make_clip())
    assert model(make_clip()).shape == (2, 5)
    shortest = 2 if architecture in ("i3d_r50", "c2d_r50") else 1
    sizes = [(frames, 32, 32) for frames in range(shortest, 10)]
    sizes += [(4, 33, 47), (5, 65, 17), (3, 7, 9), (3, 1, 1), (2, 224, 256)]
    if full_size and head == "dense_logits":
        sizes += [(9, 129, 200), (5, 320, 257)]
    for size in sizes:
        logits = model(make_clip(*size, batch=1))
        assert logits.shape == (1, 5)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("architecture", ["i3d_r50", "c2d_r50"])
def test_one_frame_is_too_few_for_networks_with_temporal_pooling(architecture):
    with pytest.raises(ValueError, match=r"clip has shape \(2, 3, 1, 32, 32\); expected \[B, 3, T >= 2, H, W\]"):
        make_backbone(architecture)(make_clip(1))


@R50S
def test_a_clip_without_batch_is_refused(architecture):
    with pytest.raises(ValueError, match=r"clip has shape \(3, 8, 32, 32\); expected \[B, 3, T >= \d, H, W\]"):
        make_backbone(architecture)(torch.zeros(3, 8, 32, 32))


@torch.no_grad()
def test_slowfast_does_not_overwrite_the_list_of_its_caller():
    model = make_backbone("slowfast_r50")
    clip = make_clip()
    x = [clip[:, :, slow_pathway_frames(8, 4)], clip]
    fused = [m for m in model.blocks if isinstance(m, MultiPathWayWithFuse)]
    assert len(fused) == 5
    for block in fused:
        held, kept = x, list(x)
        x = block(held)
        assert all(a is b for a, b in zip(held, kept, strict=True))
    assert x[0].shape[1] > x[1].shape[1]


# ---- heads


def smooth_features(channels, frames, size):
    """Features with a pattern over space that does not average out over frames, so that windows differ."""
    generator = torch.Generator().manual_seed(channels)
    pattern = torch.randn(2, channels, 1, *size, generator=generator)
    return 3 * pattern + torch.randn(2, channels, frames, *size, generator=generator)


def run_head(model, features):
    x = list(features) if len(features) > 1 else features[0]
    for block in model.blocks[-len(features) :]:
        x = block(x)
    return x


def head_and_features(architecture, head, size):
    """The model, the features that enter its head (one per pathway), and its logits of them."""
    model = perturb(make_backbone(architecture, head=head, dropout=0.0))
    shapes = [(256, 2), (32, 8)] if architecture == "slowfast_r50" else [(256, 4)]
    features = [smooth_features(*shape, size) for shape in shapes]
    return model, features, run_head(model, features)


def window_logits(model, features):
    """Logits [B, windows, K] of every T x 7 x 7 window at stride 1 (all rows or columns where fewer than 7)."""
    height, width = features[0].shape[3:]
    projection = model.blocks[-1].proj
    logits = []
    for top in range(max(height - 6, 1)):
        for left in range(max(width - 6, 1)):
            means = [f[:, :, :, top : top + 7, left : left + 7].flatten(2).mean(2) for f in features]
            logits.append(torch.cat(means, 1) @ projection.weight.T + projection.bias)
    return torch.stack(logits, 1)


@pytest.mark.parametrize("size", [(8, 8), (8, 11), (7, 7), (3, 5), (9, 1)], ids=str)
@pytest.mark.parametrize("architecture", ["slow_r50", "slowfast_r50"])
@torch.no_grad()
def test_heads_equal_an_independent_computation(architecture, size):
    windows = max(size[0] - 6, 1) * max(size[1] - 6, 1)

    model, features, logits = head_and_features(architecture, "dense_logits", size)
    each = window_logits(model, features)
    assert each.shape[1] == windows
    torch.testing.assert_close(logits, each.mean(1), rtol=1e-4, atol=1e-5)

    model, features, logits = head_and_features(architecture, "dense_probabilities", size)
    mean_probability = window_logits(model, features).softmax(-1).mean(1)
    torch.testing.assert_close(logits.softmax(-1), mean_probability, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits, mean_probability.log(), rtol=1e-4, atol=1e-5)
    if windows > 1:
        assert (logits - each.mean(1).log_softmax(-1)).abs().max() > 1e-3
    else:
        torch.testing.assert_close(logits, each[:, 0].log_softmax(-1), rtol=1e-4, atol=1e-5)

    model, features, logits = head_and_features(architecture, "global", size)
    means = torch.cat([f.flatten(2).mean(2) for f in features], 1)
    expected = means @ model.blocks[-1].proj.weight.T + model.blocks[-1].proj.bias
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    # Windows that overlap weigh the middle more: at 9 x 1 and 8 x 8 the two averages differ.
    assert (windows > 1) == (not torch.allclose(each.mean(1), expected, rtol=1e-3, atol=1e-4))


@pytest.mark.full
@R50S
@torch.no_grad()
def test_crops_of_256_have_two_by_two_windows(architecture, stem_channels, full_size):
    model = make_backbone(architecture, stem_channels, head="dense_probabilities")
    clip = make_clip(4, 256, 256, batch=1)
    perturb_backbone(model, make_clip(4, 64, 64))
    projected = []
    model.blocks[-1].proj.register_forward_hook(lambda *args: projected.append(args[2]))
    logits = model(clip)
    assert projected[0].shape[1:4] == (1, 2, 2)
    torch.testing.assert_close(logits.softmax(-1), projected[0].flatten(1, 3).softmax(-1).mean(1))


@pytest.mark.parametrize("head", ["dense_logits", "dense_probabilities", "global"])
@pytest.mark.parametrize("architecture", ["slow_r50", "slowfast_r50"])
def test_heads_do_the_same_in_training_and_evaluation(architecture, head):
    model, features, evaluation = head_and_features(architecture, head, (8, 8))
    torch.testing.assert_close(run_head(model.train(), features), evaluation)
    assert evaluation.requires_grad


@pytest.mark.parametrize("head", ["global", "dense_logits"])
@pytest.mark.parametrize(("architecture", "channels"), [("slow_r50", 256), ("slowfast_r50", 256 + 32)])
@torch.no_grad()
def test_pooled_features_times_the_classifier_are_the_logits(architecture, channels, head):
    model = build_model(ModelSpec(architecture, num_classes=5, head=head, stem_channels=8)).eval()
    clips = make_clip(4, 256, 288)  # 8 x 9 positions before the head: several windows for dense_logits
    (logits, features), classifier = model.pooled_features(clips), model.blocks[-1].proj
    torch.testing.assert_close(logits, model(clips))
    torch.testing.assert_close(features @ classifier.weight.T + classifier.bias, logits, atol=1e-5, rtol=1e-4)
    assert features.shape == (2, channels)
    assert features.std() > 0
    assert not classifier._forward_pre_hooks


def test_dropout_rate():
    rates = {m.p for m in make_backbone("slow_r50", dropout=0.3).modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.3}


# ---- import


IMPORT_AND_LIST_WARNINGS = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch
    script, calls = torch.jit.script, []
    def planted(*args, **kwargs):
        calls.append(1)
        warnings.warn("a planted warning", FutureWarning)
        # What torch says today, so that the test does not rest on the installed version.
        warnings.warn("`torch.jit.script` is deprecated. Please switch to `torch.compile`.", FutureWarning)
        return script(*args, **kwargs)
    torch.jit.script = planted
    start = len(caught)
    import dnl_video.models.backbones
    during = [str(w.message) for w in caught[start:]]
    torch.jit.script = script
    start = len(caught)
    warnings.warn("`torch.jit.script` is deprecated. Mine.", FutureWarning)
    after = [str(w.message) for w in caught[start:]]
print(json.dumps({"calls": len(calls), "during": during, "after": after}))
"""


def test_import_silences_only_the_torch_jit_warnings():
    done = subprocess.run([sys.executable, "-c", IMPORT_AND_LIST_WARNINGS], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["calls"] > 0, "pytorchvideo scripts nothing any more: the filter can go"
    assert [text for text in seen["during"] if "torch.jit" in text] == []
    assert "a planted warning" in seen["during"]
    assert seen["after"] == ["`torch.jit.script` is deprecated. Mine."]
