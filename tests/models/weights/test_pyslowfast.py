"""PySlowFast's checkpoints, compared with its forward pass in plain functions and with hand-written tables."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorchvideo.models.resnet import create_resnet
from pytorchvideo.models.slowfast import create_slowfast
from torch import nn

from dnl_video.errors import InputError
from dnl_video.models.create import create_model
from dnl_video.models.weights import pyslowfast

from ..helpers import perturb_backbone
from .foreign import loaded, probabilities_of, shapes_of
from .pyslowfast_net import NONLOCAL, draw, probabilities, shapes

ARCHITECTURES = pytest.mark.parametrize("arch", ["slow", "i3d", "c2d", "slowfast"])
# NONLOCAL.INSTANTIATION of its Kinetics configurations.
INSTANTIATION = {"slow": "dot_product", "slowfast": "dot_product", "i3d": "softmax", "c2d": "softmax"}
SPELLING = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}


def make_clip(arch, height=64, width=64):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(1, 3, 12 if arch == "slowfast" else 4, height, width, generator=generator, dtype=torch.float64)


def rename(tensors, old, new):
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


# ---- outputs


@ARCHITECTURES
@pytest.mark.parametrize("blocks", [None, NONLOCAL], ids=["bare", "nonlocal"])
@torch.no_grad()
def test_probabilities_are_pyslowfasts(arch, blocks):
    tensors = draw(shapes(arch, nonlocal_blocks=blocks))
    weights = pyslowfast.convert(tensors)
    assert weights.spec.architecture == f"{arch}_r50"
    assert weights.spec.head == "dense_probabilities"
    clip = make_clip(arch) if blocks else make_clip(arch, 224, 256)  # 7 x 8 features: two windows of the head
    expected = probabilities(tensors, clip, arch, attention=INSTANTIATION[arch])
    assert 0.21 < expected.max() < 0.98  # neither uniform nor saturated
    torch.testing.assert_close(probabilities_of(weights, clip), expected, rtol=1e-5, atol=1e-7)
    if blocks:
        assert weights.spec.context == "nl"
        assert weights.spec.context_options.attention == SPELLING[INSTANTIATION[arch]]
        assert weights.spec.context_options.positions == {"res3": [1, 3], "res4": [1, 3, 5]}
        others = {"softmax": "dot_product", "dot_product": "softmax"}
        wrong = probabilities(tensors, clip, arch, attention=others[INSTANTIATION[arch]])
        assert (wrong - expected).abs().max() > 1e-4
    else:
        assert weights.spec.context == "none"


@torch.no_grad()
def test_slowfast_4x16():
    """A fusion kernel of 5 frames in R50 is SLOWFAST_4x16_R50's, whose ALPHA is 8."""
    tensors = draw(shapes("slowfast", fusion_kernel=5))
    weights = pyslowfast.convert(tensors)
    assert (weights.spec.slow_alpha, weights.spec.fusion_kernel, weights.spec.slow_frames) == (8, 5, "linspace")
    clip = make_clip("slowfast").repeat(1, 1, 2, 1, 1)[:, :, :16]
    expected = probabilities(tensors, clip, "slowfast", alpha=8)
    torch.testing.assert_close(probabilities_of(weights, clip), expected, rtol=1e-5, atol=1e-7)
    assert any("slow_alpha is not in the file; 8 is taken" in note for note in weights.notes)


@torch.no_grad()
def test_r101_with_temporal_kernels_in_its_first_blocks():
    """SLOWFAST_16x8_R101_50_50: NUM_BLOCK_TEMP_KERNEL [[3, 3], [4, 4], [6, 6], [3, 3]] of 23 blocks in s4."""
    tensors = draw(
        shapes("slowfast", 101, fusion_kernel=5, nonlocal_blocks={4: (6, 13, 20)}, temporal_blocks=(3, 4, 6, 3))
    )
    weights = pyslowfast.convert(tensors)
    assert weights.spec.architecture == "slowfast_r101"
    assert (weights.spec.slow_alpha, weights.spec.context_options.positions) == (4, {"res4": [6, 13, 20]})
    clip = make_clip("slowfast")
    expected = probabilities(tensors, clip, "slowfast", depth=101, attention="dot_product")
    torch.testing.assert_close(probabilities_of(weights, clip), expected, rtol=1e-5, atol=1e-7)
    assert (
        "34 temporal kernels were padded with zeros to those of slowfast_r101; outputs stay the same" in weights.notes
    )


