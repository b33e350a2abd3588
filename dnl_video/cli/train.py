"""`dnl-video train`: train a network from a recipe."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter

from dnl_video.cli.recipes import find_recipe, read_recipe
from dnl_video.cli.terminal import command, log, say, suggest
from dnl_video.config import TrainConfig
from dnl_video.data.manifest import find_manifest
from dnl_video.errors import InputError, Terminated, nearest
from dnl_video.launcher import local_rank
from dnl_video.models.weights.find import find_weights
from dnl_video.spec import allowed_values

if TYPE_CHECKING:
    from dnl_video.training.run import TrainResult

DESCRIPTION = """Train a network on Kinetics clips or your own videos.

A recipe is a complete YAML file. Give its name (`dnl-video recipes` lists them) or its path.
Every value in it can be overridden by its dotted name.

examples:
  dnl-video train --config i3d_dnl --final-test                       the demo: train, evaluate, report
  dnl-video train --config finetune --data.train_manifest mine.train.csv --data.val_manifest mine.val.csv
  dnl-video train --config slow_r50_8x8_dnl --data.train_root /data/k400/train
  dnl-video train --config RECIPE --model.context nl --output runs/nl     non-local blocks instead of DNL
  dnl-video train --config RECIPE --weights.source kinetics400        start from published weights, or from a file
  dnl-video train --config RECIPE --dry-run                           check everything in a minute
  dnl-video train --config RECIPE --resume                            resume a stopped run
  dnl-video train --config RECIPE --resume auto                       resume or start: for jobs that are requeued
  torchrun --nproc_per_node 8 -m dnl_video train --config RECIPE      eight GPUs
  dnl-video train --config RECIPE --trainer.devices 8                 eight GPUs, with Lightning's launcher
"""

_COMMON = (
    *("config", "output", "resume", "dry-run", "final-test", "limit-videos", "seed"),
    *("data.train_manifest", "data.val_manifest", "data.train_root", "data.val_root", "data.class_list"),
    *("data.batch_size", "model.architecture", "model.context", "model.num_classes", "weights.source"),
    *("optim.lr", "trainer.max_epochs", "trainer.devices", "trainer.precision", "print_config", "help-all"),
)
# jsonargparse's messages about the value of a key.
_WRONG_VALUE = re.compile(
    r'Parser key "(?P<key>[\w.]+)": (?:Does not validate .*?Given value(?: type)?: (?:<class .*?> Given value: )?'
    r"(?P<value>.*?)(?: Errors|$)|Expected an? .+?\. Got value:(?P<other>.*))"
)
_Config = TypeVar("_Config")


class FORMATTER(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keep the line breaks of the examples; show every default."""


class _HelpAll(argparse.Action):
    """`--help-all`: print every option and exit."""

    def __call__(self, parser: Any, *_: Any) -> None:
        parser.print_all_help()
        parser.exit()


