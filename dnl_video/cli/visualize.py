"""`dnl-video visualize`: attention maps over the frames of a clip."""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial
from pathlib import Path

from dnl_video.cli.options import add_checkpoint_argument, add_config_options, model_name
from dnl_video.cli.terminal import say
from dnl_video.config import EvaluationConfig
from dnl_video.errors import InputError
from dnl_video.files import check_output, make_folder, write_atomic

DESCRIPTION = """Draw the attention of the context blocks in a clip of a video.

  dnl-video visualize clip.mp4 --checkpoint runs/demo/i3d_dnl
  dnl-video visualize clip.mp4 --checkpoint runs/dnl --compare-to runs/nl          both terms of DNL beside NL
  dnl-video visualize clip.mp4 --checkpoint runs/dnl --query 4,0.5,0.25 --query 0,0.1,0.9 --clip-start 3.2
  dnl-video visualize clip.mp4 --checkpoint runs/dnl --block res3.1 --animation none
  dnl-video visualize clip.mp4 --checkpoint runs/dnl --compare-to runs/nl --html explorer.html

Each block (res3.1 follows residual block 1 of res3) gets a contact sheet: the unary map and the whitened pairwise map
of each query point over the frames of the clip. Colour scales show attention x M: 1 is uniform attention to the M keys.
A non-local network also gets its decomposition (Yin et al., section 3): unary and whitened pairwise logits, and the
share of the logits' variance that each explains. attention.mp4 and attention.gif show all blocks in motion.
--html writes one page instead, the attention explorer: point at a place of a frame to see its maps over all frames.

Frames and places refer to the square centre crop that the network sees; for SlowFast, to its slow pathway."""

_ANIMATIONS = {"both": (".mp4", ".gif"), "mp4": (".mp4",), "gif": (".gif",), "none": ()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("video", metavar="VIDEO", help="The video file.")
    add_checkpoint_argument(parser)
    parser.add_argument("--compare-to", metavar="CHECKPOINT", help="Also draw the maps of this network.")
    parser.add_argument(
        "--query",
        action="append",
        default=[],
        metavar="T,X,Y",
        help="Draw the pairwise map of this place: frame T of the clip, counted from 0 as above the columns of the "
        "sheet; X and Y from 0 (left, top) to 1 (right, bottom) of the crop. May be repeated. "
        "Default: the strongest motion and the centre.",
    )
    parser.add_argument(
        "--clip-start", type=float, metavar="S", help="Start of the clip in seconds. Default: that of a single clip."
    )
    parser.add_argument("--block", action="append", metavar="NAME", help="Draw only this block. May be repeated.")
    parser.add_argument("--animation", choices=tuple(_ANIMATIONS), help="Animations to write. Default: both.")
    parser.add_argument("--fps", type=float, default=4.0, help="Frames per second in motion. Default: 4.")
    add_config_options(parser, EvaluationConfig(), "device")
    parser.add_argument("--output", metavar="DIR", help="Default: attention/MODEL/<folder of VIDEO>/<name of VIDEO>.")
    parser.add_argument("--html", metavar="FILE", help="Write the attention explorer, a page, and no pictures.")


def run(arguments: argparse.Namespace) -> int:
    """Draw the pictures and print their paths."""
    from dnl_video.models.weights.find import find_checkpoint

    if not 0 < arguments.fps <= 50:
        raise InputError(f"--fps is {arguments.fps:g}; give frames per second above 0, at most 50")
    if not Path(arguments.video).exists():
        raise InputError(f"{arguments.video} does not exist; give one video file")
    paths = [find_checkpoint(path) for path in (arguments.checkpoint, arguments.compare_to) if path]
    pictures_only = [f"--{name}" for name in ("animation", "output") if getattr(arguments, name) is not None]
    pictures_only += ["the second --query"] if len(arguments.query) > 1 else []
    if arguments.html and pictures_only:
        raise InputError(f"--html writes one page and no pictures; leave out {' and '.join(pictures_only)}")
    video, networks = Path(arguments.video).resolve(), "-".join(map(model_name, paths))
    output = Path(arguments.html or arguments.output or Path("attention", networks, video.parent.name, video.stem))
    check_output(output, is_file=bool(arguments.html))

    from dnl_video.cli.screen import progress_bar
    from dnl_video.inference.predictor import Predictor
    from dnl_video.visualize.animation import animate, write_animation
    from dnl_video.visualize.clip import parse_query
    from dnl_video.visualize.examine import examine
    from dnl_video.visualize.explorer import explorer_page
    from dnl_video.visualize.panels import save_figure

    queries = [parse_query(text) for text in arguments.query]
    options, start_s = EvaluationConfig(device=arguments.device), arguments.clip_start
    bar = progress_bar(transient=True, disable=not sys.stderr.isatty())
    with bar:
        predictors = [Predictor.from_checkpoint(path, options) for path in bar.track(paths, description="networks")]
        examination = examine(predictors, arguments.video, queries, start_s=start_s, blocks=arguments.block)
    say(examination.caption)
    if arguments.html:
        with bar:
            page = explorer_page(examination, arguments.fps, partial(bar.track, description="maps"))
        make_folder(output.parent)
        write_atomic(output, page)
        say(f"wrote {output}")
        return 0
    make_folder(output)
    for block in examination.blocks:
        figures = {f"{block}.png": examination.sheet(block)}
        for name, figure in examination.decompositions(block):
            suffix = "" if len(paths) == 1 else "-" + re.sub(r"[^\w.-]+", "", name)
            figures[f"{block}-decomposition{suffix}.png"] = figure
        for file, figure in figures.items():
            save_figure(figure, output / file)
            say(f"wrote {output / file}")
    endings = _ANIMATIONS[arguments.animation or "both"]
    if endings:
        with bar:
            shown = examination.networks[0][1].shown
            frames = list(bar.track(animate(examination), len(shown), description="animation"))
        for path in (output / f"attention{ending}" for ending in endings):
            write_animation(path, frames, arguments.fps)
            say(f"wrote {path}")
    return 0
