"""Attention maps of a clip: the network runs once, and each context block gives its maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnl_video.data.transforms import normalize
from dnl_video.errors import InputError, nearest
from dnl_video.inference.predictor import Predictor
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.context_block import AttentionBlock, ContextBlock
from dnl_video.models.inspect.decomposition import decompose
from dnl_video.models.inspect.geometry import PlacedBlock, pathway_frames, placed_blocks
from dnl_video.models.simplified import GlobalContextBlock3d
from dnl_video.visualize.clip import Clip, Query

Grid = NDArray[np.float32]


@dataclass(frozen=True)
class Positions:
    """Places of a grid [T', h, w] in the clip; 0 is the centre of the first frame or pixel."""

    frames: NDArray[np.float64]  # centres in frames of the clip, [T']
    rows: NDArray[np.float64]  # centres in pixels from the top, [h]
    columns: NDArray[np.float64]  # centres in pixels from the left, [w]
    end: tuple[float, float]  # first pixel (row, column) without a position: pooling drops an incomplete window

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T', h, w)."""
        return len(self.frames), len(self.rows), len(self.columns)


@dataclass(frozen=True)
class LogitMaps:
    """The paper's split of a non-local block's logits."""

    pairwise: Grid  # whitened pairwise logits of each query, [Q, T', h, w]
    unary: Grid  # unary logits minus their mean, [T', h, w]
    pairwise_share: float  # share of the logits' variance over keys that the pairwise term explains, over all queries
    unary_share: float


@dataclass(frozen=True)
class BlockMaps:
    """Attention of one block in one clip. Each map is a distribution over the keys: it sums to 1.

    A term that the block does not have is None.
    """

    kind: str  # DNL, NL, pairwise, unary, SNL or GC
    block: ContextBlock
    x: Tensor  # input of the block, [1, C, T', h, w]
    positions: Positions  # of all queries
    keys: Positions
    unary: Grid | None  # [T', h, w]
    pairwise: Grid | None  # whitened pairwise map of each query, or coupled map for NL, [Q, T', h, w]
    logits: LogitMaps | None  # decomposition of a non-local block


@dataclass(frozen=True)
class ClipMaps:
    """Attention of one network in one clip."""

    kind: str  # kind of its blocks
    prediction: tuple[str, float]  # best class of this clip and its probability
    shown: list[int]  # frames of the clip that the pathway of the blocks sees
    blocks: dict[str, BlockMaps]  # by name, such as res3.1, in the order of the network


def drawable_blocks(predictor: Predictor) -> list[PlacedBlock]:
    """Return the network's context blocks.

    Raises:
        InputError: There are none, or their attention is not a distribution.
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
    """Run a network on a clip and collect the maps of its blocks.

    Args:
        predictor: The network.
        clip: The clip.
        queries: Places whose pairwise maps to take; the nearest position of the block's grid is used.
        names: Names of blocks; None for all.

    Raises:
        InputError: The network has nothing to draw, or no block of that name.
    """
    placed = drawable_blocks(predictor)
    known = [block.name for block in placed]
    for name in names or ():
        if name not in known:
            raise InputError(f"no block {name!r}; this network has {', '.join(known)}{nearest(name, known)}")
    chosen = [block for block in placed if names is None or block.name in names]
    inputs: dict[str, Tensor] = {}
    hooks = [
        one.block.register_forward_pre_hook(lambda _, arguments, name=one.name: inputs.update({name: arguments[0]}))
        for one in chosen
    ]
    options = predictor.preprocessing
    pixels = torch.from_numpy(clip.frames)[None].to(predictor.device)
    try:
        logits = predictor.network(normalize(pixels, options.mean, options.std, options.channel_order))
    finally:
        for hook in hooks:
            hook.remove()
    probability, best = logits[0].float().softmax(dim=0).max(dim=0)
    shown = pathway_frames(cast(VideoClassifier, predictor.network), len(clip.frames))
    blocks = {b.name: _block_maps(b, inputs[b.name], queries, shown, clip.frames.shape[1:3]) for b in chosen}
    return ClipMaps(kind_of(chosen[0].block), (predictor.class_names[int(best)], float(probability)), shown, blocks)


def kind_of(block: ContextBlock) -> str:
    """Return the name of a block's kind for pictures."""
    if isinstance(block, NonLocalBlock3d):
        return "NL"
    if isinstance(block, DisentangledNonLocalBlock3d):
        if block.query is not None and block.unary is not None:
            return "DNL"
        return "pairwise" if block.query is not None else "unary"
    return "GC" if isinstance(block, GlobalContextBlock3d) else "SNL"


def _block_maps(
    placed: PlacedBlock, x: Tensor, queries: Sequence[Query], shown: Sequence[int], size: tuple[int, ...]
) -> BlockMaps:
    block = placed.block
    grid = (int(x.shape[2]), int(x.shape[3]), int(x.shape[4]))
    positions = _axes(placed, grid, (1, 1, 1), shown)
    flat = torch.tensor([_position(positions, q.frame, *q.pixel(size[0], size[1])) for q in queries], dtype=torch.int64)
    pool = block.pool if isinstance(block, AttentionBlock) and block.pool is not None else (1, 1, 1)
    keys = _axes(placed, grid, pool, shown)

    def on_grid(values: Tensor) -> Grid:
        """[n, M] -> [n, T', h, w]."""
        return values.float().cpu().numpy().reshape(-1, *keys.shape)

    found = block.attention_maps(x, flat)
    unary = None if found.unary is None else on_grid(found.unary)[0]
    pairwise = None if found.pairwise is None else on_grid(found.pairwise[0])
    logits = None
    if isinstance(block, NonLocalBlock3d):
        parts = decompose(block, x, flat)
        centred = on_grid(parts.unary - parts.unary.mean())[0]
        shares = float(parts.pairwise_share[0]), float(parts.unary_share[0])
        logits = LogitMaps(on_grid(parts.pairwise[0]), centred, *shares)
    return BlockMaps(kind_of(block), block, x, positions, keys, unary, pairwise, logits)


def _axes(placed: PlacedBlock, grid: tuple[int, int, int], pool: Sequence[int], shown: Sequence[int]) -> Positions:
    """Return the places of the windows that pooling makes of a grid of features."""
    centres: list[NDArray[np.float64]] = []
    ends: list[float] = []
    for spacing, offset, count, window in zip(placed.spacing, placed.offset, grid, pool, strict=True):
        window = min(window, count)
        centre = offset + spacing * (window * np.arange(count // window, dtype=np.float64) + (window - 1) / 2)
        centres.append(centre)
        # A window of w positions ends w / 2 positions after its centre. Another half is left to the frame's edge, since
        # position 0 is centred on the first pixel.
        ends.append(float(centre[-1]) + spacing * (window + 1) / 2)
    frames = np.interp(centres[0], np.arange(len(shown)), np.asarray(shown, dtype=np.float64))
    return Positions(frames, centres[1], centres[2], (ends[1], ends[2]))


def _position(at: Positions, frame: int, row: float, column: float) -> int:
    """Return the flat index of the position nearest to a place."""
    nearest_to = [int(np.abs(a - v).argmin()) for a, v in ((at.frames, frame), (at.rows, row), (at.columns, column))]
    return int(np.ravel_multi_index(nearest_to, at.shape))