class PARSER(ArgumentParser):
    """jsonargparse's parser with short help and one-line errors that name the key and the nearest valid one."""

    command = "dnl-video train"
    common: tuple[str, ...] = _COMMON
    kind: Any = None  # the config class that it parses
    recipe: Mapping[str, Any] = {}  # the values of the file given as --config
    words: Sequence[str] = ()

    def __init__(self, **kwargs: Any) -> None:
        options = {"prog": self.command, "usage": "%(prog)s --config YAML [options]"} | kwargs
        super().__init__(exit_on_error=False, allow_abbrev=False, **options)

    def add_config(self, kind: type) -> None:
        """Add every field of a config dataclass by its dotted name, with short names for two of them."""
        self.kind = kind
        self.add_class_arguments(kind, None)
        for action in self._actions:
            if action.metavar is None:
                action.metavar = action.dest.rpartition(".")[2].upper()
        for short, name in (("--output", "--output_dir"), ("--limit-videos", "--data.limit_videos")):
            if long := self._option_string_actions.get(name):
                self._option_string_actions[short] = long
                long.option_strings = [short, *long.option_strings]

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:  # type: ignore[override]
        """Parse the command line."""
        self.words = sys.argv[1:] if args is None else args
        values = super().parse_args(args, *more, **options)
        self._leave_out_settings_of_other_lists(values)
        return values

    def _leave_out_settings_of_other_lists(self, values: Any) -> None:
        """Set the recipe's root and class list to null where the command line replaces the list they belong to."""
        recipe, given = self.recipe.get("data", {}), {word.partition("=")[0] for word in self.words}
        for side, names in (("train", ("train_root", "class_list")), ("val", ("val_root",))):
            unused = [name for name in names if recipe.get(name) is not None and f"--data.{name}" not in given]
            if unused and values[f"data.{side}_manifest"] != recipe.get(f"{side}_manifest"):
                for name in unused:
                    values[f"data.{name}"] = None
                keys = ", ".join(f"data.{name}" for name in unused)
                log.info("note: data.%s_manifest replaces the recipe's list; left out with it: %s", side, keys)

    def keys(self) -> list[str]:
        """Return every dotted name that a recipe may contain."""
        return [a.dest for a in self._actions if a.default != argparse.SUPPRESS and a.dest != "config"]

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Return the examples and the common options."""
        if not self.common:
            return super().format_help(*args, **kwargs)
        formatter = argparse.RawDescriptionHelpFormatter(self.prog, max_help_position=32, width=118)
        formatter.add_usage(self.usage, [], [])
        formatter.add_text(self.description)
        formatter.start_section("common options")
        for name in self.common:
            formatter.add_argument(self._option_string_actions[f"--{name}"])
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def dump(self, cfg: Any, *args: Any, **kwargs: Any) -> str:
        """Return the recipe of ``--print_config``; refuse the values that a training refuses."""
        self._leave_out_settings_of_other_lists(cfg)
        build_config(cfg, self.kind)
        return super().dump(cfg, *args, **kwargs)

    def print_all_help(self) -> None:
        """Print every option."""
        print(super().format_help())

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage."""
        text = " ".join(message.split())
        if (found := _WRONG_VALUE.search(text)) and (owner := self._owner(found["key"])):
            value, name = (found["value"] or found["other"]).strip(), found["key"].rpartition(".")[2]
            shown = {"None": "null", "": "empty"}.get(value, value)
            raise InputError(f"{found['key']} is {shown}; {allowed_values(owner, name, value)}") from ex
        options = list(self._option_string_actions)
        names = [name for name in options if not any(other.startswith(f"{name}.") for other in options)]
        raise InputError(_one_line(text, names, f"{self.command} --help{'-all' if self.common else ''}")) from ex

    def _owner(self, key: str) -> type | None:
        """Return the config class that has the field of a dotted key."""
        owner: Any = self.kind
        *sections, name = key.split(".")
        for section in sections:
            owner = get_type_hints(owner).get(section)
        return owner if owner and name in get_type_hints(owner) else None


class RecipeFile(ActionConfigFile):
    """`--config`: find the recipe and check its keys before its values are parsed."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Check the file's keys, then take its values."""
        path = str(find_recipe(str(values)))
        parser.recipe = read_recipe(path)
        check_keys(parser.recipe, parser.keys(), path)
        super().__call__(parser, namespace, path, option_string)


