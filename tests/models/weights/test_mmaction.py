"""mmaction2's checkpoints, compared with its forward pass in plain functions; networks that are refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.build import build_model
from dnl_video.models.weights import mmaction
from dnl_video.spec import ContextOptions, ModelSpec, Preprocessing

from ..helpers import relative_error
from .foreign import check_bijection, loaded, shapes_of

R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
SLOW_ONLY = ((0,) * 3, (0,) * 4, (1,) * 6, (1,) * 3)
SLOW_ONLY_101 = ((0,) * 3, (0,) * 4, (1,) * 23, (1,) * 3)
# `inflate` of configs/_base_/models/i3d_r50.py.
I3D = ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))
ALL = ((1,) * 3, (1,) * 4, (1,) * 6, (1,) * 3)
FIVE = {1: (1, 3), 2: (1, 3, 5)}
BN = ("weight", "bias", "running_mean", "running_var")


# ---- generated files


class Weights(dict):
    """A state dict under mmaction2's names."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def conv(self, name: str, out: int, into: int, *kernel: int, bias: bool = False) -> None:
        fan = into * torch.Size(kernel).numel()
        self[f"{name}.conv.weight"] = torch.randn(out, into, *kernel, dtype=torch.float64, device=self.device) * (
            (2 / fan) ** 0.5
        )
        if bias:
            self[f"{name}.conv.bias"] = torch.randn(out, dtype=torch.float64, device=self.device) * 0.3

    def bn(self, name: str, width: int) -> None:
        for leaf in BN:
            near_one = leaf in ("weight", "running_var")
            draw = torch.rand if near_one else torch.randn
            number = draw(width, dtype=torch.float64, device=self.device)
            self[f"{name}.bn.{leaf}"] = number + 0.5 if near_one else number * 0.3
        if name.endswith(("conv3", "conv_out")):
            # The last layer of a residual branch adds little, so that signals and similarities keep their size.
            self[f"{name}.bn.weight"] *= 0.2
        self[f"{name}.bn.num_batches_tracked"] = torch.tensor(7, device=self.device)

    def conv_bn(self, name: str, out: int, into: int, *kernel: int) -> None:
        self.conv(name, out, into, *kernel)
        self.bn(name, out)


def non_local(sd: Weights, name: str, width: int, mode: str, sub_sample: bool, norm: bool = True) -> None:
    pooled = ".0" if sub_sample else ""
    inner = width // 2
    sd.conv(f"{name}.g{pooled}", inner, width, 1, 1, 1, bias=True)
    sd.conv(f"{name}.conv_out", width, inner, 1, 1, 1, bias=not norm)
    if norm:
        sd.bn(f"{name}.conv_out", width)
    if mode != "gaussian":
        sd.conv(f"{name}.theta", inner, width, 1, 1, 1, bias=True)
        sd[f"{name}.theta.conv.weight"] *= 0.1
        sd.conv(f"{name}.phi{pooled}", inner, width, 1, 1, 1, bias=True)
    if mode == "concatenation":
        sd.conv(f"{name}.concat_project", 1, 2 * inner, 1, 1)


def pathway(sd: Weights, path: str, base: int, stem: int, inflate, *, lateral: int = 0, nl=None, **block) -> None:
    """ResNet3d, or with ``lateral`` channels added to the input of each stage, a slow pathway."""
    sd.conv_bn(f"{path}conv1", base, 3, stem, 7, 7)
    into = base
    for i, blocks in enumerate(inflate):
        width = base * 2**i
        into += 2 * into // 8 if lateral else 0
        for n, inflated in enumerate(blocks):
            name = f"{path}layer{i + 1}.{n}"
            sd.conv_bn(f"{name}.conv1", width, into, 3 if inflated else 1, 1, 1)
            sd.conv_bn(f"{name}.conv2", width, width, 1, 3, 3)
            sd.conv_bn(f"{name}.conv3", 4 * width, width, 1, 1, 1)
            if n == 0:
                sd.conv_bn(f"{name}.downsample", 4 * width, into, 1, 1, 1)
            if n in (nl or {}).get(i, ()):
                non_local(sd, f"{name}.non_local_block", 4 * width, **block)
            into = 4 * width


def single(
    inflate, stem: int, base: int = 8, classes: int = 5, *, device="cpu", nl=None, mode="embedded_gaussian", **block
) -> Weights:
    sd = Weights(device)
    pathway(sd, "backbone.", base, stem, inflate, nl=nl, mode=mode, **({"sub_sample": True} | block))
    fc(sd, classes, 32 * base)
    return sd


