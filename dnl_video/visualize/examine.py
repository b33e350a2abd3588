"""Attention of one or two networks in a clip, for the command `visualize` and for `draw_attention`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from dnl_video.errors import InputError
from dnl_video.inference.predictor import Predictor
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.inspect.geometry import pathway_frames
from dnl_video.naming import differing_settings, network_names, settings_text
from dnl_video.visualize.clip import Clip, Query, checked_queries, default_queries, read_clip, refuse_other_clips
from dnl_video.visualize.maps import ClipMaps, clip_maps, drawable_blocks
from dnl_video.visualize.panels import Row, attention_rows, logit_rows
from dnl_video.visualize.sheets import draw_sheet


@dataclass(frozen=True)
class Examination:
    """One clip with the attention of one or two networks."""

    clip: Clip
    queries: list[Query]  # empty if no network has a map that depends on them
    networks: list[tuple[str, ClipMaps]]  # the name in pictures, and the maps, of each network
    legend: str = ""  # settings in which two networks differ

    @property
    def blocks(self) -> list[str]:
        """Blocks that all networks have, in order."""
        first, *others = (maps.blocks for _, maps in self.networks)
        return [name for name in first if all(name in other for other in others)]

    @property
    def caption(self) -> str:
        """Name and time of the clip, and the prediction of each network."""
        found = [(name, *maps.prediction) for name, maps in self.networks]
        predictions = "; ".join(f"{name} predicts {best} ({probability:.0%})" for name, best, probability in found)
        return f"{self.clip.name}, {self.clip.seconds.min():.2f} to {self.clip.end_s:.2f} s; {predictions}"

    def rows(self, block: str) -> list[Row]:
        """Return the maps of a block."""
        return attention_rows([(name, maps.blocks[block]) for name, maps in self.networks], self.queries)

    def sheet(self, block: str) -> Figure:
        """Draw the maps of a block over the frames."""
        kind = self.networks[0][1].kind
        shared = "" if any(kind in name for name, _ in self.networks) else f"{kind} "
        title = f"{block}: {shared}attention of {' and '.join(name for name, _ in self.networks)}"
        grids = {maps.blocks[block].keys.shape: name for name, maps in self.networks}
        keys = [f"M = {math.prod(g)} keys (T \u00d7 H \u00d7 W = {g[0]} \u00d7 {g[1]} \u00d7 {g[2]})" for g in grids]
        if len(grids) > 1:
            keys = [f"{text} in {name}" for text, name in zip(keys, grids.values(), strict=True)]
        return self._draw(self.rows(block), title, ", ".join(keys))

    def decompositions(self, block: str) -> list[tuple[str, Figure]]:
        """Draw the paper's decomposition for each non-local network; return names and figures."""
        figures = []
        for name, maps in self.networks:
            found = maps.blocks[block]
            if found.logits is not None:
                title = f"{block} of {name}: the coupled logits split into a unary and a whitened pairwise term"
                figure = self._draw(logit_rows(found, self.queries), title, "shares are over all queries")
                figures.append((name, figure))
        return figures

    def _draw(self, rows: Sequence[Row], title: str, note: str) -> Figure:
        text = "; ".join(filter(None, (self.caption, self.legend, note)))
        return draw_sheet(self.clip, rows, self.queries, title=title, note=text)


def examine(
    predictors: Sequence[Predictor],
    video: str | os.PathLike[str],
    queries: Sequence[Query] = (),
    *,
    start_s: float | None = None,
    blocks: Sequence[str] | None = None,
) -> Examination:
    """Run one or two networks on a clip of a video and collect the attention maps of ``blocks`` (None: of all).

    See `draw_attention` for the other arguments.

    Raises:
        InputError: The networks, the queries or the clip do not fit.
    """
    first = predictors[0]
    for predictor in predictors:
        drawable_blocks(predictor)
        refuse_other_clips(first.preprocessing, predictor.preprocessing)
    clip = read_clip(video, first.preprocessing, start_s)
    assert isinstance(first.network, VideoClassifier)
    shown = pathway_frames(first.network, len(clip.frames))
    chosen = checked_queries(queries or default_queries(clip.frames, shown), len(clip.frames))
    found = [clip_maps(predictor, clip, chosen, blocks) for predictor in predictors]
    kinds = [maps.kind for maps in found]
    if all(block.pairwise is None for maps in found for block in maps.blocks.values()):
        if queries:
            raise InputError(
                f"a query was given, but maps of {' and '.join(kinds)} are the same for every query; leave it out"
            )
        chosen = []
    names, legend = describe_networks(predictors, kinds)
    examination = Examination(clip, chosen, list(zip(names, found, strict=True)), legend)
    if not examination.blocks:
        places = " and ".join(", ".join(maps.blocks) for maps in found)
        raise InputError(f"the two networks have no block at the same place ({places}); compare networks that do")
    return examination


def describe_networks(predictors: Sequence[Predictor], kinds: Sequence[str]) -> tuple[list[str], str]:
    """Return the names of networks of these kinds, such as DNL, and a text with the settings in which they differ."""
    facts = [{**p.facts, "model": kind} for p, kind in zip(predictors, kinds, strict=True)]
    names, settings = network_names(facts), map(settings_text, differing_settings(facts))
    return names, "; ".join(f"{name}: {text}" for name, text in zip(names, settings, strict=True) if text)


def draw_attention(
    predictor: Predictor,
    video: str | os.PathLike[str],
    *,
    compare_to: Predictor | None = None,
    queries: Sequence[tuple[int, float, float]] = (),
    block: str | None = None,
    clip_start_s: float | None = None,
) -> Figure:
    """Draw the attention of a context block in a clip: frames across, maps down.

    Args:
        predictor: The network.
        video: The video file.
        compare_to: A second network, drawn beside the first.
        queries: Places (t, x, y) whose pairwise maps to draw: frame of the clip, and x and y from 0 (left, top) to 1.
            Default: the strongest motion and the centre.
        block: Block such as ``res3.1`` (after residual block 1 of res3); None is the network's last.
        clip_start_s: Start of the clip in seconds; None is the middle of the video (under `stride`).

    Returns:
        A matplotlib figure; ``savefig`` writes it.

    Raises:
        InputError: The networks, the queries or the clip do not fit.
    """
    predictors = [predictor] if compare_to is None else [predictor, compare_to]
    points = [Query(*point) for point in queries]
    blocks = None if block is None else [block]
    examination = examine(predictors, video, points, start_s=clip_start_s, blocks=blocks)
    return examination.sheet(examination.blocks[-1])
