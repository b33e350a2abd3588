"""Hub files of pytorchvideo's own networks: recognition of the network, and equal logits."""

from __future__ import annotations

from functools import partial

import pytest
import pytorchvideo.models.hub as their_hub
import torch
from pytorchvideo.models.csn import create_csn
from pytorchvideo.models.r2plus1d import create_r2plus1d
from pytorchvideo.models.vision_transformers import create_multiscale_vision_transformers
from pytorchvideo.models.x3d import create_x3d

from dnl_video.errors import InputError
from dnl_video.models.build import build_model
from dnl_video.models.weights import hub
from dnl_video.spec import ContextOptions, ModelSpec, Preprocessing

from ..helpers import perturb_backbone, relative_error
from .foreign import check_bijection, loaded, shapes_of

HUB = ("slow_r50", "c2d_r50", "i3d_r50", "slowfast_r50", "slowfast_r101")
PLAIN = "only plain Slow, C2D, I3D and SlowFast R50 and R101 can be loaded"


def theirs(architecture: str, width: int | None = None):
    if width is None:
        return getattr(their_hub, architecture)(pretrained=False)
    slowfast = architecture.startswith("slowfast")
    options = {"stem_dim_outs": (width, width // 8)} if slowfast else {"stem_dim_out": width}
    return getattr(their_hub, architecture)(pretrained=False, model_num_class=5, **options).eval()


def transformer(**options):
    with torch.device("cpu"):  # it reads numbers from tensors as it is built
        return create_multiscale_vision_transformers(**options)


@pytest.mark.parametrize("architecture", HUB)
@torch.no_grad()
def test_logits_are_the_hubs(architecture) -> None:
    model = theirs(architecture, 8)
    slowfast = architecture.startswith("slowfast")
    clip = torch.randn(1, 3, 32 if slowfast else 8, 224, 224)
    # pytorchvideo's PackPathway, for the hub's 8x8 networks.
    slow = clip.index_select(2, torch.linspace(0, clip.shape[2] - 1, clip.shape[2] // 4).long())
    ours_first = build_model(ModelSpec(architecture, "none", 5, stem_channels=8))
    model.load_state_dict(perturb_backbone(ours_first, clip[..., ::4, ::4]).state_dict())
    source = hub.convert(model.state_dict())
    assert source.spec == ModelSpec(
        architecture,
        "none",
        5,
        "dense_logits",
        8,
        fusion_kernel={"slowfast_r50": 7, "slowfast_r101": 5}.get(architecture),
    )
    converted = loaded(source, dtype=torch.float32)
    check_bijection(source, set(model.state_dict()), converted)
    assert relative_error(converted(clip), model([slow, clip] if slowfast else clip)) < 1e-5


@pytest.mark.parametrize("architecture", HUB)
def test_full_size_files_are_recognised(architecture) -> None:
    with torch.device("meta"):
        tensors = theirs(architecture).state_dict()
    assert hub.matches(shapes_of(tensors))
    source = hub.convert(tensors)
    assert (source.spec.architecture, source.spec.stem_channels, source.spec.num_classes) == (architecture, 64, 400)
    assert source.source_names == {name: name for name in tensors}
    frames, stride = (32, 2) if architecture.startswith("slowfast") else (8, 8)
    preprocessing = Preprocessing(**source.preprocessing)
    assert (preprocessing.num_frames, preprocessing.frame_stride) == (frames, stride)
    assert preprocessing == Preprocessing(frames, stride, sampling="pyslowfast", antialias=False)
    assert (preprocessing.mean, preprocessing.std) == ((0.45,) * 3, (0.225,) * 3)


OPTIONS = {"res3": [1], "res4": [0, 5]}


@pytest.mark.parametrize("architecture", ["i3d_r50", "slowfast_r50"])
@pytest.mark.parametrize(
    ("context", "options"),
    [
        ("nl", ContextOptions(OPTIONS, 0.25, 0.25, bias=True)),
        ("nl", ContextOptions(OPTIONS, 0.5, 0.5, attention="gaussian")),
        ("nl", ContextOptions(OPTIONS, 0.5, 0.5, attention="concatenation", bias=True)),
        ("dnl", ContextOptions(OPTIONS, 0.5, 1.0, bias=False, output="gamma")),
        ("dnl", ContextOptions(OPTIONS, 0.5, 0.25, bias=True, learned_temperature=True)),
        ("pairwise", ContextOptions(OPTIONS, 0.5, 0.5, bias=False, output="conv")),
        ("unary", ContextOptions(OPTIONS, 0.5, 0.5, bias=False)),
        ("snl", ContextOptions(OPTIONS)),
        ("gc", ContextOptions(OPTIONS, gc_ratio=0.0625)),
    ],
)
def test_context_blocks_are_recognised(architecture, context, options: ContextOptions) -> None:
    tensors = build_model(ModelSpec(architecture, context, 5, stem_channels=8, context_options=options)).state_dict()
    spec = hub.convert(tensors).spec
    assert (spec.context, spec.context_options) == (context, options)
    assert shapes_of(build_model(spec).state_dict()) == shapes_of(tensors)


def test_notes_about_settings_that_are_not_in_the_file() -> None:
    with torch.device("meta"):
        tensors = build_model(ModelSpec("slowfast_r50", "dnl", 5)).state_dict()
    del tensors["blocks.6.proj.weight"]
    assert hub.convert(tensors).notes == (
        "slow_alpha is not in the file; 4 is taken, as in the hub's 8x8 networks",
        "the file has no classifier `blocks.6.proj.weight`",
        "context blocks are taken as dnl; their pooling, scale and temperature are not in the file and are the "
        "defaults",
        "clips are the hub's published 8x8 ones",
    )


def test_a_linear_fusion_is_recognised() -> None:
    with torch.device("meta"):
        tensors = build_model(ModelSpec("slowfast_r50", "none", 5, fusion_kernel=5, fusion="conv")).state_dict()
    spec = hub.convert(tensors).spec
    assert (spec.fusion, spec.fusion_kernel) == ("conv", 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(create_x3d, input_clip_length=4, input_crop_size=160), f"this is X3D; {PLAIN}"),
        (
            partial(transformer, spatial_size=32, temporal_size=8, depth=1, head_num_classes=5),
            f"this is MViT; {PLAIN}",
        ),
        (create_r2plus1d, f"this is R(2+1)D; {PLAIN}"),
        (
            create_csn,
            "block 0 of res2 has kernels 64x64x1x1x1 and 64x1x3x3x3, which is no plain bottleneck of width 64; "
            f"{PLAIN}",
        ),
        (
            partial(their_hub.slowfast_16x8_r101_50_50, pretrained=False),
            f"temporal kernels 1 (stem) and [1, 1, 1], [1, 1, 1, 1], {[3] * 6 + [1] * 17}, [3, 3, 3] are no known "
            f"network's; {PLAIN}",
        ),
        (
            partial(their_hub.slow_r50, pretrained=False, stage1_pool=torch.nn.MaxPool3d),
            f"the temporal kernels of slow in a network with a pool behind res2; {PLAIN}",
        ),
    ],
)
def test_other_networks_of_the_hub_are_refused(make, message: str) -> None:
    with torch.device("meta"):
        tensors = make().state_dict()
    assert hub.matches(shapes_of(tensors))
    with pytest.raises(InputError) as error:
        hub.convert(tensors)
    assert str(error.value) == f"pytorchvideo hub: {message}"
