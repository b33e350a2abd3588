"""PySlowFast's networks: the `.pyth` checkpoints of its two builders, and the caffe2 pickles (`.pkl`) of its model zoo.

These are ResNets and SlowFast, with and without non-local blocks.

Names: facebookresearch/SlowFast, slowfast/models: video_model_builder.py (`ResNet`, `SlowFast`), resnet_helper.py,
stem_helper.py, nonlocal_helper.py, head_helper.py, batchnorm_helper.py (`SubBatchNorm3d`), and ptv_model_builder.py
(`PTVResNet`, `PTVSlowFast`), whose names are pytorchvideo's behind ``model.``. Caffe2's are video-nonlocal-net's blobs
(facebookresearch/video-nonlocal-net, lib/models), with ``t_`` for the fast pathway and ``..._subsample`` for its
lateral convolutions (slowfast/utils/c2_model_loading.py); ``riv`` holds the running variance, not its inverse.
Clips are RGB, normalised by 0.45 and 0.225 (config/defaults.py: DATA.MEAN, DATA.STD, DATA.REVERSE_INPUT_CHANNEL False
in every Kinetics configuration), and resized without antialiasing (datasets/transform.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.hub import place_function
from dnl_video.models.weights.imagenet import MEAN, STD
from dnl_video.models.weights.places import Place, TranslatedWeights, at_places, by_our_names, find_place
from dnl_video.models.weights.pyslowfast_settings import Settings, read_settings
from dnl_video.models.weights.recognition import (
    Network,
    Shapes,
    context_blocks,
    kernel_frames,
    recognise,
    temporal_kernels,
)
from dnl_video.spec import Architecture, ModelSpec, Similarity

ORIGIN = "PySlowFast"
_PTV, _PTV_ORIGIN = "model.", "PySlowFast (pytorchvideo-built)"
_PTV_TAIL = re.compile(
    r"(?:conv|norm|conv_fast_to_slow|proj|res_blocks\.\d+\.(?:branch1_(?:conv|norm)|branch2\.(?:conv|norm)_[abc]))\.\w+"
)
# Networks of PySlowFast that are not built here, by names that only they have.
_X3D = re.compile(r"s1\.pathway0_stem\.conv_xy\.|model\.blocks\.0\.conv\.conv_(t|xy)\.")
_R2PLUS1D = re.compile(r"model\.blocks\.\d+\.res_blocks\.\d+\.branch2\.conv_b\.conv_t\.")
_SUB_STATISTICS = "statistics of each split (sub-batch norm), merged in another tensor"
_NO_PLACE = "no place in networks of this package"
# configs/Kinetics/**: NONLOCAL.INSTANTIATION, and SLOWFAST.ALPHA by FUSION_KERNEL_SZ and DEPTH (else 4).
_ATTENTION: dict[str, Similarity] = {
    "c2d": "embedded_gaussian",
    "i3d": "embedded_gaussian",
    "slow": "dot_product",
    "slowfast": "dot_product",
}
_ALPHA = {(5, 50): 8}
# configs/ImageNet/RES_R50.yaml; config/defaults.py.
_IMAGE_NORM = {"mean": MEAN, "std": STD}
_VIDEO_NORM = {"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}


def matches(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether names are PySlowFast's, of any of its networks."""
    known = any(re.match(r"s1\.pathway\d_stem\.(conv|bn)|model\.blocks\.\d+\..", name) for name in shapes)
    return known or _other_network(shapes) is not None


