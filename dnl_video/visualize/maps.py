"""From a clip to attention maps: the network is run once and every context block is asked what it attends to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dnl_video.data.transforms import normalize
from dnl_video.errors import InputError, nearest
from dnl_video.inference.predictor import Predictor
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.context_block import AttentionBlock, ContextBlock
from dnl_video.models.inspect.decomposition import decompose
from dnl_video.models.inspect.geometry import PlacedBlock, pathway_frames, placed_blocks
from dnl_video.models.simplified import GlobalContextBlock3d
from dnl_video.visualize.clip import Clip
from dnl_video.visualize.queries import Query

Grid = NDArray[np.float32]


@dataclass(frozen=True)
class Axes:
    """Where the positions of a grid [T', h, w] are in the clip; 0 is the middle of the first frame or pixel.

    Attributes:
        frames: Centres in the clip's frames, [T'].
        rows: Centres in pixels from the top, [h].
        columns: Centres in pixels from the left, [w].
        end: First pixel (row, column) that belongs to no position: pooling drops what does not fill a window.
    """

    frames: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    end: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T', h, w)."""
        return len(self.frames), len(self.rows), len(self.columns)


@dataclass(frozen=True)
class LogitMaps:
    """The paper's split of a non-local block's logits.

    Attributes:
        pairwise: Whitened pairwise logits of each query, [Q, T', h, w].
        unary: Unary logits less their mean, [T', h, w].
        pairwise_share: Share of the logits' variance over keys that the pairwise term explains, over all queries.
        unary_share: Share that the unary term explains.
    """

    pairwise: Grid
    unary: Grid
    pairwise_share: float
    unary_share: float


@dataclass(frozen=True)
class BlockMaps:
    """What one block attends to in one clip. Each map is a distribution over the keys: it sums to 1.

    Attributes:
        name: The block, such as ``res3.1``.
        kind: DNL, NL, pairwise, unary, SNL or GC.
        keys: Where the keys are.
        unary: [T', h, w]; None where the block has no such term.
        pairwise: The whitened pairwise map of each query, or the coupled one of NL, [Q, T', h, w]; None as above.
        logits: The decomposition of a non-local block.
    """

    name: str
    kind: str
    keys: Axes
    unary: Grid | None
    pairwise: Grid | None
    logits: LogitMaps | None


@dataclass(frozen=True)
class ClipMaps:
    """Attention of one network in one clip.

    Attributes:
        kind: What its blocks are.
        prediction: Best class and its probability, for this clip.
        shown: The clip's frames that the blocks' pathway sees.
        blocks: Maps by the block's name, in the order of the network.
    """

    kind: str
    prediction: tuple[str, float]
    shown: list[int]
    blocks: dict[str, BlockMaps]


def drawable_blocks(predictor: Predictor) -> list[PlacedBlock]:
    """Return the network's context blocks.

    Raises:
        InputError: There are none, or they have no attention that is a distribution.
    """
    network = predictor.network
    placed = placed_blocks(network) if isinstance(network, VideoClassifier) else []
    if not placed:
        raise InputError(
            "the network has no context blocks (context: none), so there is no attention to draw; "
            "give a checkpoint with dnl, nl, pairwise, unary, snl or gc"
        )
    kinds = {block.attention for _, block, _, _ in placed if isinstance(block, NonLocalBlock3d)}
    if kinds - {"embedded_gaussian", "gaussian"}:
        raise InputError(
            f"attention {kinds.pop()} has no softmax, so its weights are no map to draw; "
            "give a checkpoint whose attention is embedded_gaussian or gaussian"
        )
    return placed


