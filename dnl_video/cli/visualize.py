"""`dnl-video visualize`: attention maps over the frames of a clip."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dnl_video.cli.options import add_checkpoint_argument, add_config_options
from dnl_video.config import EvaluationConfig
from dnl_video.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

DESCRIPTION = """Draw what the attention blocks attend to in a clip of a video.

  dnl-video visualize clip.mp4 --checkpoint runs/demo/i3d_dnl
  dnl-video visualize clip.mp4 --checkpoint runs/dnl --compare-to runs/nl          DNL's two terms beside NL's one
  dnl-video visualize clip.mp4 --checkpoint runs/dnl --query 4,0.5,0.25 --query 0,0.1,0.9 --clip-start 3.2
  dnl-video visualize clip.mp4 --checkpoint runs/dnl --block res3.1 --animation none

For each block (res3.1 is the one behind residual block 1 of res3) a contact sheet with the unary map and the whitened
pairwise map of each query point over the clip's frames, stretched to the frame, with colour scales in attention x M:
1 is what each of the M keys would get if all got the same. For a non-local network also its decomposition (Yin et al.,
section 3): unary and whitened pairwise logits, and the share of the logits' variance that each explains. All blocks
together move in attention.mp4 and attention.gif.

Frames and places are those of the square centre crop that the network sees; of SlowFast, of its slow pathway."""

_ANIMATIONS = {"both": (".mp4", ".gif"), "mp4": (".mp4",), "gif": (".gif",), "none": ()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("video", metavar="VIDEO", help="The video file.")
    add_checkpoint_argument(parser)
    parser.add_argument("--compare-to", metavar="CHECKPOINT", help="Draw this network's maps beside.")
    parser.add_argument(
        "--query",
        action="append",
        default=[],
        metavar="T,X,Y",
        help="Draw the pairwise map of this place: T is the clip's frame, counted from 0 as above the sheet's columns; "
        "X and Y go from 0 (left, top) to 1 (right, bottom) of the crop. May be given several times. "
        "Default: the strongest motion and the centre.",
    )
    parser.add_argument(
        "--clip-start", type=float, metavar="S", help="Second at which the clip starts; default: that of a single clip."
    )
    parser.add_argument("--block", action="append", metavar="NAME", help="Draw only this block; several times: these.")
    parser.add_argument(
        "--animation", choices=tuple(_ANIMATIONS), default="both", help="Moving pictures to write (%(default)s)."
    )
    parser.add_argument("--fps", type=float, default=4.0, help="Frames a second of the animation (%(default)s).")
    add_config_options(parser, EvaluationConfig(), "device")
    parser.add_argument("--output", metavar="DIR", help="Folder for the pictures; default: attention/<name of VIDEO>.")


def run(arguments: argparse.Namespace) -> int:
    """Draw, and name the files."""
    from dnl_video.inference.predictor import Predictor
    from dnl_video.visualize.animation import animate, write_animation
    from dnl_video.visualize.examine import examine
    from dnl_video.visualize.queries import parse_query

    if not 0 < arguments.fps <= 50:
        raise InputError(f"--fps is {arguments.fps:g}; give frames a second above 0, 50 at most")
    queries = [parse_query(text) for text in arguments.query]
    paths = [arguments.checkpoint] + ([arguments.compare_to] if arguments.compare_to else [])
    predictors = [Predictor.from_checkpoint(path, EvaluationConfig(device=arguments.device)) for path in paths]
    examination = examine(
        predictors, arguments.video, queries, start_s=arguments.clip_start, blocks=arguments.block or None
    )
    output = _made(Path(arguments.output or Path("attention") / Path(arguments.video).stem))
    print(examination.caption)
    for block in examination.blocks:
        _save(examination.sheet(block), output / f"{block}.png")
        for name, figure in examination.decompositions(block):
            suffix = "" if len(paths) == 1 else "-" + name.replace(" ", "").replace("(", "").replace(")", "")
            _save(figure, output / f"{block}-decomposition{suffix}.png")
    endings = _ANIMATIONS[arguments.animation]
    pictures = _with_bar(animate(examination), len(examination.networks[0][1].shown)) if endings else []
    for ending in endings:
        path = output / f"attention{ending}"
        write_animation(path, pictures, arguments.fps)
        print(f"wrote {path}")
    return 0


def _with_bar(frames: Iterator[NDArray[np.uint8]], total: int) -> list[NDArray[np.uint8]]:
    import sys

    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    quiet = not sys.stderr.isatty()
    return list(track(frames, "animation", total, console=console, transient=True, disable=quiet))


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}; choose another --output") from error
    return folder


def _save(figure: Figure, path: Path) -> None:
    from dnl_video.files import atomic_path

    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    print(f"wrote {path}")
