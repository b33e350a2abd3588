"""A copy of a video with the current best classes drawn on it, in constant memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dnl_video.cores import default_workers
from dnl_video.data.decoding import open_video
from dnl_video.data.encoding import write_video
from dnl_video.inference.segments import Timeline
from dnl_video.visualize.timeline_picture import clock

Frame = NDArray[np.uint8]
# Smaller frames are enlarged: text on them could not be read.
_SMALLEST_HEIGHT = 240
_WHITE, _FIRST, _OTHERS = (255, 255, 255, 255), (38, 120, 200, 230), (90, 90, 90, 200)


def annotate_video(
    source: str | Path,
    target: str | Path,
    timeline: Timeline,
    class_names: Sequence[str],
    *,
    k: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a copy of a video, without sound, that shows the k best classes of each moment.

    Args:
        source: The video.
        target: File to write; its suffix chooses the container, such as .mp4.
        timeline: Scores along time.
        class_names: Names of the K classes.
        k: Classes to show.
        progress: Called with (frames done, frames of the video).

    Raises:
        VideoDecodeError: The video cannot be decoded.
        InputError: The target cannot be written.
    """
    with open_video(source) as video:
        chunks = video.stream(np.arange(video.num_frames), threads=default_workers(None))
        drawn = _drawn((frame for chunk in chunks for frame in chunk), video.fps, timeline, class_names, k)
        write_video(
            target,
            _counted(drawn, video.num_frames, progress),
            Fraction(video.fps).limit_denominator(1001),
            options={"preset": "veryfast"},
        )


def _drawn(
    frames: Iterator[Frame], fps: float, timeline: Timeline, class_names: Sequence[str], k: int
) -> Iterator[Frame]:
    """Yield frames of even size with the panel of their moment."""
    shown, panel = None, None
    for number, frame in enumerate(frames):
        second = number / fps
        image = _prepared(frame)
        if panel is None or (timeline.cell_at(second), int(second)) != shown:
            shown = timeline.cell_at(second), int(second)
            height, width = image.shape[:2]
            panel = draw_panel(timeline.scores[shown[0]], class_names, k, width, height, title=clock(second))
        yield _blend(image, panel)


def _counted(frames: Iterator[Frame], total: int, progress: Callable[[int, int], None] | None) -> Iterator[Frame]:
    for done, frame in enumerate(frames, start=1):
        yield frame
        if progress is not None:
            progress(done, total)


def _prepared(frame: Frame) -> Frame:
    """Return a copy of at least the smallest height, its sides even, as yuv420p needs them."""
    times = -(-_SMALLEST_HEIGHT // frame.shape[0])
    image = frame.repeat(times, axis=0).repeat(times, axis=1)
    return image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2].copy()


def draw_panel(
    scores: NDArray[np.floating], class_names: Sequence[str], k: int, width: int, height: int, *, title: str
) -> Frame:
    """Draw the k best classes with bars of their scores, as an RGBA panel to lay over a frame's lower left.

    Args:
        scores: Scores, [K].
        class_names: Names of the K classes.
        k: Classes to show.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.
        title: First line, such as the time.

    Returns:
        uint8 [h, w, 4], no larger than the frame.
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
        draw.text((pad, top + line // 2), _fitting(class_names[index], draw, font, room), _WHITE, font, "lm")
        draw.text((panel.width - pad, top + line // 2), f"{100 * scores[index]:.0f}%", _WHITE, font, "rm")
    return np.asarray(panel)[:height]


def _blend(image: Frame, panel: Frame) -> Frame:
    """Lay a panel over an image's lower left, in place."""
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
    # matplotlib brings this font on every platform.
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