def slowfast(base: int = 8, kernel: int = 5, *, norm: bool = False, nl=None, slow=SLOW_ONLY, fast=ALL) -> Weights:
    sd = Weights()
    pathway(sd, "backbone.slow_path.", base, 1, slow, lateral=1, nl=nl, mode="embedded_gaussian", sub_sample=True)
    for place, width in (("conv1", base), *((f"layer{i + 1}", 4 * base * 2**i) for i in range(3))):
        name = f"backbone.slow_path.{place}_lateral"
        sd.conv(name, 2 * width // 8, width // 8, kernel, 1, 1)
        if norm:
            sd.bn(name, 2 * width // 8)
    pathway(sd, "backbone.fast_path.", base // 8, 5, fast)
    fc(sd, 5, 36 * base)
    return sd


def fc(sd: Weights, classes: int, width: int) -> None:
    sd["cls_head.fc_cls.weight"] = torch.randn(classes, width, dtype=torch.float64, device=sd.device) / width**0.5
    sd["cls_head.fc_cls.bias"] = torch.randn(classes, dtype=torch.float64, device=sd.device)


# ---- mmaction2's forward, by its names


def conv_module(sd, name: str, x: Tensor, stride=(1, 1, 1), relu: bool = True) -> Tensor:
    weight = sd[f"{name}.conv.weight"]
    padding = [(k - 1) // 2 for k in weight.shape[2:]]
    x = F.conv3d(x, weight, sd.get(f"{name}.conv.bias"), stride, padding)
    if f"{name}.bn.weight" in sd:
        gain, shift, mean, var = (sd[f"{name}.bn.{leaf}"] for leaf in BN)
        x = F.batch_norm(x, mean, var, gain, shift, eps=1e-5)
    return x.relu() if relu else x


def non_local_forward(sd, name: str, x: Tensor, mode: str, use_scale: bool) -> Tensor:
    """mmcv's NonLocal3d.forward, with every matrix in full."""

    def project(part: str, pool: bool) -> Tensor:
        sub_sample = f"{name}.{part}.0.conv.weight" in sd
        y = conv_module(sd, f"{name}.{part}.0" if sub_sample else f"{name}.{part}", x, relu=False)
        return F.max_pool3d(y, (1, 2, 2)) if pool and sub_sample else y

    g = project("g", True).flatten(2).transpose(1, 2)
    if mode == "gaussian":
        theta = x.flatten(2).transpose(1, 2)
        phi = (F.max_pool3d(x, (1, 2, 2)) if f"{name}.g.0.conv.weight" in sd else x).flatten(2)
    else:
        theta, phi = project("theta", False).flatten(2).transpose(1, 2), project("phi", True).flatten(2)
    if mode == "concatenation":
        w = sd[f"{name}.concat_project.conv.weight"].flatten()
        n, m = theta.shape[1], phi.shape[2]
        pairs = torch.cat([theta[:, :, None].expand(-1, -1, m, -1), phi.mT[:, None].expand(-1, n, -1, -1)], dim=3)
        weights = (pairs @ w).relu() / m
    else:
        weights = theta @ phi
        if mode == "dot_product":
            weights = weights / weights.shape[-1]
        else:
            if use_scale and mode == "embedded_gaussian":
                weights = weights / theta.shape[-1] ** 0.5
            weights = weights.softmax(-1)
    y = (weights @ g).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])
    return x + conv_module(sd, f"{name}.conv_out", y, relu=False)


def stage_forward(sd, path: str, stage: int, x: Tensor, mode: str = "embedded_gaussian", use_scale: bool = True):
    n = 0
    while f"{path}layer{stage}.{n}.conv1.conv.weight" in sd:
        name = f"{path}layer{stage}.{n}"
        stride = (1, 2, 2) if stage > 1 and n == 0 else (1, 1, 1)
        out = conv_module(sd, f"{name}.conv1", x)
        out = conv_module(sd, f"{name}.conv2", out, stride)
        out = conv_module(sd, f"{name}.conv3", out, relu=False)
        if n == 0:
            x = conv_module(sd, f"{name}.downsample", x, stride, relu=False)
        x = (x + out).relu()
        if f"{name}.non_local_block.conv_out.conv.weight" in sd:
            x = non_local_forward(sd, f"{name}.non_local_block", x, mode, use_scale)
        n += 1
    return x


def stem_forward(sd, path: str, x: Tensor, conv1_stride_t: int = 1, pool1_stride_t: int = 1) -> Tensor:
    x = conv_module(sd, f"{path}conv1", x, (conv1_stride_t, 2, 2))
    return F.max_pool3d(x, (1, 3, 3), (pool1_stride_t, 2, 2), (0, 1, 1))


def head_forward(sd, x: Tensor) -> Tensor:
    return F.linear(x, sd["cls_head.fc_cls.weight"], sd["cls_head.fc_cls.bias"])


def slowonly_forward(sd, x: Tensor, strides=(1, 1), pool: int = 1, **nl) -> Tensor:
    x = stem_forward(sd, "backbone.", x, *strides)
    for stage in range(1, 5):
        x = stage_forward(sd, "backbone.", stage, x, **nl)
        if stage == 1:
            x = F.max_pool3d(x, (pool, 1, 1), (pool, 1, 1))
    return head_forward(sd, F.adaptive_avg_pool3d(x, 1).flatten(1))


i3d_forward = partial(slowonly_forward, strides=(2, 2), pool=2)


def slowfast_forward(sd, x: Tensor, rate: int) -> Tensor:
    slow_path, fast_path = "backbone.slow_path.", "backbone.fast_path."

    def fuse(place: str) -> Tensor:
        # An activation where there is a norm: `lateral_norm` decides on both.
        name = f"{slow_path}{place}_lateral"
        return torch.cat([slow, conv_module(sd, name, fast, (rate, 1, 1), relu=f"{name}.bn.weight" in sd)], 1)

    slow = F.interpolate(x, mode="nearest", scale_factor=(1.0 / rate, 1.0, 1.0))
    slow, fast = stem_forward(sd, slow_path, slow), stem_forward(sd, fast_path, x)
    slow = fuse("conv1")
    for stage in range(1, 5):
        slow, fast = stage_forward(sd, slow_path, stage, slow), stage_forward(sd, fast_path, stage, fast)
        if stage < 4:
            slow = fuse(f"layer{stage}")
    pooled = [F.adaptive_avg_pool3d(y, 1).flatten(1) for y in (fast, slow)]
    return head_forward(sd, torch.cat(pooled, 1))


def check(sd, clip: Tensor, expected: Tensor, spec: ModelSpec | None = None) -> mmaction.TranslatedWeights:
    source = mmaction.convert(sd)
    model = loaded(source, spec)
    check_bijection(source, set(sd), model)
    with torch.no_grad():
        assert relative_error(model(clip), expected) < 1e-10
    assert expected.std(0).max() > 1e-2 * expected.abs().max()  # the clips have different logits
    return source


def clip_of(frames: int, side: int = 64, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, frames, side, side, dtype=torch.float64)


# ---- logits


def test_slowonly() -> None:
    sd, clip = single(SLOW_ONLY, 1), clip_of(4)
    source = check(sd, clip, slowonly_forward(sd, clip))
    assert source.origin == "mmaction2"
    assert source.spec == ModelSpec("slow_r50", "none", 5, "global", 8)
    assert source.notes == (
        "num_frames and frame_stride are not in the file: mmaction2's SlowOnly configs are 8x8 and 4x16",
    )
    assert source.left == {}


def test_head_pools_globally() -> None:
    # The last features are 8 x 8; windows of 7 x 7 would give the centre more weight.
    sd, clip = single(SLOW_ONLY, 1), clip_of(1, 256)
    expected = slowonly_forward(sd, clip)
    check(sd, clip, expected)
    dense = loaded(mmaction.convert(sd), ModelSpec("slow_r50", "none", 5, "dense_logits", 8))
    with torch.no_grad():
        assert relative_error(dense(clip), expected) > 1e-3


def test_i3d_takes_every_fourth_frame_behind_its_stem() -> None:
    sd, clip = single(I3D, 5), clip_of(16)
    source = check(sd, clip, i3d_forward(sd, clip))
    assert source.spec == ModelSpec("i3d_r50", "none", 5, "global", 8, stem_strides=(2, 2))
    assert source.notes == (
        "the frame strides of the stem and its pooling are not in the file; 2 is taken, as in mmaction2's I3D 32x2",
    )


def test_i3d_with_stem_strides_of_1_loads_into_a_given_network() -> None:
    sd, clip = single(I3D, 5), clip_of(4)
    check(sd, clip, i3d_forward(sd, clip, strides=(1, 1)), ModelSpec("i3d_r50", "none", 5, "global", 8))


@pytest.mark.parametrize("sub_sample", [True, False])
@pytest.mark.parametrize("mode", ["embedded_gaussian", "gaussian", "concatenation"])
def test_non_local_slowonly(mode: str, sub_sample: bool) -> None:
    sd = single(SLOW_ONLY, 1, nl=FIVE, mode=mode, sub_sample=sub_sample)
    clip = clip_of(2)
    source = check(sd, clip, slowonly_forward(sd, clip, mode=mode, use_scale=True))
    assert source.spec == ModelSpec(
        "slow_r50",
        "nl",
        5,
        "global",
        8,
        context_options=ContextOptions(
            positions={"res3": [1, 3], "res4": [1, 3, 5]},
            attention=mode,
            scaled=mode == "embedded_gaussian",
            pool=(1, 2, 2) if sub_sample else None,
            pool_order="after",
        ),
    )


def test_non_local_i3d_does_not_scale() -> None:
    sd, clip = single(I3D, 5, nl=FIVE), clip_of(16)
    source = check(sd, clip, i3d_forward(sd, clip, use_scale=False))
    assert source.notes[1] == (
        "the non-local mode is not in the file; embedded_gaussian is taken (it may be dot_product), with use_scale "
        "false, as in its I3D configs"
    )
    assert relative_error(i3d_forward(sd, clip, use_scale=True), i3d_forward(sd, clip, use_scale=False)) > 1e-4


def test_dot_product_loads_into_a_given_network() -> None:
    # One block: dot products cube a signal, five of them overflow.
    sd, clip = single(SLOW_ONLY, 1, nl={2: (3,)}, mode="dot_product"), clip_of(2)
    options = ContextOptions(positions={"res4": [3]}, attention="dot_product", pool_order="after")
    spec = ModelSpec("slow_r50", "nl", 5, "global", 8, context_options=options)
    check(sd, clip, slowonly_forward(sd, clip, mode="dot_product"), spec)


def test_non_local_without_norm_ends_in_a_convolution() -> None:
    sd, clip = single(SLOW_ONLY, 1, nl={3: (0,)}, norm=False), clip_of(2)
    source = check(sd, clip, slowonly_forward(sd, clip))
    assert source.spec.context_options.output == "conv"
    assert source.spec.context_options.positions == {"res5": [0]}


@pytest.mark.parametrize(("kernel", "rate"), [(5, 8), (7, 4)])
@pytest.mark.parametrize("norm", [False, True])
def test_slowfast(kernel: int, rate: int, norm: bool) -> None:
    sd, clip = slowfast(kernel=kernel, norm=norm), clip_of(16, 48)
    expected = slowfast_forward(sd, clip, rate)
    source = check(sd, clip, expected)
    assert source.spec == ModelSpec(
        "slowfast_r50",
        "none",
        5,
        "global",
        8,
        slow_alpha=rate,
        slow_frames="strided",
        fusion_kernel=kernel,
        fusion="conv_bn_relu" if norm else "conv",
    )
    assert source.notes == (
        f"slow_alpha (mmaction2's speed_ratio and resample_rate) is not in the file; {rate} is taken, as in its "
        f"configs with a fusion kernel of {kernel}",
        "the classifier's columns were put from fast, slow into slow, fast",
    )


def test_non_local_on_the_slow_pathway() -> None:
    sd, clip = slowfast(nl={1: (1,)}), clip_of(16, 48)
    source = check(sd, clip, slowfast_forward(sd, clip, 8))
    assert source.spec.context_options.positions == {"res3": [1]}


def check_shapes(sd) -> mmaction.TranslatedWeights:
    source = mmaction.convert(sd)
    with torch.device("meta"):
        model = build_model(source.spec)
    check_bijection(source, set(sd), model)
    assert shapes_of(source.state_dict) == shapes_of(model.state_dict())
    return source


def test_shapes_of_r101_at_full_width() -> None:
    source = check_shapes(single(SLOW_ONLY_101, 1, base=64, classes=700, device="meta"))
    assert source.spec == ModelSpec("slow_r101", "none", 700, "global")


@settings(max_examples=15, deadline=None)
@given(
    family=st.sampled_from([(SLOW_ONLY, 1), (I3D, 5)]),
    positions=st.dictionaries(st.integers(0, 3), st.sets(st.integers(0, 2), min_size=1), max_size=4),
    mode=st.sampled_from(["embedded_gaussian", "gaussian", "concatenation"]),
    sub_sample=st.booleans(),
    norm=st.booleans(),
    classes=st.integers(1, 9),
)
def test_no_tensor_is_left_or_doubled(family, positions, mode, sub_sample, norm, classes) -> None:
    block = {"nl": positions, "mode": mode, "sub_sample": sub_sample, "norm": norm}
    check_shapes(single(*family, classes=classes, device="meta", **block))


# ---- other information in a file


def test_preprocessing_is_imagenets_in_rgb() -> None:
    preprocessing = mmaction.convert(single(SLOW_ONLY, 1)).preprocessing
    mean, std = ([255 * number for number in preprocessing[key]] for key in ("mean", "std"))
    assert mean == pytest.approx([123.675, 116.28, 103.53])
    assert std == pytest.approx([58.395, 57.12, 57.375])
    assert (preprocessing["channel_order"], preprocessing["sampling"]) == ("rgb", "stride")
    assert Preprocessing(**preprocessing).past_end == "loop"
    assert (preprocessing["antialias"], preprocessing["rounding"]) == (False, "mmaction2")


def test_clips_are_known_if_all_configs_agree() -> None:
    assert "num_frames" not in mmaction.convert(single(SLOW_ONLY, 1)).preprocessing
    for sd in (single(I3D, 5), slowfast()):
        preprocessing = Preprocessing(**mmaction.convert(sd).preprocessing)
        assert (preprocessing.num_frames, preprocessing.frame_stride) == (32, 2)


def test_another_head_is_left() -> None:
    sd = single(SLOW_ONLY, 1)
    sd["cls_head.new_fc.weight"] = sd.pop("cls_head.fc_cls.weight")
    del sd["cls_head.fc_cls.bias"]
    source = mmaction.convert(sd)
    assert source.left == {"cls_head.new_fc.weight": "not part of the network"}
    assert source.notes[1:] == ("the file has no classifier `cls_head.fc_cls`",)


def changed(sd, name: str, *shape: int):
    sd[name] = torch.zeros(shape)
    return sd


KNOWN = "only SlowOnly, I3D and SlowFast can be loaded"
PLAIN = "only plain Slow, C2D, I3D and SlowFast R50 and R101 can be loaded"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: changed(single(SLOW_ONLY, 1), "backbone.conv1.conv.weight"),  # one number
            " weights have no stem; give a file with a whole network",
        ),
        (
            lambda: changed(slowfast(), "backbone.fast_path.conv1.conv.weight"),
            ": block 0 of res2 has kernels 1x1x3x1x1 and 1x1x1x3x3, which is no plain bottleneck of width 0; " + PLAIN,
        ),
        (
            lambda: changed(single(SLOW_ONLY, 1), "backbone.conv1.conv.weight", 8, 3, 7, 7),
            f": 2-D kernels, as in TSN, TSM and C2D; {KNOWN}",
        ),
        (lambda: single(((0, 0),) * 4, 1), f": [2, 2, 2, 2] residual blocks in res2 to res5; {PLAIN}"),
        (
            lambda: changed(single(SLOW_ONLY, 1), "backbone.layer1.0.conv2.conv.weight", 8, 8, 3, 3, 3),
            ": block 0 of res2 has kernels 8x8x1x1x1 and 8x8x3x3x3, which is no plain bottleneck of width 8; " + PLAIN,
        ),
        (
            lambda: single(((0,) * 3, (0,) * 4, (0,) * 6, (0,) * 3), 1),
            f": one pathway with the temporal kernels of c2d; {KNOWN}",
        ),
        *(
            (
                partial(single, ALL, stem),
                f": kernels span frames in every block, as in its I3D `heavy` (inflate=(1, 1, 1, 1)); {PLAIN}",
            )
            for stem in (5, 3)
        ),
        (
            lambda: single(SLOW_ONLY, 3),
            ": temporal kernels 3 (stem) and [1, 1, 1], [1, 1, 1, 1], [3, 3, 3, 3, 3, 3], [3, 3, 3] are no known "
            f"network's; {PLAIN}",
        ),
        (
            lambda: changed(slowfast(), "roi_head.bbox_head.fc_cls.weight", 81, 288),
            f": roi_head.* tensors belong to a detector; {PLAIN}",
        ),
        (
            lambda: slowfast(slow=SLOW_ONLY_101),
            " weights have pathways of depths [101, 50]; networks here have one depth",
        ),
        (
            lambda: changed(single(SLOW_ONLY, 1), "backbone.layer2.0.se.conv.weight", 4, 4, 1, 1, 1),
            f": backbone.layer2.0.se.conv.weight has no place in our networks; {PLAIN}",
        ),
        (
            lambda: {n: t for n, t in slowfast().items() if "lateral" not in n},
            " weights have 8 slow, 1 fast and 0 fused channels behind the stem; SlowFast networks here have an eighth "
            "and a quarter of the slow ones",
        ),
    ],
)
def test_other_networks_are_refused(make, message: str) -> None:
    sd = make()
    assert mmaction.matches(shapes_of(sd))
    with pytest.raises(InputError) as error:
        mmaction.convert(sd)
    assert str(error.value) == f"mmaction2{message}"
