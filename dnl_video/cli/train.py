"""`dnl-video train`: a recipe and overrides in, a trained network out."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter

from dnl_video.config import TrainConfig
from dnl_video.errors import InputError, Terminated, nearest

if TYPE_CHECKING:
    from dnl_video.training.run import TrainResult

DESCRIPTION = """Train a network on Kinetics clips.

A recipe is one complete YAML file; any of its values can be given on the command line by its dotted name.

  dnl-video train --config configs/demo/i3d_dnl.yaml --final-test
  dnl-video train --config configs/kinetics400/slow_r50_8x8_dnl.yaml --data.train_root /data/k400/train
  dnl-video train --config RECIPE --model.context nl --output_dir runs/nl    non-local blocks instead
  dnl-video train --config RECIPE --weights.source kinetics400               start from published weights, or a file
  dnl-video train --config RECIPE --dry-run                                  check everything in a minute
  dnl-video train --config RECIPE --resume                                   go on where the run stopped
  dnl-video train --config RECIPE --resume auto                              the same, or start: for jobs that requeue
  torchrun --nproc_per_node 8 -m dnl_video train --config RECIPE             eight GPUs
  dnl-video train --config RECIPE --trainer.devices 8                        the same, by Lightning's launcher
"""


class FORMATTER(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keep the examples' lines; show every default."""


