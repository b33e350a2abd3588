"""From tensors whose place in a video ResNet is known to this package's names: family, depth, blocks, kernels.

PySlowFast's three layouts (its own builder, its pytorchvideo builder, caffe2) differ in names only; what follows from
places and shapes is here. Its temporal kernels (slowfast/models/video_model_builder.py, `_TEMPORAL_KERNEL_BASIS`) may
be shorter than a family's, which `families.family_of` refuses and this file fills up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.families import STAGES, Family, bottlenecks, depth_of, temporal_kernel
from dnl_video.models.weights.places import TranslatedWeights, block_prefixes
from dnl_video.models.weights.pyslowfast_settings import Settings
from dnl_video.spec import Architecture, ContextOptions, ModelSpec, Similarity

_FAMILIES = ("c2d", "slow", "i3d")
# configs/Kinetics/**: NONLOCAL.INSTANTIATION, and SLOWFAST.ALPHA by FUSION_KERNEL_SZ and DEPTH (else 4).
_ATTENTION: dict[str, Similarity] = {
    "c2d": "embedded_gaussian",
    "i3d": "embedded_gaussian",
    "slow": "dot_product",
    "slowfast": "dot_product",
}
_ALPHA = {(5, 50): 8}
# configs/ImageNet/RES_R50.yaml; config/defaults.py.
_IMAGE_NORM = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_VIDEO_NORM = {"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}


class Place(NamedTuple):
    """Where in a network a tensor lies: ``stem``, ``res2`` ... ``head``, the pathway, and the name inside that part."""

    part: str
    pathway: int
    tail: str


def assemble(
    origin: str,
    tensors: Mapping[str, Tensor],
    places: Mapping[str, Place],
    left: Mapping[str, str],
    *,
    architecture: Architecture | None,
    flat_family: str,
    settings: Settings | None = None,
) -> TranslatedWeights:
    """Put tensors under the names of the network that their shapes tell.

    Temporal kernels shorter than the network's (R101 "50_50", whose res4 has temporal kernels in its first six blocks
    only; C2D without pooling, which is Slow with kernels of one frame) are padded with zeros, which changes no output.

    Args:
        origin: The project, for messages.
        tensors: The file's tensors by its names.
        places: For each of its names that has one, the place.
        left: The other names, with the reason.
        architecture: The network they are for; None takes the one the shapes tell.
        flat_family: What a network without any temporal kernel is, unless ``settings`` tell: ``c2d``, which pools over
            time behind res2, or ``slow``, which does not.
        settings: What else is known of the network; None takes what PySlowFast's configurations have.

    Raises:
        InputError: The layout is not that of a network this package builds, or not of ``architecture``.
    """
    settings = settings or Settings()
    named = _unique(origin, places)
    shapes = {place: tuple(tensors[name].shape) for place, name in named.items()}
    _check_blocks(origin, shapes)
    image = len(shapes[Place("stem", 0, "conv.weight")]) == 4
    found = _architecture(origin, shapes, architecture, flat_family, image, settings.pools)
    family = found.partition("_r")[0]
    left = dict(left)
    state: dict[str, Tensor] = {}
    source_names: dict[str, str] = {}
    padded = 0
    for place, name in named.items():
        if image and place.part == "head":
            left[name] = "classifier of images"
            continue
        tensor = _reshaped(tensors[name], place)
        frames = None if image else _frames(family, place)
        if frames is not None and tensor.shape[2] < frames:
            side = (frames - tensor.shape[2]) // 2
            tensor = F.pad(tensor, (0, 0, 0, 0, side, side))
            padded += 1
        target = f"{block_prefixes(found, place.pathway)[place.part]}.{place.tail}"
        state[target], source_names[target] = tensor, name
    spec, notes = (None, []) if image else _spec(origin, found, shapes, settings)
    if padded:
        notes.append(f"{padded} temporal kernels were padded with zeros to those of {found}; outputs stay the same")
    prepared: dict[str, Any] = _IMAGE_NORM if image else _VIDEO_NORM | {"sampling": "pyslowfast"}
    # Images have no frames, and their crops say nothing of a video's.
    stated = {k: v for k, v in settings.preprocessing.items() if not image or k in ("mean", "std", "channel_order")}
    return TranslatedWeights(
        origin=origin,
        state_dict=state,
        source_names=source_names,
        left=left,
        spec=spec,
        preprocessing=prepared | {"channel_order": "rgb"} | stated,
        notes=tuple(notes),
    )


def _unique(origin: str, places: Mapping[str, Place]) -> dict[Place, str]:
    named: dict[Place, str] = {}
    for name, place in places.items():
        if place in named:
            raise InputError(f"{origin} weights name one tensor twice: {named[place]!r} and {name!r}; give one of them")
        named[place] = name
    return named


def _check_blocks(origin: str, shapes: Mapping[Place, tuple[int, ...]]) -> None:
    """Refuse what is not made of full bottlenecks on one or two pathways."""
    if Place("stem", 0, "conv.weight") not in shapes or Place("head", 0, "proj.weight") not in shapes:
        missing = "stem" if Place("stem", 0, "conv.weight") not in shapes else "classifier"
        raise InputError(f"{origin} weights have no {missing}; give a file with a whole network")
    for place in shapes:
        if place.pathway > 1 or (place.pathway and "context_blocks" in place.tail):
            what = "non-local blocks on the fast pathway" if "context_blocks" in place.tail else "a third pathway"
            raise InputError(f"{origin} weights have {what}; networks here have none")


def _depth(origin: str, shapes: Mapping[Place, tuple[int, ...]]) -> int:
    named = {f"{place.pathway}.{place.part}.{place.tail}": shape for place, shape in shapes.items()}
    depths = {}
    for pathway in sorted({place.pathway for place in shapes}):
        stages = [f"{pathway}.{stage}.res_blocks." for stage in STAGES]
        blocks = bottlenecks(named, stages, ".branch2.conv_a.weight", ".branch2.conv_b.weight")
        stem = named.get(f"{pathway}.stem.conv.weight", (0,))
        depths[pathway] = depth_of(origin, stem[0], blocks)
    if len(set(depths.values())) > 1:
        raise InputError(f"{origin} weights have pathways of depths {list(depths.values())}; networks here have one")
    return depths[0]


def _architecture(
    origin: str,
    shapes: Mapping[Place, tuple[int, ...]],
    asked: Architecture | None,
    flat_family: str,
    image: bool,
    pools: bool | None,
) -> Architecture:
    depth = _depth(origin, shapes)
    fitting, best = _families(shapes, image)
    if not fitting:
        raise InputError(
            f"{origin} weights have temporal kernels of no network here; allowed: {', '.join(_FAMILIES)}, slowfast"
        )
    if best == "c2d":
        best = flat_family if pools is None else "c2d" if pools else "slow"
        if pools is not None and not image:
            fitting = [family for family in fitting if (family != "slow") == pools]
    if asked is None:
        if image:
            raise InputError(f"{origin} weights are an image network's (2-D kernels); name the network they are for")
        return cast(Architecture, f"{best}_r{depth}")
    if asked not in [f"{family}_r{depth}" for family in fitting]:
        kind = "an image" if image else f"a {best}"
        fit = ", ".join(f"{family}_r{depth}" for family in fitting)
        raise InputError(f"{origin} weights are {kind} ResNet-{depth}'s and do not fit {asked}; they fit {fit}")
    return asked


def _families(shapes: Mapping[Place, tuple[int, ...]], image: bool) -> tuple[list[str], str]:
    """Return the families whose kernels are nowhere shorter than these, and the one that fits best."""
    if image:
        return list(_FAMILIES), "c2d"
    two = any(place.pathway for place in shapes)
    kernels = _temporal(shapes)
    fitting, exact = [], []
    for family in ["slowfast"] if two else _FAMILIES:
        spare = [cast(int, _frames(family, place)) - k for place, k in kernels.items()]
        if all(s >= 0 and s % 2 == 0 for s in spare):
            fitting.append(family)
            if not any(spare):
                exact.append(family)
    return fitting, (exact or fitting or [""])[0]


def _temporal(shapes: Mapping[Place, tuple[int, ...]]) -> dict[Place, int]:
    """Return the frames spanned by each kernel that may span more than one."""
    return {place: shape[2] for place, shape in shapes.items() if _frames("slow", place) is not None}


def _frames(family: str, place: Place) -> int | None:
    """Return the frames that a family's kernel at that place spans; None for other tensors."""
    kind = cast(Family, "fast" if place.pathway else "slow" if family == "slowfast" else family)
    if place.part == "stem":
        return temporal_kernel(kind, "stem") if place.tail == "conv.weight" else None
    if place.part not in STAGES or not place.tail.endswith("conv_a.weight"):
        return None
    return temporal_kernel(kind, place.part, int(_block(place)))