def convert(
    tensors: Mapping[str, Tensor], *, architecture: Architecture | None = None, config: str | None = None
) -> TranslatedWeights:
    """Translate a PySlowFast state dict.

    Args:
        tensors: The checkpoint's ``model_state``.
        architecture: The network it is for; None takes the one that names and shapes show. Image networks (R50_IN1K)
            need it.
        config: The checkpoint's ``cfg``, with settings that the tensors do not show: SlowFast's alpha, the similarity
            of non-local blocks, temporal pooling in C2D, the clips. None takes those of PySlowFast's configurations,
            and adds notes.

    Raises:
        InputError: The network is not built here (X3D, MViT, ResNeXt, ...) or is not ``architecture``.
    """
    other = _other_network({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if other is not None:
        raise InputError(f"{ORIGIN} weights of {other}; networks here are its C2D, I3D, Slow and SlowFast")
    settings = read_settings(config) if config else Settings()
    left = {name: _SUB_STATISTICS for name in tensors if name.rpartition(".")[0].endswith(".split_bn")}
    kept = {name: tensor for name, tensor in tensors.items() if name not in left}
    if not any(name.startswith(_PTV) for name in tensors):

        def own_place(name: str) -> Place | None:
            return find_place("pyslowfast", _without_sub_batch_norm(name))

        return _assemble(ORIGIN, kept, own_place, left, architecture, "c2d", settings)
    hub_place, pools = place_function(name.removeprefix(_PTV) for name in kept)

    def ptv_place(name: str) -> Place | None:
        found = hub_place(_without_sub_batch_norm(name.removeprefix(_PTV)))
        return found if found and _PTV_TAIL.fullmatch(found.tail) else None

    return _assemble(_PTV_ORIGIN, kept, ptv_place, left, architecture, "c2d", replace(settings, pools=pools))


def _without_sub_batch_norm(name: str) -> str:
    """Return the name that a sub-batch norm's tensor has in a batch norm.

    `SubBatchNorm3d` has its merged statistics in ``bn`` and those of the splits in ``split_bn``.
    """
    module, _, leaf = name.rpartition(".")
    inner = re.fullmatch(r"(.*(?:bn|norm(?:_[abc])?))\.bn", module)
    return f"{inner[1]}.{leaf}" if inner else name


def _other_network(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    if any(_X3D.match(name) for name in shapes):
        return "X3D"
    if any(_R2PLUS1D.match(name) for name in shapes):
        return "R(2+1)D"
    video_patches = len(shapes.get("patch_embed.proj.weight", ())) == 5
    starts = ("model.patch_embed.", "blocks.0.attn.") if video_patches else ("model.patch_embed.",)
    return "MViT" if any(name.startswith(starts) for name in shapes) else None


def _assemble(
    origin: str,
    tensors: Mapping[str, Tensor],
    place: Callable[[str], Place | None],
    left: dict[str, str],
    asked: Architecture | None,
    flat_family: str,
    settings: Settings,
) -> TranslatedWeights:
    """Name tensors as in the network that their shapes show, or that was ``asked`` for.

    Temporal kernels shorter than the network's are padded with zeros, which changes no output: R101 "50_50" has
    temporal kernels only in the first six blocks of res4, and C2D without pooling is Slow with kernels of one frame.
    ``flat_family`` is the family of a network without temporal kernels if ``settings`` do not give it: ``c2d``, which
    pools over time behind res2, or ``slow``, which does not.
    """
    places, shapes, rest = at_places(origin, tensors, place)
    left = left | {name: left.get(name, _NO_PLACE) for name in rest}
    network = recognise(origin, shapes, pad=True)
    if network.classes is None:
        raise InputError(f"{origin} weights have no classifier; give a file with a whole network")
    found = _architecture(origin, network, asked, flat_family, settings.pools)
    if network.image:
        left |= {places.pop(p): "classifier of images" for p in list(places) if p.part == "head"}
    padded = 0
    placed = {}
    for p, name in places.items():
        placed[p] = _reshaped(tensors[name], p)
        frames = None if network.image else kernel_frames(found.partition("_r")[0], p)
        if frames is not None and placed[p].shape[2] < frames:
            side = (frames - placed[p].shape[2]) // 2
            placed[p] = F.pad(placed[p], (0, 0, 0, 0, side, side))
            padded += 1
    spec, notes = (None, []) if network.image else _spec(origin, found, network, shapes, settings)
    if padded:
        notes.append(f"{padded} temporal kernels were padded with zeros to those of {found}; outputs stay the same")
    norm: dict[str, Any] = (
        _IMAGE_NORM if network.image else _VIDEO_NORM | {"sampling": "pyslowfast", "antialias": False}
    )
    # Images have no frames, and their crop sizes are not a video's.
    usable = ("mean", "std", "channel_order") if network.image else tuple(settings.preprocessing)
    stated = {key: value for key, value in settings.preprocessing.items() if key in usable}
    return TranslatedWeights(
        origin=origin,
        state_dict=by_our_names(found, placed),
        source_names=by_our_names(found, places),
        left=left,
        spec=spec,
        preprocessing=norm | {"channel_order": "rgb"} | stated,
        notes=tuple(notes),
    )


def _architecture(
    origin: str, network: Network, asked: Architecture | None, flat_family: str, pools: bool | None
) -> Architecture:
    fitting, best = list(network.families), network.families[0]
    if best == "c2d":
        best = flat_family if pools is None else "c2d" if pools else "slow"
        if pools is not None and not network.image:
            fitting = [family for family in fitting if (family != "slow") == pools]
    if asked is None and network.image:
        raise InputError(f"{origin} weights are an image network's (2-D kernels); name the network they are for")
    if asked is None:
        return network.architecture(best)
    names = [network.architecture(family) for family in fitting]
    if asked not in names:
        kind = "an image" if network.image else f"a {best}"
        raise InputError(
            f"{origin} weights are {kind} ResNet-{network.depth}'s and do not fit {asked}; they fit {', '.join(names)}"
        )
    return asked


def _spec(
    origin: str, architecture: Architecture, network: Network, shapes: Shapes, settings: Settings
) -> tuple[ModelSpec, list[str]]:
    """Return the network, and notes about settings that are not in the file."""
    notes: list[str] = []
    family = architecture.partition("_r")[0]
    fields: dict[str, Any] = dict(network.fusion)
    if family == "slowfast":
        kernel = fields["fusion_kernel"]
        fields["slow_alpha"] = settings.alpha or _ALPHA.get((kernel, network.depth), 4)
        if settings.alpha is None:
            notes.append(
                f"slow_alpha is not in the file; {fields['slow_alpha']} is taken, as in PySlowFast's configurations of "
                f"R{network.depth} with a fusion kernel of {kernel}"
            )
    flat = set(temporal_kernels(shapes).values()) == {1}
    if flat and family == "slow":
        notes.append("no kernel spans frames: taken as PySlowFast's C2D without pooling over time (c2d_nopool)")
    blocks = context_blocks(origin, shapes)
    if blocks.context != "none":
        kind = "c2d" if flat else family
        attention = settings.attention or _ATTENTION[kind]
        pool = settings.nonlocal_pool or (1, 2, 2)
        fields["context_options"] = replace(blocks.options, attention=attention, pool=pool)
        if settings.attention is None:
            notes.append(
                f"the similarity is not in the file; {attention} is taken, as in PySlowFast's {kind} configurations "
                "with non-local blocks"
            )
    if settings.dropout is not None:
        fields["dropout"] = settings.dropout
    return (
        ModelSpec(
            architecture,
            "none" if blocks.context == "none" else "nl",
            num_classes=network.classes or 0,
            head="dense_probabilities",
            stem_channels=network.width,
            **fields,
        ),
        notes,
    )


def _reshaped(tensor: Tensor, place: Place) -> Tensor:
    """Reshape classifiers to [K, C], and norms of PySlowFast's older files from [C, 1, 1, 1] to [C]."""
    if place.part == "head" and tensor.dim() > 2:
        return tensor.flatten(1)
    return tensor.flatten() if "norm" in place.tail and tensor.dim() > 1 else tensor


# ---- caffe2

_LEAVES = {"w": "weight", "b": "bias"}
_NORM_LEAVES = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}


def matches_caffe2(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether names are caffe2 blobs of a ResNet."""
    return "conv1_w" in shapes and "res2_0_branch2a_w" in shapes


def convert_caffe2(tensors: Mapping[str, Tensor], *, architecture: Architecture | None = None) -> TranslatedWeights:
    """Translate caffe2 blobs.

    Args:
        tensors: The file's blobs.
        architecture: The network they are for; None takes the one that names and shapes show. Without temporal kernels
            that is the zoo's C2D, which does not pool over time.

    Raises:
        InputError: The network is not built here or is not ``architecture``, or has scales instead of batch norms.
    """
    origin = f"{ORIGIN} (caffe2)"
    if "res_conv1_bn_rm" not in tensors:
        raise InputError(
            f"{origin} weights have scales instead of batch norms (no 'res_conv1_bn_rm'); give a file of PySlowFast's "
            "model zoo"
        )
    states = [name for name in tensors if name.endswith("_momentum") or name in ("lr", "model_iter")]
    left = dict.fromkeys(states, "state of the optimiser")
    return _assemble(origin, tensors, _caffe2_place, left, architecture, "slow", Settings())


def _caffe2_place(blob: str) -> Place | None:
    module, _, suffix = blob.rpartition("_")
    leaf = (_NORM_LEAVES if module.endswith("_bn") else _LEAVES).get(suffix)
    return find_place("caffe2", f"{module}.{leaf}") if leaf else None
