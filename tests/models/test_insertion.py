"""Insertion of context blocks into the residual stages of pytorchvideo's networks."""

from __future__ import annotations

import pytest
import torch
from pytorchvideo.layers import swish
from pytorchvideo.models.csn import create_csn
from pytorchvideo.models.r2plus1d import create_r2plus1d
from torch import nn

from dnl_video.errors import InputError
from dnl_video.models.backbones import find_stages
from dnl_video.models.blocks import DisentangledNonLocalBlock3d
from dnl_video.models.build import block_positions, insert_context_blocks
from dnl_video.spec import ModelSpec
from tests.models.helpers import make_backbone, make_clip, perturb, perturb_backbone, relative_error


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("slow_r50", ["blocks.2.", "blocks.3."]),
        ("c2d_r50", ["blocks.3.", "blocks.4."]),
        ("i3d_r50", ["blocks.3.", "blocks.4."]),
        ("slowfast_r50", ["blocks.2.multipathway_blocks.0.", "blocks.3.multipathway_blocks.0."]),
    ],
)
def test_default_positions_of_r50(architecture, expected):
    # I3D's and C2D's blocks.2 is a pool; SlowFast's stages sit one level deeper.
    model = make_backbone(architecture)
    names = insert_context_blocks(model, DisentangledNonLocalBlock3d, block_positions(ModelSpec(architecture)))
    res3, res4 = expected
    assert names == [f"{res3}context_blocks.{i}" for i in (1, 3)] + [f"{res4}context_blocks.{i}" for i in (1, 3, 5)]
    assert [model.get_submodule(name).channels for name in names] == [64, 64, 128, 128, 128]


@pytest.mark.parametrize("family", ["slow", "i3d", "c2d", "slowfast"])
def test_default_positions_of_r101(family):
    assert block_positions(ModelSpec(f"{family}_r101")) == {"res3": (1, 3), "res4": (6, 13, 20)}


@pytest.mark.parametrize("architecture", ["slow_r50", "i3d_r50", "c2d_r50", "slowfast_r50"])
def test_stages_are_found_by_type(architecture):
    stages = find_stages(make_backbone(architecture))
    assert list(stages) == ["res2", "res3", "res4", "res5"]
    assert [len(stage.res_blocks) for _, _, stage in stages.values()] == [3, 4, 6, 3]


class Probe(nn.Module):
    """A block that keeps its last input."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        self.seen = x
        return x + 1


@pytest.mark.parametrize("architecture", ["slow_r50", "slowfast_r50"])
@torch.no_grad()
def test_a_block_sits_between_the_relu_and_the_next_residual_block(architecture):
    model = make_backbone(architecture)
    perturb_backbone(model, make_clip())
    (name,) = insert_context_blocks(model, Probe, {"res4": [2]})
    stage = model.get_submodule(name.rpartition(".context_blocks")[0])
    seen = {}
    stage.res_blocks[2].register_forward_hook(lambda *args: seen.update(before=args[2]))
    stage.res_blocks[3].register_forward_pre_hook(lambda _, args: seen.update(after=args[0]))
    model(make_clip())
    probe = model.get_submodule(name)
    assert probe.seen is seen["before"]
    assert probe.seen.min() == 0
    assert probe.seen.max() > 0
    assert torch.equal(seen["after"], seen["before"] + 1)
    assert probe.channels == seen["before"].shape[1] == 128


@pytest.mark.parametrize(
    ("create", "head_pool"), [(create_csn, (1, 1, 1)), (create_r2plus1d, (1, 1, 1))], ids=["csn", "r2plus1d"]
)
@torch.no_grad()
def test_other_networks_made_of_res_stage(create, head_pool):
    model = create(stem_dim_out=8, model_num_class=5, head_pool_kernel_size=head_pool).eval()
    clip = make_clip(8, 48, 48)
    perturb_backbone(model, clip)
    before, keys = model(clip), set(model.state_dict())
    names = insert_context_blocks(model, DisentangledNonLocalBlock3d, {"res3": (1, 3), "res4": (1, 3, 5)})
    assert len(names) == 5
    assert {key for key in model.state_dict() if "context_blocks" not in key} == keys
    assert torch.equal(model(clip), before)
    for name in names:
        perturb(model.get_submodule(name))
    assert relative_error(model(clip), before) > 1e-3


def test_insertion_keeps_initial_values_and_positions_may_be_empty():
    model = make_backbone("slow_r50")
    names = insert_context_blocks(model, lambda c: DisentangledNonLocalBlock3d(c, 32), {"res5": (2, 0), "res2": ()})
    assert names == ["blocks.4.context_blocks.0", "blocks.4.context_blocks.2"]
    for name in names:
        block = model.get_submodule(name)
        assert torch.count_nonzero(block.norm.weight) == 0
        assert block.query.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert insert_context_blocks(make_backbone("slow_r50"), DisentangledNonLocalBlock3d, {}) == []


def test_blocks_may_be_added_to_another_stage_later():
    model = make_backbone("slow_r50")
    insert_context_blocks(model, DisentangledNonLocalBlock3d, {"res3": [1]})
    names = insert_context_blocks(model, DisentangledNonLocalBlock3d, {"res4": [5]})
    assert names == ["blocks.2.context_blocks.1", "blocks.3.context_blocks.5"]


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ({"res6": [0]}, "positions: no stage 'res6'; allowed: res2, res3, res4, res5; did you mean 'res"),
        ({"stage9": [0]}, r"positions: no stage 'stage9'; allowed: res2, res3, res4, res5$"),
        ({"layer3": [0], "res3": [1]}, "positions: no stage 'layer3'; allowed: res2, res3, res4, res5"),
        ({"res3": [4]}, "positions: res3 has no residual block 4; allowed: 0 to 3"),
        ({"res4": [1, -1]}, "positions: res4 has no residual block -1; allowed: 0 to 5"),
        ({"res3": [1, 1]}, r"positions: res3 lists \[1, 1\]; give each residual block once"),
    ],
)
@pytest.mark.parametrize("architecture", ["slow_r50", "slowfast_r50"])
def test_wrong_positions_name_what_is_allowed_and_change_nothing(architecture, positions, message):
    model = make_backbone(architecture)
    with pytest.raises(InputError, match=message):
        insert_context_blocks(model, DisentangledNonLocalBlock3d, {"res2": [0], **positions})
    assert not any("context_blocks" in name for name, _ in model.named_modules())


def test_inserting_twice_is_refused():
    model = make_backbone("slow_r50")
    insert_context_blocks(model, DisentangledNonLocalBlock3d, {"res3": [1]})
    with pytest.raises(InputError, match="positions: res3 has context blocks already; insert into a bare network"):
        insert_context_blocks(model, DisentangledNonLocalBlock3d, {"res3": [3]})


@pytest.mark.parametrize(
    ("make_network", "message"),
    [
        (lambda: nn.Linear(2, 2), "Linear has no `blocks`; give a pytorchvideo network made of ResStage"),
        (lambda: swish.Swish(), "Swish has no `blocks`; give a pytorchvideo network made of ResStage"),
        (lambda: nn.ModuleDict({"blocks": nn.ModuleList([nn.ReLU()])}), "ModuleDict has no ResStage; give a pytorchvi"),
    ],
)
def test_insertion_into_another_module_is_refused(make_network, message):
    with pytest.raises(InputError, match=message):
        insert_context_blocks(make_network(), DisentangledNonLocalBlock3d, {"res3": [1]})