def _block(place: Place) -> str:
    """Return the number of the residual block a tensor is in; empty for others."""
    kind, _, rest = place.tail.partition(".")
    return rest.partition(".")[0] if kind == "res_blocks" else ""


def _spec(
    origin: str, architecture: Architecture, shapes: Mapping[Place, tuple[int, ...]], settings: Settings
) -> tuple[ModelSpec, list[str]]:
    family, _, depth = architecture.partition("_r")
    stem = shapes[Place("stem", 0, "conv.weight")][0]
    notes: list[str] = []
    fields: dict[str, Any] = {"context": "none"}
    if family == "slowfast":
        kernel = _fusion_kernel(origin, shapes)
        alpha = settings.alpha or _ALPHA.get((kernel, int(depth)), 4)
        fields |= {"slow_alpha": alpha, "fusion_kernel": kernel}
        if settings.alpha is None:
            notes.append(
                f"the file's tensors do not tell slow_alpha; {alpha} is what PySlowFast's configurations have for "
                f"R{depth} with a fusion kernel of {kernel}"
            )
    flat = set(_temporal(shapes).values()) == {1}
    if flat and family == "slow":
        notes.append("no kernel spans frames: taken as PySlowFast's C2D without pooling over time (c2d_nopool)")
    positions = _positions(shapes)
    if positions:
        kind = "c2d" if flat else family
        attention = settings.attention or _ATTENTION[kind]
        query = next(shape for place, shape in shapes.items() if place.tail.endswith("query.weight"))
        fields["context"] = "nl"
        fields["context_options"] = ContextOptions(
            positions={stage: list(blocks) for stage, blocks in positions.items()},
            attention=attention,
            inner_ratio=query[0] / query[1],
            pool=settings.nonlocal_pool or (1, 2, 2),
        )
        if settings.attention is None:
            notes.append(
                f"the file's tensors do not tell the similarity; {attention} is what PySlowFast's {kind} "
                "configurations with non-local blocks have"
            )
    if settings.dropout is not None:
        fields["dropout"] = settings.dropout
    spec = ModelSpec(
        architecture=architecture,
        num_classes=shapes[Place("head", 0, "proj.weight")][0],
        head="dense_probabilities",
        stem_channels=stem,
        **fields,
    )
    return spec, notes


