"""`dnl-video convert`: turns weights of other projects into one file of this package."""

from __future__ import annotations

import argparse
from typing import get_args

from dnl_video.cli.options import add_output_file_argument
from dnl_video.cli.recipes import parse_setting
from dnl_video.cli.terminal import say, suggest
from dnl_video.spec import Architecture

DESCRIPTION = """Turn weights of other projects into a file that `predict`, `evaluate` and `train` read.

SOURCE is recognised by its content, not by its name: pytorchvideo's hub, PySlowFast (.pyth and caffe2 .pkl), mmaction2,
ImageNet ResNets (torchvision, timm), or this package's own.

examples:
  dnl-video convert SLOWONLY_8x8_R50.pkl --output slow.safetensors --num-frames 8 --frame-stride 8 \\
      --classes kinetics400
  dnl-video convert kinetics400 --output slowfast.safetensors --architecture slowfast_r50 \\
      --num-frames 32 --frame-stride 2
  dnl-video convert resnet50.pth --output i3d.safetensors --architecture i3d_r50       a backbone to train from
  dnl-video convert i3d_nl.pth --output i3d.safetensors --num-frames 32 --frame-stride 2 \\
      --set model.context_options.attention=dot_product

Some settings are not in the file, such as those of the clips. The command takes and prints the defaults of the file's
project; --set changes any of them, with the names of a recipe."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", metavar="SOURCE", help="A weights file, or a published name such as kinetics400.")
    add_output_file_argument(parser)
    parser.add_argument("--architecture", choices=get_args(Architecture), help="The network, if it is not in the file.")
    parser.add_argument("--num-frames", type=int, metavar="T", help="Frames of a clip.")
    parser.add_argument("--frame-stride", type=int, metavar="N", help="Distance between frames of a clip.")
    parser.add_argument(
        "--classes", metavar="FILE", help="Class names in the order of the outputs: one per line, JSON, or kinetics400."
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Any setting of model or preprocessing, for example model.head=global; can be repeated.",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert a file; print its network, its clips and the defaults used."""
    from dnl_video.data.class_lists import read_class_list
    from dnl_video.models.weights.find import check_out, find_weights

    check_out(arguments.output)
    find_weights(arguments.source)
    settings = dict(map(parse_setting, arguments.set))
    for name in ("num_frames", "frame_stride"):
        if getattr(arguments, name) is not None:
            settings[f"preprocessing.{name}"] = getattr(arguments, name)
    names = None if arguments.classes is None else read_class_list(arguments.classes)
    from dnl_video.models.weights.convert import convert_weights
    from dnl_video.models.weights.export import export_model

    checkpoint, report = convert_weights(
        arguments.source, architecture=arguments.architecture, class_names=names, settings=settings
    )
    written = export_model(checkpoint, arguments.output)
    say(report.text())
    spec, clips = checkpoint.spec, checkpoint.preprocessing
    say(
        f"{spec.architecture} with context {spec.context}, "
        + ("no classifier" if checkpoint.backbone_only else f"{spec.num_classes} classes, head {spec.head}")
        + f"\nclips: {clips.num_frames} frames, stride {clips.frame_stride}, sampling {clips.sampling}, "
        f"{clips.channel_order}, mean {_numbers(clips.mean)}, std {_numbers(clips.std)}, crop {clips.crop_size}, "
        f"rounding {clips.rounding}, {'' if clips.antialias else 'not '}antialiased"
    )
    if names is None and checkpoint.class_names[:2] == ("0", "1"):
        say("the file names no classes; they are numbers until --classes names them")
    say(*(f"wrote {path}" for path in written))
    if checkpoint.backbone_only:
        suggest("train", "--config", "RECIPE", "--weights.source", arguments.output)
    else:
        suggest("predict", "VIDEO", "--checkpoint", arguments.output)
    return 0


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{v:.4g}" for v in values) + "]"