@torch.no_grad()
def test_c2d_without_pooling_is_slow_with_padded_kernels():
    tensors = draw(shapes("c2d_nopool", nonlocal_blocks=NONLOCAL))
    clip = make_clip("slow")
    expected = probabilities(tensors, clip, "c2d_nopool")
    weights = pyslowfast.convert(tensors, architecture="slow_r50")
    torch.testing.assert_close(probabilities_of(weights, clip), expected, rtol=1e-5, atol=1e-7)
    assert any("c2d_nopool" in note for note in weights.notes)
    pooled = pyslowfast.convert(tensors)  # the tensors of C2D with pooling are the same
    assert pooled.spec.architecture == "c2d_r50"
    assert (probabilities_of(pooled, clip) - expected).abs().max() > 1e-4


def ptv_network(arch):
    """Built as `PTVResNet` and `PTVSlowFast` build theirs."""
    common = {"model_num_class": 5, "head_activation": None, "head_output_with_global_average": False}
    if arch == "slowfast":
        return create_slowfast(
            stem_dim_outs=(8, 1),
            slowfast_fusion_conv_kernel_size=(7, 1, 1),
            slowfast_fusion_conv_stride=(4, 1, 1),
            head_pool_kernel_sizes=((3, 7, 7), (12, 7, 7)),
            **common,
        )
    pool = 1 if arch == "slow" else 2
    kernels = {
        "c2d": ((1, 1, 1),) * 4,
        "slow": ((1, 1, 1), (1, 1, 1), (3, 1, 1), (3, 1, 1)),
        "i3d": ((3, 1, 1), [(3, 1, 1), (1, 1, 1)], [(3, 1, 1), (1, 1, 1)], [(1, 1, 1), (3, 1, 1)]),
    }[arch]
    return create_resnet(
        stem_dim_out=8,
        stem_conv_kernel_size=(5 if arch == "i3d" else 1, 7, 7),
        stage1_pool=nn.MaxPool3d if pool > 1 else None,
        stage1_pool_kernel_size=(pool, 1, 1),
        stage_conv_a_kernel_size=kernels,
        head_pool_kernel_size=(4 // pool, 7, 7),
        **common,
    )


@ARCHITECTURES
@torch.no_grad()
def test_pytorchvideo_built_networks(arch):
    network = ptv_network(arch).double()
    clip = make_clip(arch, 224, 256)

    def pathways():  # a new list for each call, because the fusion overwrites it
        return [clip[:, :, [0, 5, 11]], clip] if arch == "slowfast" else clip

    perturb_backbone(network, pathways()).eval()
    expected = network(pathways()).softmax(dim=1).mean(dim=(2, 3, 4))
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    weights = pyslowfast.convert(tensors)
    assert weights.origin == "PySlowFast (pytorchvideo-built)"
    assert weights.spec.architecture == f"{arch}_r50"
    assert not weights.left
    assert {f"model.{name}" for name in weights.state_dict} == set(tensors)
    torch.testing.assert_close(probabilities_of(weights, clip), expected, rtol=1e-5, atol=1e-7)


# ---- names


def test_names_by_hand():
    slowfast = pyslowfast.convert(draw(shapes("slowfast", nonlocal_blocks=NONLOCAL))).source_names
    i3d = pyslowfast.convert(draw(shapes("i3d", nonlocal_blocks=NONLOCAL))).source_names
    slow, block = "multipathway_blocks.0", "blocks.2.multipathway_blocks.0.context_blocks.1"
    table = {
        f"blocks.0.{slow}.conv.weight": "s1.pathway0_stem.conv.weight",
        "blocks.0.multipathway_blocks.1.norm.running_var": "s1.pathway1_stem.bn.running_var",
        "blocks.0.multipathway_fusion.conv_fast_to_slow.weight": "s1_fuse.conv_f2s.weight",
        "blocks.3.multipathway_fusion.norm.bias": "s4_fuse.bn.bias",
        f"blocks.1.{slow}.res_blocks.0.branch1_conv.weight": "s2.pathway0_res0.branch1.weight",
        f"blocks.4.{slow}.res_blocks.0.branch1_norm.weight": "s5.pathway0_res0.branch1_bn.weight",
        "blocks.3.multipathway_blocks.1.res_blocks.5.branch2.conv_a.weight": "s4.pathway1_res5.branch2.a.weight",
        f"blocks.3.{slow}.res_blocks.2.branch2.norm_c.bias": "s4.pathway0_res2.branch2.c_bn.bias",
        f"{block}.query.weight": "s3.pathway0_nonlocal1.conv_theta.weight",
        f"{block}.key.bias": "s3.pathway0_nonlocal1.conv_phi.bias",
        f"{block}.value.weight": "s3.pathway0_nonlocal1.conv_g.weight",
        f"{block}.out.weight": "s3.pathway0_nonlocal1.conv_out.weight",
        f"{block}.norm.running_mean": "s3.pathway0_nonlocal1.bn.running_mean",
        "blocks.6.proj.weight": "head.projection.weight",
    }
    assert {name: slowfast[name] for name in table} == table
    assert i3d["blocks.0.conv.weight"] == "s1.pathway0_stem.conv.weight"
    assert i3d["blocks.1.res_blocks.2.branch2.conv_b.weight"] == "s2.pathway0_res2.branch2.b.weight"
    assert i3d["blocks.3.context_blocks.3.out.bias"] == "s3.pathway0_nonlocal3.conv_out.bias"
    assert i3d["blocks.6.proj.bias"] == "head.projection.bias"


POSITIONS = st.fixed_dictionaries(
    {}, optional={2: st.just((0, 2)), 3: st.just((1, 3)), 4: st.just((5,)), 5: st.just((0,))}
)


@settings(max_examples=12, deadline=None)
@given(arch=st.sampled_from(["slow", "i3d", "c2d", "slowfast"]), depth=st.sampled_from([50, 101]), blocks=POSITIONS)
def test_no_tensor_is_left_or_doubled(arch, depth, blocks):
    """Each source tensor, filled with its own number, fills one tensor of the network, and all tensors are filled."""
    named = shapes(arch, depth, classes=3, nonlocal_blocks=blocks)
    tensors = {name: torch.full(shape, float(i)) for i, (name, shape) in enumerate(named.items())}
    weights = pyslowfast.convert(tensors)
    assert not weights.left
    assert sorted(weights.source_names.values()) == sorted(tensors)
    model = loaded(weights)
    numbers = [tensor.flatten()[0].item() for tensor in model.state_dict().values()]
    assert sorted(numbers) == list(range(len(tensors)))


def test_preprocessing_is_recorded():
    assert pyslowfast.convert(draw(shapes("slow"))).preprocessing == {
        "mean": (0.45, 0.45, 0.45),
        "std": (0.225, 0.225, 0.225),
        "channel_order": "rgb",
        "sampling": "pyslowfast",
        "antialias": False,
    }


# ---- sub-batch norm


@torch.no_grad()
def test_sub_batch_norm():
    """A raw state dict of BN.NORM_TYPE sub_batchnorm: merged statistics in `bn.bn`, those of the splits beside."""
    plain = draw(shapes("slow"))
    raw = {}
    for name, tensor in plain.items():
        module, _, leaf = name.rpartition(".")
        if leaf in ("running_mean", "running_var", "num_batches_tracked"):
            raw[f"{module}.bn.{leaf}"] = tensor
            raw[f"{module}.split_bn.{leaf}"] = tensor.repeat(2) if tensor.dim() else tensor
        else:
            # Older files keep scale and bias as [C, 1, 1, 1].
            raw[name] = tensor.view(-1, 1, 1, 1) if module.endswith("bn") else tensor
    weights = pyslowfast.convert(raw)
    assert weights.state_dict.keys() == pyslowfast.convert(plain).state_dict.keys()
    assert all(torch.equal(weights.state_dict[k], v) for k, v in pyslowfast.convert(plain).state_dict.items())
    assert set(weights.left) == {name for name in raw if ".split_bn." in name}
    assert set(weights.left.values()) == {"statistics of each split (sub-batch norm), merged in another tensor"}


def test_pytorchvideo_built_sub_batch_norm():
    raw = {}
    for name, tensor in ptv_network("i3d").state_dict().items():
        module, _, leaf = name.rpartition(".")
        inner = leaf in ("running_mean", "running_var", "num_batches_tracked")
        raw[f"model.{module}.bn.{leaf}" if inner else f"model.{name}"] = tensor
    weights = pyslowfast.convert(raw)
    assert not weights.left
    loaded(weights)


def test_unknown_tensors_are_left_with_a_reason():
    tensors = draw(shapes("slow")) | {"head.predictors.0.weight": torch.zeros(3)}
    assert pyslowfast.convert(tensors).left == {"head.predictors.0.weight": "no place in networks of this package"}


# ---- image networks


def test_image_network():
    """R50_IN1K.pyth, which CHECKPOINT_INFLATE inflates: PySlowFast's names with 2-D kernels."""
    tensors = {n: t[:, :, 0] if t.dim() == 5 else t for n, t in draw(shapes("c2d", classes=1000)).items()}
    weights = pyslowfast.convert(tensors, architecture="i3d_r50")
    assert weights.spec is None
    assert weights.left == dict.fromkeys(["head.projection.weight", "head.projection.bias"], "classifier of images")
    network = {k: v for k, v in create_model("i3d_r50", stem_channels=8).state_dict().items() if "proj" not in k}
    assert weights.state_dict.keys() == network.keys()
    assert weights.state_dict["blocks.3.res_blocks.0.branch2.conv_a.weight"].shape == (16, 32, 1, 1)
    assert weights.preprocessing["mean"] == (0.485, 0.456, 0.406)
    with pytest.raises(InputError, match=r"are an image network's \(2-D kernels\); name the network they are for"):
        pyslowfast.convert(tensors)
    with pytest.raises(
        InputError, match="are an image ResNet-50's and do not fit slowfast_r50; they fit c2d_r50, slow_r50, i3d_r50"
    ):
        pyslowfast.convert(tensors, architecture="slowfast_r50")


# ---- refused networks


def grouped(tensors):
    return {n: t[:, :4] if n.endswith("branch2.b.weight") else t for n, t in tensors.items()}


def basic(tensors):
    """ResNet-34: blocks of two 3 x 3 convolutions."""
    return {n: t.expand(-1, -1, -1, 3, 3) if "branch2.a.w" in n else t for n, t in without(tensors, "2.c").items()}


def without(tensors, text):
    return {name: tensor for name, tensor in tensors.items() if text not in name}


REFUSED = [
    (lambda: rename(draw(shapes("slow")), "stem.conv", "stem.conv_xy"), "weights of X3D; networks here are its C2D"),
    (lambda: {"model.blocks.0.conv.conv_t.weight": torch.zeros(1)}, "weights of X3D"),
    (lambda: {"model.blocks.1.res_blocks.0.branch2.conv_b.conv_t.weight": torch.zeros(1)}, r"weights of R\(2\+1\)D"),
    (
        lambda: {"patch_embed.proj.weight": torch.zeros(9, 3, 3, 7, 7), "blocks.0.attn.q.weight": torch.zeros(9, 9)},
        "weights of MViT",
    ),
    (lambda: {"model.patch_embed.patch_model.weight": torch.zeros(1)}, "weights of MViT"),
    (
        lambda: grouped(draw(shapes("slow"))),
        "block 0 of res2 has kernels 8x8x1x1x1 and 8x4x1x3x3, which is no plain bottleneck of width 8; only plain Slow",
    ),
    (lambda: basic(draw(shapes("slow"))), "block 0 of res2 has kernels 8x8x1x3x3 and 8x8x1x3x3, which is no plain"),
    (
        lambda: without(draw(shapes("slow")), "s4.pathway0_res5"),
        r"PySlowFast: \[3, 4, 5, 3\] residual blocks in res2 to res5; only plain Slow, C2D, I3D and SlowFast R50 and",
    ),
    (lambda: without(draw(shapes("slowfast")), "s4.pathway1_res5"), r"PySlowFast: \[3, 4, 5, 3\] residual blocks"),
    (lambda: without(draw(shapes("slow")), "head.projection"), "have no classifier; give a file with a whole network"),
    (lambda: without(draw(shapes("slow")), "stem.conv"), "have no stem"),
    (
        lambda: (t := draw(shapes("slowfast"))) | {"s3.pathway1_nonlocal1.conv_g.weight": t["head.projection.weight"]},
        "non-local blocks on the fast pathway; networks here have none",
    ),
    (
        lambda: (t := draw(shapes("slow"))) | {"s1.pathway2_stem.conv.weight": t["s1.pathway0_stem.conv.weight"]},
        "have a third pathway",
    ),
    (
        lambda: (t := draw(shapes("slow"))) | {"s1.pathway0_stem.bn.bn.bias": t["s1.pathway0_stem.bn.bias"]},
        "name one tensor twice: 's1.pathway0_stem.bn.bias' and 's1.pathway0_stem.bn.bn.bias'; give one of them",
    ),
    (
        lambda: draw(shapes("slowfast")) | {"s1_fuse.conv_f2s.weight": torch.zeros(4, 1, 7, 1, 1)},
        "8 slow, 1 fast and 4 fused channels behind the stem; SlowFast networks here have an eighth",
    ),
    (
        lambda: draw(shapes("slow")) | {"s2.pathway0_res0.branch2.a.weight": torch.zeros(8, 8, 5, 1, 1)},
        r"temporal kernels 1 \(stem\) and \[5, 1, 1\], .* are no known network's; only plain Slow, C2D, I3D and",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_other_networks_are_refused(make, message):
    tensors = make()
    assert pyslowfast.matches(shapes_of(tensors))
    with pytest.raises(InputError, match=message) as error:
        pyslowfast.convert(tensors)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("PySlowFast")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("i3d_r50", "are a slow ResNet-50's and do not fit i3d_r50; they fit slow_r50"),
        ("slow_r101", "do not fit slow_r101; they fit slow_r50"),
        ("slowfast_r50", "do not fit slowfast_r50; they fit slow_r50"),
    ],
)
def test_another_network_is_refused(asked, message):
    with pytest.raises(InputError, match=message):
        pyslowfast.convert(draw(shapes("slow")), architecture=asked)