class PARSER(ArgumentParser):
    """jsonargparse's parser with one-line errors that name the key and the nearest valid one."""

    command = "dnl-video train"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(exit_on_error=False, **kwargs)

    def parse_args(self, args: Sequence[str] | None = None, **options: Any) -> Any:  # type: ignore[override]
        """Take ``--output``, the name of this option in the other commands, for ``--output_dir``."""
        words = [re.sub(r"^--output(?==|$)", "--output_dir", word) for word in (sys.argv[1:] if args is None else args)]
        return super().parse_args(words, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage."""
        raise InputError(_one_line(message, self.keys(), self.command)) from ex

    def keys(self) -> list[str]:
        """Return every dotted name a recipe may hold."""
        return [a.dest for a in self._actions if "." in a.dest or a.dest in ("seed", "output_dir")]


def add_arguments(parser: PARSER) -> None:
    """Add the options, and every field of `TrainConfig` by its dotted name."""
    parser.add_argument("--config", action=RecipeFile, metavar="YAML", help="Recipe to start from.")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="last",
        metavar="CKPT",
        help="Go on from the run's last checkpoint, or from CKPT; 'auto' starts anew where there is none.",
    )
    parser.add_argument("--dry-run", action="store_true", help="Check lists, files, decoding and memory; keep nothing.")
    parser.add_argument(
        "--final-test", action="store_true", help="End with the multi-view evaluation of the best checkpoint."
    )
    parser.add_argument("--limit-videos", type=int, metavar="N", help="Use N videos of each list.")
    parser.add_class_arguments(TrainConfig, None)


def run(arguments: Any) -> int:
    """Train; with --final-test also evaluate and report."""
    options = {name: arguments.pop(name) for name in ("config", "resume", "dry_run", "final_test", "limit_videos")}
    parser = PARSER()
    parser.add_class_arguments(TrainConfig, None)
    config = TrainConfig(**vars(parser.instantiate(arguments)))
    if options["limit_videos"] is not None:
        config.data.limit_videos = options["limit_videos"]
        config.data.__post_init__()

    from dnl_video.inference.device import check_cpu_precision, resolve_device
    from dnl_video.training.run import dry_run, train

    if resolve_device(config.evaluation.device, "evaluation.device").type == "cpu":
        check_cpu_precision(config.evaluation.precision, "--evaluation.precision")
    accelerator = config.trainer.accelerator
    device = resolve_device("auto" if accelerator == "gpu" else accelerator, "trainer.accelerator")
    if accelerator == "gpu" and device.type == "cpu":
        raise InputError("trainer.accelerator 'gpu' is not available here; available: cpu")
    if device.type == "cpu":
        check_cpu_precision(config.trainer.precision, "--trainer.precision")
    if options["dry_run"]:
        facts = dry_run(config)
        for name, value in facts.items():
            print(f"{name:<24} {value:.3f}" if isinstance(value, float) else f"{name:<24} {value:,}")
        if facts:
            print("dry run passed: lists, decoding, one short epoch, validation and a checkpoint all work")
        return 0
    from dnl_video.training.stopping import StopRequest

    words = ""
    try:
        # One for both, so that processes which Lightning's launcher started hear of a stop in the final test, too.
        with StopRequest() as request:
            result = train(config, resume=options["resume"], request=request)
            _say_what_is_next(config, result, final_test=options["final_test"])
            if not options["final_test"]:
                return 0
            words = " --final-test"
            return _final_test(config, str(result.best_checkpoint), result.rank, result.world_size)
    except (KeyboardInterrupt, Terminated) as stop:
        _say_how_to_go_on(config, stop, words)
        raise


def _say_what_is_next(config: TrainConfig, result: TrainResult, *, final_test: bool) -> None:
    if result.rank == 0:
        print(f"best validation top-1 {100 * result.best_top1:.1f}%: {result.best_checkpoint}")
        if not final_test:
            print(f"next: dnl-video evaluate --checkpoint {config.output_dir} --manifest {config.data.val_manifest}")


def _say_how_to_go_on(config: TrainConfig, stop: KeyboardInterrupt | Terminated, words: str = "") -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    if any(Path(config.output_dir, "checkpoints").glob("*.ckpt")):
        how = f"stopped by {stop.signum.name}" if isinstance(stop, Terminated) else "interrupted"
        saved = stop.saved if isinstance(stop, Terminated) else str(stop)
        command = f"dnl-video train --config {config.output_dir}/config.yaml --resume{words}"
        rank_zero_only(print)(f"{how}; {saved}{saved and '; '}go on with: {command}", flush=True)


def _final_test(config: TrainConfig, checkpoint: str, rank: int, world_size: int) -> int:
    from dnl_video.cli.evaluate import evaluate
    from dnl_video.cli.report import report_directory
    from dnl_video.training.collectives import wait_for_all

    # A folder for each checkpoint: a run that is extended may have another best one.
    predictions = Path(config.output_dir) / "evaluation" / Path(checkpoint).stem
    evaluate(
        checkpoint,
        config.data.val_manifest,
        predictions,
        config.evaluation,
        root=config.data.val_root,
        limit_videos=config.data.limit_videos,
        rank=rank,
        world_size=world_size,
    )
    # What started the run goes on when the first process ends.
    wait_for_all()
    if rank == 0:
        report_directory(predictions)
    return 0


class RecipeFile(ActionConfigFile):
    """`--config`, with the keys checked first, so that a wrong one is named with its place and its neighbour."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Check the file's keys, then take its values."""
        recipe = read_yaml(str(values))
        check_keys(recipe, parser.keys(), str(values))
        super().__call__(parser, namespace, values, option_string)


def read_yaml(path: str) -> Mapping[str, Any]:
    """Read a recipe as it stands.

    Raises:
        InputError: It cannot be read, or holds no settings.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: cannot be read; give a recipe such as configs/demo/i3d_dnl.yaml") from error
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, Mapping):
        raise InputError(f"{path}: holds no settings; give a recipe such as configs/demo/i3d_dnl.yaml")
    return recipe


def check_keys(values: Mapping[str, Any], known: list[str], path: str, prefix: str = "") -> None:
    """Refuse a key that is not known, and say which it may be.

    Raises:
        InputError: There is one.
    """
    sections = {".".join(key.split(".")[:i]) for key in known for i in range(1, key.count(".") + 1)}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in sections:
            if not isinstance(value, Mapping):
                raise InputError(f"{path}: {key} is {value!r}; give its settings, one a line below it")
            check_keys(value, known, path, f"{key}.")
        elif key not in known and key not in sections:
            raise InputError(f"{path}: unknown key {key!r}{nearest(key, [*known, *sections])}")


def _one_line(message: str, keys: list[str], command: str) -> str:
    """Say jsonargparse's message in one line, in terms of dotted keys."""
    text = " ".join(message.split())
    if match := re.search(
        r"Parser key \"([\w.]+)\": Does not validate .*?Given value(?: type)?: (.*?)(?: Errors|$)", text
    ):
        return f"{match[1]} is {match[2]}; `{command} --help` says what it takes"
    if match := re.search(r"Parser key \"([\w.]+)\": Expected an? (.+?)\. Got value: (.*)", text):
        key, expected, value = match.groups()
        allowed = re.sub(r"typing\.|<class '|'>", "", expected)
        choices = re.findall(r"'([\w-]+)'", allowed)
        return f"{key} is {value}; allowed: {', '.join(choices) or allowed}{nearest(value, choices)}"
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text):
        key = ".".join(match.groups())
    elif match := re.search(r"(?:Option '|[Uu]nrecognized arguments?:? --?)([\w.-]+)", text):
        key = match.group(1)
    else:
        return text
    return f"unknown option {key!r}{nearest(key, keys)}; see {command} --help"
