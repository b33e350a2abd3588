"""Run a study: skip finished runs, train and evaluate the others, and write rows, tables and curves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from dnl_video.cores import processor_name
from dnl_video.files import append_json_lines, dump_json, locked, write_atomic
from dnl_video.models.build import build_model
from dnl_video.models.inspect.flops import count
from dnl_video.models.weights.find import find_checkpoint
from dnl_video.spec import ModelSpec, from_dict
from dnl_video.studies.curves import draw_curves
from dnl_video.studies.plan import StudyConfig, StudyRun
from dnl_video.studies.rows import ROWS_NAME, accuracy, check_settings, read_rows, validation_curve
from dnl_video.studies.run_processes import Job, Steps, run_side_by_side
from dnl_video.studies.summary import results_table, summarize

_TRAINED_NAME = "trained.json"
"""In the folder of a run whose training has ended: the training time."""


def run_study(
    config: StudyConfig,
    starts: Sequence[StudyRun],
    runs: Sequence[StudyRun],
    progress: Callable[[StudyRun, dict[str, Any], int, int, float], None],
) -> list[dict[str, Any]]:
    """Execute the runs without a row, first those that give the starting weights; return the rows of all runs.

    After each run, call ``progress`` with (run, its result, runs done, all runs, estimated seconds left).

    Raises:
        InputError: The folder belongs to another study, another process uses it, or a run failed.
    """
    folder = Path(config.output_dir)
    check_settings(folder, _settings(config, runs[0]))
    busy = f"another process works on {folder}, or a run of a killed study is still active; wait for it to end"
    with locked(folder / ".lock", busy):
        finished = {(row["context"], row["seed"]) for row in read_rows(folder)}
        waiting = [run for run in runs if (run.context, run.seed) not in finished]
        first = [run for run in starts if run.seed in {r.seed for r in waiting} and not _trained(run)]
        total = len(starts) + len(runs)
        done = total - len(first) - len(waiting)
        environment = _environment()
        began, here = time.monotonic(), 0
        for group in (first, waiting):
            named = {run.name: run for run in group}
            for job, result in run_side_by_side([_job(config, run, busy) for run in group], config.jobs):
                run = named[job.name]
                if run.context is not None:
                    append_json_lines(folder / ROWS_NAME, result | {"environment": environment})
                done, here = done + 1, here + 1
                left = (time.monotonic() - began) / here * (total - done)
                progress(run, result, done, total, left)
        wanted = {(run.context, run.seed) for run in runs}
        return [row for row in read_rows(folder) if (row["context"], row["seed"]) in wanted]


def _job(config: StudyConfig, run: StudyRun, busy: str) -> Job:
    """Return the commands of a run, if no command of a killed study still works on it."""
    logs = Path(config.output_dir) / "logs"
    logs.mkdir(exist_ok=True)
    lock = logs / f"{run.name}.lock"
    with locked(lock, busy):
        return Job(run.name, _steps(config, run), logs / f"{run.name}.txt", lock)


def _steps(config: StudyConfig, run: StudyRun) -> Steps:
    if not _trained(run):
        # An interrupted run starts again, so that its result is bit for bit that of an uninterrupted run.
        shutil.rmtree(run.folder, ignore_errors=True)
        if run.start is not None:
            run.recipe["weights"]["source"] = str(find_checkpoint(run.start.folder, last=True))
        recipe = Path(config.output_dir) / "recipes" / f"{run.name}.yaml"
        recipe.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(recipe, yaml.safe_dump(run.recipe, sort_keys=False))
        began = time.monotonic()
        yield ["train", "--config", str(recipe)]
        write_atomic(run.folder / _TRAINED_NAME, dump_json({"train_s": round(time.monotonic() - began, 1)}))
    result: dict[str, Any] = {"val_top1": validation_curve(run.folder)}
    if run.context is None:
        return result
    data, predictions = run.recipe["data"], run.folder / "test"
    views = {name: value for name, value in run.recipe["evaluation"].items() if name != "clip_scores"}
    options = views | {
        "checkpoint": find_checkpoint(run.folder, last=True),
        "manifest": config.test_manifest or data["val_manifest"],
        "root": data["val_root"],
        "output": predictions,
    }
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    yield ["evaluate", *words, "--allow-failed"]
    train_s = yaml.safe_load((run.folder / _TRAINED_NAME).read_text(encoding="utf-8"))["train_s"]
    return {"context": run.context, "seed": run.seed, **accuracy(predictions), **result, "train_s": train_s}


def _trained(run: StudyRun) -> bool:
    return (run.folder / _TRAINED_NAME).exists()


def _settings(config: StudyConfig, run: StudyRun) -> dict[str, Any]:
    """Return the settings that all rows share. Contexts, seeds and jobs may change, and the folder may move."""
    free = ("contexts", "seeds", "jobs", "output_dir", "recipe")  # recipe_values replaces the recipe's path
    settings = {key: value for key, value in asdict(config).items() if key not in free}
    values = {key: value for key, value in run.recipe.items() if key not in ("output_dir", "seed")}
    values["model"] = {key: value for key, value in run.recipe["model"].items() if key != "context"}
    return settings | {"recipe_values": values}


def write_results(
    config: StudyConfig, runs: Sequence[StudyRun], rows: Sequence[Mapping[str, Any]], command: str
) -> list[Path]:
    """Write study.json, study.md and curves.png; return the paths of all results."""
    folder = Path(config.output_dir)
    costs = {run.context: _cost(run.recipe) for run in runs[: len(config.contexts)] if run.context is not None}
    summary = summarize(rows, config.contexts)
    classes = runs[0].recipe["model"]["num_classes"]
    study = {
        "study": asdict(config),
        "command": command,
        "chance": 1 / classes,
        "summary": [figures | {"cost": costs[figures["context"]]} for figures in summary],
        "runs": list(rows),
    }
    text = (
        f"# {folder.name}\n\n{results_table(summary, costs)}\n\n"
        f"Top-1 in % of the last checkpoint on {rows[0]['videos']} test videos ({classes} classes, chance "
        f"{100 / classes:.1f} %), mean ± sample standard deviation over seeds. Differences in points are paired by "
        "seed, with 95 % t intervals. GMACs of one clip.\n\n"
        f"```bash\n{command}\n```\n"
    )
    write_atomic(folder / "study.json", dump_json(study, indent=2) + "\n")
    write_atomic(folder / "study.md", text)
    draw_curves(rows, config.contexts, classes, folder / "curves.png")
    return [folder / name for name in (ROWS_NAME, "study.json", "study.md", "curves.png")]


def _cost(recipe: Mapping[str, Any]) -> dict[str, int]:
    """Return the parameters, and the multiply-accumulates of one clip."""
    frames, crop = recipe["preprocessing"]["num_frames"], recipe["preprocessing"]["crop_size"]
    return asdict(count(build_model(from_dict(ModelSpec, recipe["model"])), 1, 3, frames, crop, crop))


def _environment() -> dict[str, str]:
    """Return the device, and the versions of torch and of this package."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()
    return {"device": device, "torch": torch.__version__, "dnl_video": version("dnl-video")}