def _fusion_kernel(origin: str, shapes: Mapping[Place, tuple[int, ...]]) -> int:
    slow, fast = (shapes[Place("stem", p, "conv.weight")][0] for p in (0, 1))
    fused = shapes.get(Place("fuse1", 0, "conv_fast_to_slow.weight"), (0, 0, 0))
    if slow != 8 * fast or fused[0] != 2 * fast:
        raise InputError(
            f"{origin} weights have {slow} slow, {fast} fast and {fused[0]} fused channels behind the stem; networks "
            "here have BETA_INV 8 and FUSION_CONV_CHANNEL_RATIO 2"
        )
    return fused[2]


def _positions(shapes: Mapping[Place, tuple[int, ...]]) -> dict[str, Sequence[int]]:
    found: dict[str, set[int]] = {}
    for place in shapes:
        kind, _, rest = place.tail.partition(".")
        if kind == "context_blocks":
            found.setdefault(place.part, set()).add(int(rest.partition(".")[0]))
    return {stage: sorted(found[stage]) for stage in sorted(found)}


def _reshaped(tensor: Tensor, place: Place) -> Tensor:
    """Bring classifiers to [K, C], and norms' [C, 1, 1, 1] of PySlowFast's older files to [C]."""
    if place.part == "head" and tensor.dim() > 2:
        return tensor.flatten(1)
    if "norm" in place.tail and tensor.dim() > 1:
        return tensor.flatten()
    return tensor
