"""PySlowFast's caffe2 blobs, compared with a forward pass and a hand-written table."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnl_video.errors import InputError
from dnl_video.models.weights import pyslowfast

from .foreign import loaded, probabilities_of
from .pyslowfast_net import NONLOCAL, draw, probabilities, shapes

LEAVES = {"weight": "_w", "bias": "_b"}
NORM_LEAVES = {"weight": "_bn_s", "bias": "_bn_b", "running_mean": "_bn_rm", "running_var": "_bn_riv"}


def blob(name, last_blocks=(2, 3, 5)):
    """The caffe2 name of a PySlowFast tensor; `last_blocks` are the last of s2, s3, s4, behind which the paths fuse."""
    module, _, leaf = name.rpartition(".")
    t = "t_" if "pathway1" in module else ""
    norm = module.endswith("bn")
    suffix = (NORM_LEAVES if norm else LEAVES)[leaf]
    stage = module[1]
    if module == "head.projection":
        return f"pred{suffix}"
    if "_stem" in module:
        return f"{t}{'res_' if norm else ''}conv1{suffix}"
    if "_fuse" in module:
        before = "pool1" if stage == "1" else f"res{stage}_{last_blocks[int(stage) - 2]}_branch2c_bn"
        return f"t_{before}_subsample{suffix}"
    block, _, layer = module.partition(".")[2].partition(".")
    if "nonlocal" in block:
        index = block.removeprefix("pathway0_nonlocal")
        return f"nonlocal_conv{stage}_{index}{'' if norm else layer.replace('conv', '')}{suffix}"
    branch = layer.removesuffix("_bn").replace(".", "")  # branch1, branch2a
    return f"{t}res{stage}_{block[len('pathway0_res') :]}_{branch}{suffix}"


def blobs(tensors, last_blocks=(2, 3, 5)):
    return {blob(name, last_blocks): t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("arch", ["slow", "i3d", "c2d_nopool", "slowfast"])
@pytest.mark.parametrize("blocks", [None, NONLOCAL], ids=["bare", "nonlocal"])
@torch.no_grad()
def test_probabilities_are_pyslowfasts(arch, blocks):
    tensors = draw(shapes(arch, nonlocal_blocks=blocks))
    weights = pyslowfast.convert_caffe2(blobs(tensors))
    # The zoo's C2D does not pool over time, and neither does Slow.
    assert weights.spec.architecture == ("slow_r50" if arch == "c2d_nopool" else f"{arch}_r50")
    clip = torch.randn(1, 3, 12 if arch == "slowfast" else 4, 64, 64, dtype=torch.float64)
    attention = "dot_product" if arch.startswith("slow") else "softmax"
    expected = probabilities(tensors, clip, arch, attention=attention)
    torch.testing.assert_close(probabilities_of(weights, clip), expected, rtol=1e-5, atol=1e-7)


def test_names_by_hand():
    tensors = blobs(draw(shapes("slowfast", nonlocal_blocks=NONLOCAL)))
    source = pyslowfast.convert_caffe2(tensors).source_names
    slow, fast = "multipathway_blocks.0", "multipathway_blocks.1"
    block = f"blocks.2.{slow}.context_blocks.1"
    table = {
        f"blocks.0.{slow}.conv.weight": "conv1_w",
        f"blocks.0.{slow}.norm.weight": "res_conv1_bn_s",
        f"blocks.0.{fast}.conv.weight": "t_conv1_w",
        f"blocks.0.{fast}.norm.running_mean": "t_res_conv1_bn_rm",
        f"blocks.2.{slow}.res_blocks.1.branch2.conv_a.weight": "res3_1_branch2a_w",
        f"blocks.2.{slow}.res_blocks.1.branch2.norm_a.running_var": "res3_1_branch2a_bn_riv",
        f"blocks.2.{slow}.res_blocks.0.branch1_conv.weight": "res3_0_branch1_w",
        f"blocks.2.{slow}.res_blocks.0.branch1_norm.bias": "res3_0_branch1_bn_b",
        f"blocks.3.{fast}.res_blocks.4.branch2.conv_c.weight": "t_res4_4_branch2c_w",
        f"blocks.3.{fast}.res_blocks.4.branch2.norm_c.weight": "t_res4_4_branch2c_bn_s",
        "blocks.0.multipathway_fusion.conv_fast_to_slow.weight": "t_pool1_subsample_w",
        "blocks.0.multipathway_fusion.norm.bias": "t_pool1_subsample_bn_b",
        "blocks.1.multipathway_fusion.conv_fast_to_slow.weight": "t_res2_2_branch2c_bn_subsample_w",
        "blocks.3.multipathway_fusion.norm.running_var": "t_res4_5_branch2c_bn_subsample_bn_riv",
        f"{block}.query.weight": "nonlocal_conv3_1_theta_w",
        f"{block}.query.bias": "nonlocal_conv3_1_theta_b",
        f"{block}.key.weight": "nonlocal_conv3_1_phi_w",
        f"{block}.value.weight": "nonlocal_conv3_1_g_w",
        f"{block}.out.weight": "nonlocal_conv3_1_out_w",
        f"{block}.norm.weight": "nonlocal_conv3_1_bn_s",
        "blocks.6.proj.weight": "pred_w",
        "blocks.6.proj.bias": "pred_b",
    }
    assert {name: source[name] for name in table} == table
    assert set(table.values()) <= set(tensors)


@settings(max_examples=8, deadline=None)
@given(
    arch=st.sampled_from(["slow", "i3d", "c2d", "slowfast"]),
    depth=st.sampled_from([50, 101]),
    nonlocal_blocks=st.sampled_from([{}, NONLOCAL, {2: (0,), 4: (2, 5), 5: (2,)}]),
)
def test_no_blob_is_left_or_doubled(arch, depth, nonlocal_blocks):
    """Each blob, filled with its own number, fills one tensor of the network, and all tensors are filled."""
    tensors = draw(shapes(arch, depth, classes=3, nonlocal_blocks=nonlocal_blocks))
    named = blobs(tensors, (2, 3, 5 if depth == 50 else 22))
    named = {name: torch.full(tensor.shape, float(i)) for i, (name, tensor) in enumerate(named.items())}
    optimiser = {f"{name}_momentum": tensor for name, tensor in named.items()} | {"lr": torch.tensor(0.1)}
    weights = pyslowfast.convert_caffe2(named | optimiser | {"model_iter": torch.tensor(9), "shift": torch.tensor(1)})
    left = dict.fromkeys([*optimiser, "model_iter"], "state of the optimiser")
    assert weights.left == left | {"shift": "no place in networks of this package"}
    assert sorted(weights.source_names.values()) == sorted(named)
    model = loaded(weights)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    # The largest number: padding puts zeros around kernels.
    assert sorted(tensor.max().item() for tensor in state.values()) == list(range(len(named)))


def test_c2d_with_pooling_when_asked_for():
    tensors = blobs(draw(shapes("c2d")))
    assert pyslowfast.convert_caffe2(tensors, architecture="c2d_r50").spec.architecture == "c2d_r50"
    assert any("c2d_nopool" in note for note in pyslowfast.convert_caffe2(tensors).notes)


def test_classifier_as_convolution():
    tensors = blobs(draw(shapes("slow")))
    tensors["pred_w"] = tensors["pred_w"][:, :, None, None, None]
    weights = pyslowfast.convert_caffe2(tensors)
    assert weights.state_dict["blocks.5.proj.weight"].shape == (5, 256)
    assert weights.spec.num_classes == 5


def test_preprocessing_is_recorded():
    weights = pyslowfast.convert_caffe2(blobs(draw(shapes("slow"))))
    assert (weights.preprocessing["channel_order"], weights.preprocessing["sampling"]) == ("rgb", "pyslowfast")
    assert weights.preprocessing["antialias"] is False


def test_frozen_norms_are_refused():
    tensors = {n: t for n, t in blobs(draw(shapes("slow"))).items() if not n.endswith(("_rm", "_riv"))}
    with pytest.raises(InputError, match=r"scales instead of batch norms \(no 'res_conv1_bn_rm'\); give a file of"):
        pyslowfast.convert_caffe2(tensors)
