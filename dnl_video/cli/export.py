"""`dnl-video export`: writes a trained network as one self-contained file."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from dnl_video.cli.options import add_checkpoint_argument, add_output_file_argument
from dnl_video.cli.terminal import say, suggest
from dnl_video.errors import InputError
from dnl_video.files import walk

if TYPE_CHECKING:
    from dnl_video.models.weights.checkpoint import Checkpoint

DESCRIPTION = """Write a trained network as one file: weights, architecture, class names, clips and normalisation.

`predict`, `evaluate` and `train --weights.source` take the file as it is. It holds a checksum. A model card (Markdown)
is written beside it.

examples:
  dnl-video export --checkpoint runs/demo/i3d_dnl --output model.safetensors          and model.md
  dnl-video export --checkpoint runs/demo/i3d_dnl --output hub/i3d_dnl                a folder for the Hugging Face hub
  dnl-video export --checkpoint runs/demo/i3d_dnl --output hub/i3d_dnl --push-to-hub USER/REPOSITORY
  dnl-video export --checkpoint runs/demo/i3d_dnl --output model.safetensors --onnx   and model.onnx, checked"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_checkpoint_argument(parser)
    add_output_file_argument(parser)
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="Also write a .onnx file, for any batch size, and compare it with the network.",
    )
    parser.add_argument(
        "--torch-export", action="store_true", help="Also write a .pt2 file, a program for torch.export.load."
    )
    parser.add_argument(
        "--push-to-hub",
        metavar="USER/REPOSITORY",
        help="Also upload the folder of --output to the Hugging Face hub (needs the extra hub, and `hf auth login`).",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, and print the files written."""
    from dnl_video.models.weights.find import EXPORTED_NAME, check_out, find_checkpoint

    folder, repository = check_out(arguments.output), arguments.push_to_hub
    file = find_checkpoint(arguments.checkpoint)
    from dnl_video.models.weights.checkpoint import load_checkpoint
    from dnl_video.models.weights.export import export_model

    if repository:
        from dnl_video.models.weights.huggingface import require_hub, upload

        if not folder:
            raise InputError(f"--push-to-hub uploads a folder; give --output a folder in place of {arguments.output}")
        require_hub(repository)
    if arguments.onnx:
        from dnl_video.models.runtime.program_export import require_onnx

        require_onnx()
    checkpoint = load_checkpoint(file)
    written = export_model(checkpoint, arguments.output, results=_results(checkpoint), repository=repository or "")
    say(*(f"wrote {path}" for path in written))
    file = Path(arguments.output, EXPORTED_NAME) if folder else Path(arguments.output)
    if arguments.onnx or arguments.torch_export:
        _write_programs(checkpoint, file, onnx=arguments.onnx, program=arguments.torch_export)
    if repository:
        say(f"uploaded to {upload(arguments.output, repository)}")
    suggest("predict", "VIDEO", "--checkpoint", arguments.output)
    return 0


def _write_programs(checkpoint: Checkpoint, file: Path, *, onnx: bool, program: bool) -> None:
    from dnl_video.models.runtime.program_export import export_onnx, export_program

    for wanted, export, suffix in ((program, export_program, ".pt2"), (onnx, export_onnx, ".onnx")):
        if wanted:
            difference = export(checkpoint, file.with_suffix(suffix))
            say(f"wrote {file.with_suffix(suffix)} (largest difference of logits {difference:.1e} of the largest)")


def _results(checkpoint: Checkpoint) -> str:
    """Return the accuracy of these weights from the reports in the run's folder, in Markdown."""
    from dnl_video.report import headline

    folder = Path(checkpoint.path).resolve().parent
    run = folder.parent if folder.name == "checkpoints" else folder
    lines = []
    for file in sorted(Path(folder, "report.json") for folder, _, files in walk(run) if "report.json" in files):
        # A file of this name that is no report of this package is left out.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            report = json.loads(file.read_bytes())
            if report["weights"]["sha256"] == checkpoint.sha256 and report["protocol"]["frame_order"] == "natural":
                lines.append(f"- {headline(report)} Videos: {Path(report['manifest']['source']).name}.")
    return "\n".join(lines)
