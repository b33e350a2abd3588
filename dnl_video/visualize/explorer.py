"""The attention explorer: one HTML page with the maps of every query of a clip."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dnl_video.errors import InputError, visible
from dnl_video.visualize.clip import Query
from dnl_video.visualize.examine import Examination
from dnl_video.visualize.maps import BlockMaps
from dnl_video.visualize.panels import nearest_frame

MAX_PAGE_BYTES = 10_000_000
# Weights of a block before compression: the bytes that the browser needs for it.
_MOST_WEIGHTS = 2**24


def explorer_page(examination: Examination, fps: float = 4, track: Callable[[list[str]], Iterable[str]] = iter) -> str:
    """Return the page of a clip: the maps of all queries in all blocks of the examined networks.

    A map has 8 bits per key: ``weight = byte / 255 * largest weight of the map``. A page over `MAX_PAGE_BYTES` gets
    fewer queries, evenly in height and width, in the blocks with the finest grid first, and says so.

    Args:
        examination: The clip and the networks; its first query is the one at the start.
        fps: Frames per second of the player.
        track: Called with the blocks to store; yields them and may show progress.

    Raises:
        InputError: The page would be too large.
    """
    clip, shown, networks = examination.clip, examination.networks[0][1].shown, examination.networks
    start = (examination.queries or [Query(shown[0], 0.5, 0.5)])[0]
    facts = {
        "size": clip.frames.shape[1:3],
        "numbers": shown,
        "seconds": clip.seconds[shown].tolist(),
        "fps": fps,
        "colours": (mpl.colormaps["inferno"](np.arange(256))[:, :3] * 255).round().tolist(),
        "query": [shown.index(nearest_frame(shown, start.frame)), start.x, start.y],
    }
    page = Path(__file__).with_name("explorer.html").read_text(encoding="utf-8").replace("{{facts}}", json.dumps(facts))
    pictures = "".join(_picture(clip.frames[frame]) for frame in shown)
    caption = html.escape(visible("; ".join(filter(None, (examination.caption, examination.legend)))))
    page = page.replace("{{pictures}}", pictures).replace("{{caption}}", caption)
    grids = [(b.positions.shape, b.keys.shape) for _, maps in networks for b in maps.blocks.values()]
    widest = max(max(queries[1:]) for queries, _ in grids)
    most = max(math.prod(queries) * math.prod(keys) for queries, keys in grids)
    across = int(widest * min(1, math.sqrt(_MOST_WEIGHTS / most)))  # most queries in a row and in a column
    while across > 0:
        elements = ""
        for name in track(examination.blocks):
            # All networks have the same queries of a block, so that their maps can be compared.
            stored = [_stored(network, maps.blocks[name], across) for network, maps in networks]
            # A network's name such as </script> must not end the element.
            text = json.dumps(stored).replace("<", "\\u003c")
            elements += f'<script type="application/json" class="maps" id="{name}">{text}</script>\n'
        size = len(page.encode()) + len(elements)
        if size <= MAX_PAGE_BYTES:
            return page.replace("{{maps}}", elements)
        across = min(across - 1, int(across * math.sqrt(MAX_PAGE_BYTES / size)))
    raise InputError(f"the page needs over {MAX_PAGE_BYTES / 1e6:g} MB, its limit; name fewer blocks")


@torch.inference_mode()
def _stored(network: str, found: BlockMaps, across: int) -> dict[str, Any]:
    """Return what the page needs of a block, with at most ``across`` queries in height and in width."""
    at, (frames, height, width) = found.positions, found.positions.shape
    rows, columns = ((np.arange(k := min(n, across)) * n + n // 2) // k for n in (height, width))
    flat = torch.arange(frames * height * width).view(frames, height, width)[:, rows][:, :, columns].flatten()
    name = "coupled" if found.kind == "NL" else "whitened pairwise"
    parts: dict[str, list[dict[str, Tensor]]] = defaultdict(list)
    for queries in flat.split(max(_MOST_WEIGHTS // 4 // math.prod(found.keys.shape), 1)):  # to need little memory
        pairwise, unary = found.block.attention_maps(found.x, queries)
        if pairwise is not None:
            parts[name].append(_quantised(pairwise[0]))
        if unary is not None:
            parts["unary"] = [_quantised(unary)]
        if pairwise is not None and unary is not None:
            parts["sum"].append({"entropy": _entropy((pairwise[0] + unary) / 2)})
    sizes = [" \u00d7 ".join(map(str, s)) for s in ((frames, len(rows), len(columns)), at.shape, found.keys.shape)]
    return {
        "title": network,
        "note": "{} has {} of {} queries (T \u00d7 H \u00d7 W) and M = {} keys.".format(network, *sizes),
        "queries": {"frames": [*at.frames], "rows": [*at.rows[rows]], "columns": [*at.columns[columns]]},
        "keys": {axis: [*places] for axis, places in vars(found.keys).items()},
        "terms": {
            term: {key: _encoded(torch.cat([one[key] for one in chunks])) for key in chunks[0]}
            for term, chunks in parts.items()
        },
    }


def _quantised(weights: Tensor) -> dict[str, Tensor]:
    """Return what the page needs of maps [Q, M]."""
    largest = weights.amax(dim=1, keepdim=True)
    levels = (weights / largest * 255).round().to(torch.uint8)
    return {"entropy": _entropy(weights), "largest": largest.float(), "levels": levels}


def _entropy(weights: Tensor) -> Tensor:
    """Return the entropy of maps [Q, M] divided by log M: 1 is uniform, 0 is a single key."""
    return (torch.special.entr(weights).sum(dim=1) / math.log(max(weights.shape[1], 2))).clamp(0, 1).float()


def _encoded(values: Tensor) -> str:
    return base64.b64encode(zlib.compress(values.cpu().numpy().tobytes())).decode()


def _picture(frame: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="jpeg", quality=85)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