def add_arguments(parser: PARSER) -> None:
    """Add the options, and every field of `TrainConfig` by its dotted name."""
    everything = "Print every option and its default."
    parser.add_argument("--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help=everything)
    parser.add_argument("--config", action=RecipeFile, metavar="YAML", help="Recipe to start from: a name or a path.")
    parser._option_string_actions["--print_config"].help = "Print the complete recipe with all overrides and exit."
    # Options without a default are not part of the recipe that --print_config prints.
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add(
        "--resume",
        nargs="?",
        const="last",
        metavar="CKPT",
        help="Resume from the run's last checkpoint, or from CKPT. auto: start if the run has no checkpoint yet.",
    )
    add(
        "--dry-run",
        action="store_true",
        help="Check lists, files, decoding, memory, weights, --resume and the output folder; write nothing.",
    )
    add("--final-test", action="store_true", help="Evaluate the best checkpoint with many views and write a report.")
    parser.add_config(TrainConfig)


def build_config(arguments: Any, kind: type[_Config]) -> _Config:
    """Build a config from parsed arguments; options that are not fields of the config are left out."""
    parser = PARSER()
    parser.add_config(kind)
    values = arguments.clone()
    for name in vars(arguments).keys() - {f.name for f in dataclasses.fields(kind)}:  # type: ignore[arg-type]
        values.pop(name)
    return kind(**vars(parser.instantiate(values)))


def run(arguments: Any) -> int:
    """Train; with --final-test also evaluate and report."""
    config = build_config(arguments, TrainConfig)
    find_manifest(config.data.train_manifest)
    if config.data.val_manifest is not None:
        find_manifest(config.data.val_manifest)
    elif "final_test" in arguments:
        raise InputError("data.val_manifest is null, so --final-test has no videos; give a list, or leave it out")
    if config.weights.source is not None and "resume" not in arguments:
        find_weights(config.weights.source)
    if local_rank() == 0:
        network = f"{config.model.architecture} with context {config.model.context}"
        log.info("train %s in %s; loading torch ...", network, config.output_dir)
    _check_devices(config)
    if "dry_run" in arguments:
        return _dry_run(config, arguments.get("resume"))
    from dnl_video.training.progress import CURVES_NAME
    from dnl_video.training.run import train
    from dnl_video.training.stopping import StopRequest

    options = []
    try:
        # One request for both, so that processes started by Lightning's launcher also receive a stop in the final test.
        with StopRequest() as request:
            result = train(config, resume=arguments.get("resume"), request=request)
            if result.rank == 0:
                if (curves := Path(config.output_dir, CURVES_NAME)).is_file():
                    log.info("curves: %s", curves)
                best = f"best validation top-1 {100 * result.best_top1:.1f}%"
                say(f"{best if config.data.val_manifest else 'last checkpoint'}: {result.best_checkpoint}")
            if "final_test" in arguments:
                options = ["--final-test"]
                _final_test(config, result)
            elif result.rank == 0:
                run, manifest = result.best_checkpoint.parent.parent, config.data.val_manifest or "LIST"
                suggest("evaluate", "--checkpoint", run, "--manifest", manifest)
        return 0
    except (KeyboardInterrupt, Terminated) as stop:
        _print_how_to_resume(config, stop, options)
        raise


def _check_devices(config: TrainConfig) -> None:
    from dnl_video.inference.device import check_cpu_precision, resolve_device

    if resolve_device(config.evaluation.device, "evaluation.device").type == "cpu":
        check_cpu_precision(config.evaluation.precision, "--evaluation.precision")
    accelerator = config.trainer.accelerator
    device = resolve_device("auto" if accelerator == "gpu" else accelerator, "trainer.accelerator")
    if accelerator == "gpu" and device.type == "cpu":
        raise InputError("trainer.accelerator 'gpu' is not available here; available: cpu")
    if device.type == "cpu":
        check_cpu_precision(config.trainer.precision, "--trainer.precision")


def _dry_run(config: TrainConfig, resume: str | None) -> int:
    from dnl_video.training.run import dry_run

    facts = dry_run(config, resume)
    for name, value in facts.items():
        print(f"{name:<24} {value:.3f}" if isinstance(value, float) else f"{name:<24} {value:,}")
    if facts:
        validation = ", validation" if config.data.val_manifest else ""
        print(f"dry run passed: lists, decoding, one short epoch{validation} and a checkpoint all work")
    return 0


def _print_how_to_resume(config: TrainConfig, stop: KeyboardInterrupt | Terminated, options: list[str]) -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from dnl_video.models.weights.find import has_checkpoint

    if has_checkpoint(Path(config.output_dir)):
        how = f"stopped by {stop.signum.name}" if isinstance(stop, Terminated) else "interrupted"
        saved = stop.saved if isinstance(stop, Terminated) else str(stop)
        resume = command("train", "--config", f"{config.output_dir}/config.yaml", "--resume", *options)
        rank_zero_only(print)(f"{how}; {saved}{saved and '; '}resume with: {resume}", flush=True)


def _final_test(config: TrainConfig, result: TrainResult) -> None:
    from dnl_video.cli.evaluate import evaluate
    from dnl_video.cli.report import report_directory
    from dnl_video.training.collectives import barrier

    # One folder per checkpoint: a run that is extended may get another best checkpoint.
    predictions = Path(config.output_dir) / "evaluation" / result.best_checkpoint.stem
    data, process = config.data, (result.rank, result.world_size)
    assert data.val_manifest is not None  # run refuses it
    more: dict[str, Any] = {"root": data.val_root, "limit_videos": data.limit_videos, "process": process}
    evaluate(str(result.best_checkpoint), data.val_manifest, predictions, config.evaluation, **more)
    # Launchers end all processes when the first one ends.
    barrier()
    if result.rank == 0:
        report_directory(predictions)


def check_keys(values: Mapping[str, Any], known: list[str], path: str, prefix: str = "") -> None:
    """Refuse an unknown key of a recipe.

    Raises:
        InputError: A key is unknown, or a section is not a mapping; the message names the nearest known key.
    """
    sections = {".".join(key.split(".")[:i]) for key in known for i in range(1, key.count(".") + 1)}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in sections:
            if not isinstance(value, Mapping):
                raise InputError(f"{path}: {key} is {value!r}; give its settings, one per line below it")
            check_keys(value, known, path, f"{key}.")
        elif key not in known:
            raise InputError(f"{path}: unknown key {key!r}{nearest(key, [*known, *sections])}")


def _one_line(text: str, names: list[str], help_command: str) -> str:
    """Return jsonargparse's message as one line; ``names`` are the options, with their dashes."""
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text):
        key = ".".join(match.groups())
    elif match := re.search(r"[Uu]nrecognized arguments?:? (\w[\w./-]*)(?:[= ](\S+))?", text):
        option = f"--{match[1]}"
        example = f"{option} {match[2] or 'VALUE'}" if option in names else f"--NAME VALUE{nearest(option, names)}"
        return f"unexpected {match[1]!r}; options are written as {example}; see {help_command}"
    elif match := re.search(r"(?:Option '|[Uu]nrecognized arguments?:? --?)([\w.-]+)", text):
        key = match.group(1)
    else:
        return text
    return f"unknown option '--{key}'{nearest(f'--{key}', names)}; see {help_command}"
