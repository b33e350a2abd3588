"""The folded copy of a network compared with the network, all parameters perturbed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pytorchvideo.models.csn import create_csn
from pytorchvideo.models.resnet import create_bottleneck_block, create_res_stage

from dnl_video.models.create import create_model
from dnl_video.models.runtime import onednn
from dnl_video.models.runtime.folding import optimize_for_inference
from tests.models.helpers import perturb, perturb_backbone, relative_error

FAMILIES = ("slow_r50", "i3d_r50", "c2d_r50", "slowfast_r50")
CONTEXTS = ("none", "nl", "dnl", "pairwise", "unary")


def perturbed(architecture: str, context: str, clip: torch.Tensor, **options: Any) -> torch.nn.Module:
    model = create_model(architecture, context=context, num_classes=7, stem_channels=8, dropout=0.0, **options)
    return perturb_backbone(model, clip).eval()


def check(model: torch.nn.Module, *sizes: tuple[int, ...]) -> None:
    """Equal in float64; in float32 as close to float64 as the network itself, up to rounding."""
    exact = copy.deepcopy(model).double()
    fast, fast_exact = optimize_for_inference(model), optimize_for_inference(exact)
    with torch.inference_mode():
        for size in sizes:
            x = torch.randn(size)
            before = x.clone()
            expected = exact(x.double())
            assert expected.std() > 1e-3
            assert relative_error(fast_exact(x.double()), expected) < 1e-9
            assert relative_error(fast(x), expected) < 1e-5 + 8 * relative_error(model(x), expected)
            assert torch.equal(x, before)


@pytest.mark.full
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("architecture", FAMILIES)
def test_equals_eager(architecture: str, context: str, full_size: bool) -> None:
    sizes = [(2, 3, 8, 64, 64), (1, 3, 9, 51, 67)]
    model = perturbed(architecture, context, torch.randn(sizes[0]))
    check(model, *(sizes if full_size or context == "dnl" else sizes[1:]))


@pytest.mark.parametrize(
    ("architecture", "context", "options"),
    [
        ("slow_r50", "snl", {}),
        ("slow_r50", "gc", {}),
        ("i3d_r101", "dnl", {}),
        ("slowfast_r101", "dnl", {}),
        ("i3d_r50", "nl", {"stem_strides": (2, 2)}),
        ("slowfast_r50", "nl", {"fusion": "conv", "slow_frames": "strided"}),
    ],
)
def test_equals_eager_for_other_networks_and_blocks(architecture: str, context: str, options: dict[str, Any]) -> None:
    size = (1, 3, 9, 51, 67)
    check(perturbed(architecture, context, torch.randn(size), **options), size)


@pytest.mark.parametrize("architecture", ["i3d_r50", "slowfast_r50"])
def test_equals_eager_without_onednn(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "available", lambda: False)
    check(perturbed(architecture, "dnl", torch.randn(1, 3, 9, 51, 67)), (1, 3, 9, 51, 67))


def test_the_original_is_unchanged_and_the_copy_can_be_copied() -> None:
    x = torch.randn(1, 3, 4, 32, 32)
    model = perturbed("slow_r50", "dnl", x).train()
    state = copy.deepcopy(model.state_dict())
    fast = optimize_for_inference(model)
    with torch.inference_mode():
        assert torch.equal(fast(x), copy.deepcopy(fast)(x))
    assert model.training
    assert not any(module.training for module in fast.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert not any(p.requires_grad for p in fast.parameters())
    assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in fast.modules())


def test_unknown_parts_are_kept() -> None:
    x = torch.randn(1, 3, 4, 32, 32)
    net = create_csn(model_depth=50, model_num_class=5, stem_dim_out=8, dropout_rate=0.0, head_pool=None)
    model = perturb_backbone(net, x).eval()
    check(model, tuple(x.shape))


def test_a_stage_keeps_its_input_and_the_epsilon_of_its_norms() -> None:
    x = torch.randn(2, 16, 4, 8, 8).to(memory_format=torch.channels_last_3d)  # another layout would be copied
    # As many channels out as in, so the first block adds its input to its output.
    stage = create_res_stage(
        **{"depth": 2, "dim_in": 16, "dim_inner": 4, "dim_out": 16, "bottleneck": create_bottleneck_block},
        **{"conv_a_stride": (1, 1, 1), "conv_b_stride": (1, 1, 1), "norm_eps": 0.1},
    )
    assert stage.res_blocks[0].branch1_conv is None
    check(perturb(stage).eval(), tuple(x.shape))
    before = x.clone()
    with torch.inference_mode():
        optimize_for_inference(stage)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_network_with_infinite_weights_is_copied_without_changes(value: str) -> None:
    x = torch.randn(1, 3, 4, 32, 32)
    model = perturbed("slow_r50", "none", x)
    name = next(k for k in model.state_dict() if k.endswith("branch2.norm_a.bias"))
    model.load_state_dict({name: torch.full_like(model.state_dict()[name], float(value))}, strict=False)
    copied = optimize_for_inference(model.train())
    assert not any(module.training for module in copied.modules())
    with torch.inference_mode():
        logits, expected = copied(x), model.eval()(x)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0, equal_nan=True)
    if value == "nan":
        assert logits.isnan().all()
    assert [type(module) for module in copied.modules()] == [type(module) for module in model.modules()]
