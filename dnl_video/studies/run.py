"""A study from its plan to its tables: what is finished is kept, the rest is trained, evaluated and written down."""

from __future__ import annotations

import contextlib
import fcntl
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from dnl_video.errors import InputError
from dnl_video.files import dump_json, write_atomic
from dnl_video.models.weights.checkpoint import find_checkpoint
from dnl_video.studies.config import StudyConfig
from dnl_video.studies.curves import draw_curves
from dnl_video.studies.plan import Run, run_folder
from dnl_video.studies.rows import ROWS_NAME, accuracy, append_row, check_settings, read_rows, validation_curve
from dnl_video.studies.run_processes import Job, Steps, run_side_by_side
from dnl_video.studies.summary import results_table, summarize

_TRAINED_NAME = "trained.json"
"""In a run's folder: its training has ended, and how long it took."""


@dataclass(frozen=True)
class Progress:
    """What to tell of a run that ended.

    Args:
        run: The run.
        done: Runs that have ended, this and those of earlier calls included.
        total: All runs.
        result: What came out.
        left_s: Seconds that the others will about take.
    """

    run: Run
    done: int
    total: int
    result: dict[str, Any]
    left_s: float


def run_study(
    config: StudyConfig,
    starts: Sequence[Run],
    runs: Sequence[Run],
    environment: Mapping[str, str],
    progress: Callable[[Progress], None],
) -> list[dict[str, Any]]:
    """Do the runs that have no row yet and return the rows of all.

    Raises:
        InputError: The folder is another study's, another process works on it, or a run failed.
    """
    folder = Path(config.output_dir)
    check_settings(folder, _settings(config, runs))
    with _lock(folder) as lock:
        finished = {(row["context"], row["seed"]) for row in read_rows(folder)}
        waiting = [run for run in runs if (run.context, run.seed) not in finished]
        needed = {run.seed for run in waiting}
        first = [run for run in starts if run.seed in needed and not _trained(config, run)]
        total = len(starts) + len(runs)
        done = total - len(first) - len(waiting)
        began = time.monotonic()
        here = 0
        for group in (first, waiting):
            jobs = [Job(run.name, _steps(config, run), folder / "logs" / f"{run.name}.txt") for run in group]
            named = {run.name: run for run in group}
            for job, result in run_side_by_side(jobs, config.jobs, keep_open=[lock]):
                run = named[job.name]
                if run.context is not None:
                    append_row(folder, result | {"environment": dict(environment)})
                done, here = done + 1, here + 1
                left = (time.monotonic() - began) / here * (total - done)
                progress(Progress(run, done, total, result, left))
        wanted = {(run.context, run.seed) for run in runs}
        return [row for row in read_rows(folder) if (row["context"], row["seed"]) in wanted]


def write_results(
    config: StudyConfig, rows: Sequence[Mapping[str, Any]], costs: Mapping[str, Mapping[str, int]], command: str
) -> list[Path]:
    """Write study.json, study.md and curves.png; return the paths of all results."""
    folder = Path(config.output_dir)
    summary = summarize(rows, config.contexts)
    table = results_table(summary, costs)
    classes = len(config.task.classes)
    study = {
        "study": asdict(config),
        "command": command,
        "chance": 1 / classes,
        "summary": [figures | {"cost": dict(costs[figures["context"]])} for figures in summary],
        "runs": list(rows),
    }
    text = (
        f"# {folder.name}\n\n{table}\n\n"
        f"Top-1 in % of the last checkpoint on {rows[0]['videos']} test videos ({classes} classes, chance "
        f"{100 / classes:.1f} %), mean ± sample standard deviation over seeds. Differences in points are paired by "
        "seed, with 95 % t intervals. GMACs of one clip.\n\n"
        f"```bash\n{command}\n```\n"
    )
    write_atomic(folder / "study.json", dump_json(study, indent=2) + "\n")
    write_atomic(folder / "study.md", text)
    draw_curves(rows, config.contexts, classes, folder / "curves.png")
    return [folder / name for name in (ROWS_NAME, "study.json", "study.md", "curves.png")]


def count_costs(runs: Sequence[Run]) -> dict[str, dict[str, int]]:
    """Return parameters and multiply-accumulates of one clip for each context."""
    from dnl_video.models.build import build_model
    from dnl_video.models.inspect.flops import count
    from dnl_video.spec import ModelSpec, from_dict

    costs: dict[str, dict[str, int]] = {}
    for run in runs:
        if run.context is not None and run.context not in costs:
            crop = run.recipe["preprocessing"]["crop_size"]
            model = build_model(from_dict(ModelSpec, run.recipe["model"]))
            costs[run.context] = asdict(count(model, 1, 3, run.recipe["preprocessing"]["num_frames"], crop, crop))
    return costs


def describe_machine() -> dict[str, str]:
    """Return what the numbers were made with: device, torch, this package."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {"device": device, "torch": torch.__version__, "dnl_video": version("dnl-video")}


def _steps(config: StudyConfig, run: Run) -> Steps:
    folder = run_folder(config, run)
    recipe = Path(config.output_dir) / "recipes" / f"{run.name}.yaml"
    if not _trained(config, run):
        # From the start again: the same run bit for bit as one that was not interrupted, whatever was left of it.
        shutil.rmtree(folder, ignore_errors=True)
        if run.start is not None:
            run.recipe["weights"]["source"] = str(find_checkpoint(run_folder(config, run.start), last=True))
        recipe.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(recipe, yaml.safe_dump(run.recipe, sort_keys=False))
        began = time.monotonic()
        yield ["train", "--config", str(recipe)]
        seconds = {"train_s": round(time.monotonic() - began, 1)}
        write_atomic(folder / _TRAINED_NAME, dump_json(seconds))
    result: dict[str, Any] = {"val_top1": validation_curve(folder)}
    if run.context is None:
        return result
    views = run.recipe["evaluation"]
    predictions = folder / "test"
    yield [
        *("evaluate", "--checkpoint", str(find_checkpoint(folder, last=True))),
        *("--manifest", str(Path(config.data_dir) / "test.csv"), "--output", str(predictions), "--allow-failed"),
        *("--num-clips", str(views["num_clips"]), "--num-crops", str(views["num_crops"])),
        *("--device", str(views["device"]), "--precision", str(views["precision"])),
        *([] if views["num_workers"] is None else ["--num-workers", str(views["num_workers"])]),
    ]
    train_s = yaml.safe_load((folder / _TRAINED_NAME).read_text(encoding="utf-8"))["train_s"]
    return {"context": run.context, "seed": run.seed, **accuracy(predictions), **result, "train_s": train_s}


def _trained(config: StudyConfig, run: Run) -> bool:
    return (run_folder(config, run) / _TRAINED_NAME).exists()


def _settings(config: StudyConfig, runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the rows of one study share; contexts, seeds and jobs may change, and the folder may move."""
    free = ("contexts", "seeds", "jobs", "output_dir", "recipe")  # the recipe's values stand in its place
    settings = {key: value for key, value in asdict(config).items() if key not in free}
    settings["recipe_values"] = {
        key: value for key, value in runs[0].recipe.items() if key not in ("output_dir", "seed", "weights")
    }
    settings["recipe_values"]["model"] = {
        key: value for key, value in runs[0].recipe["model"].items() if key != "context"
    }
    return settings


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[int]:
    """Keep a second study off; the runs hold the lock as well, so that it outlives a killed study until they end.

    Raises:
        InputError: It is held.
    """
    with (folder / ".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process works on {folder}, or a run that a killed one left still does; wait for it to end"
            ) from None
        yield file.fileno()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