@torch.inference_mode()
def clip_maps(
    predictor: Predictor, clip: Clip, queries: Sequence[Query], names: Sequence[str] | None = None
) -> ClipMaps:
    """Run a network on a clip and collect its blocks' maps.

    Args:
        predictor: The network.
        clip: The clip.
        queries: Places whose pairwise maps to take; the position of the block's grid nearest to each is used.
        names: Blocks to look at; None for all.

    Raises:
        InputError: The network has nothing to draw, or not a block of that name.
    """
    placed = drawable_blocks(predictor)
    known = [block.name for block in placed]
    for name in names or ():
        if name not in known:
            raise InputError(f"no block {name!r}; this network has {', '.join(known)}{nearest(name, known)}")
    chosen = [block for block in placed if names is None or block.name in names]
    inputs: dict[str, Tensor] = {}
    hooks = [block.block.register_forward_pre_hook(_keep(inputs, block.name)) for block in chosen]
    options = predictor.preprocessing
    pixels = torch.from_numpy(clip.frames)[None].to(predictor.device)
    try:
        logits = predictor.network(normalize(pixels, options.mean, options.std, options.channel_order))
    finally:
        for hook in hooks:
            hook.remove()
    probabilities = logits[0].float().softmax(dim=0)
    best = int(probabilities.argmax())
    shown = pathway_frames(cast(VideoClassifier, predictor.network), len(clip.frames))
    blocks = {b.name: _block_maps(b, inputs[b.name], queries, shown, clip.frames.shape[1:3]) for b in chosen}
    return ClipMaps(kind_of(chosen[0].block), (predictor.class_names[best], float(probabilities[best])), shown, blocks)


def kind_of(block: ContextBlock) -> str:
    """Return what a block is called in pictures."""
    if isinstance(block, NonLocalBlock3d):
        return "NL"
    if isinstance(block, DisentangledNonLocalBlock3d):
        if block.query is not None and block.unary is not None:
            return "DNL"
        return "pairwise" if block.query is not None else "unary"
    return "GC" if isinstance(block, GlobalContextBlock3d) else "SNL"


def _keep(inputs: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[name] = arguments[0]

    return hook


def _block_maps(
    placed: PlacedBlock, x: Tensor, queries: Sequence[Query], shown: Sequence[int], size: tuple[int, ...]
) -> BlockMaps:
    block = placed.block
    height, width = size
    grid = (int(x.shape[2]), int(x.shape[3]), int(x.shape[4]))
    at = _axes(placed, grid, (1, 1, 1), shown)
    places = [_position(at, query.frame, *query.pixel(height, width)) for query in queries]
    flat = torch.tensor(places, dtype=torch.int64)
    pool = block.pool if isinstance(block, AttentionBlock) and block.pool is not None else (1, 1, 1)
    keys = _axes(placed, grid, pool, shown)
    found = block.attention_maps(x, flat)
    logits = None
    if isinstance(block, NonLocalBlock3d):
        parts = decompose(block, x, flat)
        unary = parts.unary - parts.unary.mean()
        shares = float(parts.pairwise_share[0]), float(parts.unary_share[0])
        logits = LogitMaps(_array(parts.pairwise[0], keys), _array(unary, keys)[0], *shares)
    return BlockMaps(
        placed.name,
        kind_of(block),
        keys,
        None if found.unary is None else _array(found.unary, keys)[0],
        None if found.pairwise is None else _array(found.pairwise[0], keys),
        logits,
    )


def _axes(placed: PlacedBlock, grid: tuple[int, int, int], pool: Sequence[int], shown: Sequence[int]) -> Axes:
    """Place the windows that pooling makes of a grid of features."""
    centres: list[NDArray[np.float64]] = []
    ends: list[float] = []
    for spacing, offset, count, window in zip(placed.spacing, placed.offset, grid, pool, strict=True):
        window = min(window, count)
        centre = offset + spacing * (window * np.arange(count // window, dtype=np.float64) + (window - 1) / 2)
        centres.append(centre)
        # A window of w positions reaches half its width past its centre, and the frame's edge is up to half a
        # position further, since position 0 is centred on the first pixel.
        ends.append(float(centre[-1]) + spacing * (window + 1) / 2)
    frames = np.interp(centres[0], np.arange(len(shown)), np.asarray(shown, dtype=np.float64))
    return Axes(frames, centres[1], centres[2], (ends[1], ends[2]))


def _position(at: Axes, frame: int, row: float, column: float) -> int:
    """Return the flat position nearest to a place."""
    nearest_to = [int(np.abs(a - v).argmin()) for a, v in ((at.frames, frame), (at.rows, row), (at.columns, column))]
    return int(np.ravel_multi_index(nearest_to, at.shape))


def _array(values: Tensor, keys: Axes) -> Grid:
    """[n, M] -> [n, T', h, w]."""
    return values.float().cpu().numpy().reshape(-1, *keys.shape)
