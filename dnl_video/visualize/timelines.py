"""Pictures of timelines: a plot of scores over seconds, and a copy of the video that shows its best classes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dnl_video.cores import default_workers
from dnl_video.data.decoding import open_video
from dnl_video.data.encoding import write_video
from dnl_video.errors import visible
from dnl_video.inference.segments import Timeline, condense, leading_classes
from dnl_video.visualize.panels import label

Frame = NDArray[np.uint8]

_SCORE, _BEST = "#a9c6ea", "#2166b8"
_MINUTES_FROM_S = 120.0
# More steps than this across the plot would hide each other.
_MOST_CELLS = 150
# Smaller frames are enlarged, so that the text on them is readable.
_SMALLEST_HEIGHT = 240
_WHITE, _FIRST, _OTHERS = (255, 255, 255, 255), (38, 120, 200, 230), (90, 90, 90, 200)


def draw_timeline(timeline: Timeline, class_names: Sequence[str], *, title: str = "", k: int = 5) -> Figure:
    """Plot the scores of the k leading classes (see `leading_classes`) over seconds, a panel for each.

    A timeline of over 150 cells is plotted as 150 means; the axis label says so.

    Args:
        timeline: Scores along time.
        class_names: Names of the K classes.
        title: Title, such as the file's name.
        k: Number of classes.
    """
    leaders, unit = leading_classes(timeline, k), "score"
    if len(timeline.scores) > _MOST_CELLS:
        timeline = condense(timeline, _MOST_CELLS)
        unit = f"score, mean of {timeline.edges[1] - timeline.edges[0]:.3g} s"
    edges, best = timeline.edges, timeline.scores.argmax(axis=1)
    figure = Figure(figsize=(11, 1.3 + 0.55 * len(leaders)), dpi=120, layout="constrained")
    panels = figure.subplots(len(leaders), 1, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, index in zip(panels, leaders, strict=True):
        scores = timeline.scores[:, index]
        axes.stairs(scores, edges, fill=True, color=_SCORE, label=unit)
        axes.stairs(scores * (best == index), edges, fill=True, color=_BEST, label="while it is the best class")
        axes.set(ylim=(0, 1.02), xlim=(edges[0], edges[-1]), yticks=[0, 1])
        axes.set_ylabel(label(_shortened(class_names[index])), rotation=0, ha="right", va="center")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_title(label(title), loc="left", fontsize=10)
    _label_seconds(panels[-1], float(edges[-1]))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return figure


def _label_seconds(axes: Axes, end_s: float) -> None:
    if end_s < _MINUTES_FROM_S:
        axes.set_xlabel("seconds")
        return
    axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda second, _: clock(second)))
    axes.set_xlabel("h:mm:ss" if end_s >= 3600 else "minutes:seconds")


def clock(second: float) -> str:
    """Return a time as m:ss or h:mm:ss."""
    minutes, seconds = divmod(int(second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _shortened(name: str) -> str:
    return name if len(name) <= 32 else name[:31] + "…"


def annotate_video(
    source: str | Path,
    target: str | Path,
    timeline: Timeline,
    class_names: Sequence[str],
    *,
    k: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a copy of a video, without sound, that shows the k best classes at each time; memory is constant.

    Frames keep their times, except in .avi.

    Args:
        source: The video.
        target: File to write; its suffix chooses the container, such as .mp4.
        timeline: Scores along time.
        class_names: Names of the K classes.
        k: Number of classes to show.
        progress: Called with (frames done, frames of the video).

    Raises:
        VideoDecodeError: The video cannot be decoded.
        InputError: The target cannot be written.
    """

    def annotated() -> Iterator[Frame]:
        shown, panel = None, None
        for number, frame in enumerate(frame for chunk in chunks for frame in chunk):
            second = video.times_s[number]
            image = _enlarged(frame)
            now = timeline.cell_at(second), int(second)
            if panel is None or now != shown:
                shown = now
                height, width = image.shape[:2]
                panel = draw_panel(timeline.scores[now[0]], class_names, k, width, height, title=clock(second))
            yield _blend(image, panel)
            if progress is not None:
                progress(number + 1, video.num_frames)

    with open_video(source) as video:
        chunks = video.stream(np.arange(video.num_frames), threads=default_workers(None))
        times_s = video.times_s if video.has_variable_rate else None
        write_video(target, annotated(), video.fps, times_s=times_s, options={"preset": "veryfast"})


def _enlarged(frame: Frame) -> Frame:
    """Return a copy of at least the smallest height, with even sides (for yuv420p)."""
    times = -(-_SMALLEST_HEIGHT // frame.shape[0])
    image = frame.repeat(times, axis=0).repeat(times, axis=1)
    return image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2].copy()


def draw_panel(
    scores: NDArray[np.floating], class_names: Sequence[str], k: int, width: int, height: int, *, title: str
) -> Frame:
    """Draw the k best classes with bars of their scores [K] below a title, for the lower left of a frame.

    Returns:
        RGBA, uint8 [h, w, 4], at most as large as the frame (``width`` x ``height`` pixels).
    """
    size = max(min(height // 22, width // 22), 11)
    line, pad = size * 3 // 2, size // 2
    best = np.argsort(-scores, kind="stable")[: min(k, height // line - 1)].tolist()
    panel = Image.new("RGBA", (min(width, 20 * size), (len(best) + 1) * line + pad), (0, 0, 0, 150))
    draw, font = ImageDraw.Draw(panel), _font(size)
    room = panel.width - 3 * pad - round(draw.textlength("100%", font=font))
    draw.text((pad, pad // 2 + line // 2), title, _WHITE, font, "lm")
    for row, index in enumerate(best, start=1):
        top = pad // 2 + row * line
        length = round((panel.width - 2) * float(np.clip(scores[index], 0, 1)))
        draw.rectangle((1, top + 1, 1 + length, top + line - 2), fill=_FIRST if row == 1 else _OTHERS)
        draw.text((pad, top + line // 2), _fitting(visible(class_names[index]), draw, font, room), _WHITE, font, "lm")
        draw.text((panel.width - pad, top + line // 2), f"{100 * scores[index]:.0f}%", _WHITE, font, "rm")
    return np.asarray(panel)[:height]


def _blend(image: Frame, panel: Frame) -> Frame:
    """Draw a panel over an image's lower left, in place."""
    height, width = panel.shape[:2]
    under = image[-height:, :width].astype(np.float32)
    alpha = panel[..., 3:] / np.float32(255)
    image[-height:, :width] = (under + alpha * (panel[..., :3] - under)).round().astype(np.uint8)
    return image


def _fitting(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, room: int) -> str:
    if draw.textlength(text, font=font) <= room:
        return text
    while text and draw.textlength(text + "…", font=font) > room:
        text = text[:-1]
    return text + "…"


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib ships this font on every platform.
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
