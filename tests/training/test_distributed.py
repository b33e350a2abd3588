"""Two processes (torchrun, gloo) compared with one: losses, weights, statistics, accuracy, counts and failures."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fvcore.nn.precise_bn import update_bn_stats
from torch import Tensor, nn

from dnl_video.data.dataset import ClipBatchSampler
from dnl_video.data.manifest import read_manifest
from dnl_video.data.transforms import normalize
from dnl_video.models.build import build_model
from dnl_video.models.weights.find import find_checkpoint
from dnl_video.report import build_report
from dnl_video.results.reader import read_predictions
from tests.conftest import TinyRun
from tests.lists import write_list
from tests.test_recipes import load
from tests.training import commands
from tests.training.runs import data_of, final_weights, logged

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

# Batch norms are frozen, so no value depends on the batch size.
CURVE = {
    "model.context": "gc",
    "weights.drop_blocks": "true",
    "optim.freeze_batch_norm": "true",
    "optim.optimizer": "sgd",
    "optim.lr": 0.1,
    "optim.lr_batch": 6,
    "optim.label_smoothing": 0.1,
    "optim.precise_bn_batches": 0,
    "trainer.max_epochs": 2,
    "trainer.gradient_clip_val": 1.0,
}
TWO = {"trainer.devices": 2, "data.batch_size": 3}


@dataclass
class Runs:
    """Commands run in a folder, by two processes together or by this process."""

    folder: Path
    tiny: TinyRun
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    ranks: list[list[dict[str, Any]]] = field(default_factory=list)

    def words(self, name: str, settings: dict[str, Any]) -> list[str]:
        words = ["train", "--config", str(self.tiny.config), "--output_dir", str(self.folder / name)]
        return [*words, *itertools.chain(*((f"--{key}", str(value)) for key, value in settings.items()))]

    def outcomes(self, name: str) -> list[dict[str, Any]]:
        """Return the outcome of a job in both processes."""
        place = list(self.jobs).index(name)
        return [outcomes[place] for outcomes in self.ranks]

    def errors(self, name: str) -> list[str]:
        """Return the error message of both processes, which must have exited with 2."""
        assert [outcome["status"] for outcome in self.outcomes(name)] == [2, 2]
        return [outcome["err"].splitlines()[-1] for outcome in self.outcomes(name)]

    def weights(self, name: str) -> dict[str, Tensor]:
        return final_weights(self.folder / name)

    def logged(self, name: str, key: str) -> list[float]:
        return list(logged(self.folder / name, key).values())


@pytest.fixture(scope="module")
def runs(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All jobs of the two processes in one launch; this process runs its jobs meanwhile."""
    folder = tmp_path_factory.mktemp("distributed")
    runs = Runs(folder, tiny)
    # The second process gets four of the nine videos, all in its first batch; its second batch is empty.
    nine = write_list(folder / "nine.csv", tiny.val, broken=3)
    one = write_list(folder / "one.csv", tiny.val, limit=1)
    damaged = write_list(folder / "damaged.csv", tiny.train, broken=5)
    curve = CURVE | {"weights.source": tiny.run, "data.val_manifest": nine}
    statistics = {"data.val_manifest": one, "data.batch_size": 4, "optim.lr": 1e-9, "optim.precise_bn_batches": 2}
    trained = {
        "two": curve | TWO,
        "statistics": TWO | statistics,
        "nan": curve | TWO,
        "early": curve | TWO | {"optim.lr": 1e-12, "trainer.max_epochs": 4, "trainer.patience": 1},
        "damaged": TWO | {"data.train_manifest": damaged, "data.max_failed_share": 0, "trainer.max_epochs": 2},
        "few": curve | TWO | {"data.batch_size": 9},
        "sync": curve | TWO | {"trainer.sync_batchnorm": "true"},
    }
    runs.jobs = {name: {"words": runs.words(name, settings)} for name, settings in trained.items()}
    runs.jobs["two"]["words"].append("--final-test")
    runs.jobs["nan"]["nan_in_step"] = 1
    views = ["--checkpoint", str(tiny.run), "--num-clips", "2", "--num-crops", "1", "--num-workers", "0"]
    evaluate = ["evaluate", "--manifest", str(nine), *views, "--device", "cpu", "--output"]
    runs.jobs["evaluate"] = {"words": [*evaluate, str(folder / "evaluated-by-two")]}
    single = next(tiny.val.parent.glob("val/**/*.mp4"))
    for command in ("predict", "features"):
        words = [command, str(single), *views, "--device", "cpu", "--output", str(folder / command)]
        runs.jobs[command] = {"words": words}

    (folder / "jobs.json").write_text(json.dumps(list(runs.jobs.values())), encoding="utf-8")
    command = [*TORCHRUN, commands.__file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as two:
        for name, batch, accumulated in (("one", 6, 1), ("accumulated", 3, 2)):
            settings = {"data.batch_size": batch, "trainer.accumulate_grad_batches": accumulated}
            assert commands.run(runs.words(name, curve | settings))["status"] == 0
        assert commands.run([*evaluate, str(folder / "evaluated-by-one")])["status"] == 3
        try:
            output, _ = two.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            two.terminate()  # torchrun ends its processes
            raise
        assert two.returncode == 0, output
    runs.ranks = [json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    return runs


@pytest.mark.parametrize("other", ["two", "accumulated"])
def test_same_clips_per_step_give_the_same_curve_and_weights(runs: Runs, other: str) -> None:
    """Equal up to the order of float32 sums over six clips: 6e-8 per sum, growing over four steps."""
    assert len(runs.logged("one", "train/loss")) == 4
    for key in ("train/loss", "train/loss_epoch", "train/top1", "val/loss", "val/top1", "val/top5"):
        np.testing.assert_allclose(runs.logged(other, key), runs.logged("one", key), rtol=1e-5, err_msg=key)
    before = torch.load(find_checkpoint(runs.tiny.run), weights_only=True)["state_dict"]
    expected = runs.weights("one")
    for name, value in runs.weights(other).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6, msg=name)
    name = "network.blocks.3.res_blocks.0.branch2.conv_b.weight"
    assert (expected[name] - before[name]).abs().max() > 1e-3, "the weights change by more than the tolerance"


def test_validation_counts_every_video_once_and_logs_the_broken_one(runs: Runs) -> None:
    for name in ("one", "two", "accumulated"):
        assert runs.logged(name, "val/failed_videos") == [1, 1]
        # Eight videos can be read.
        assert all(8 * top1 == int(8 * top1) for top1 in runs.logged(name, "val/top1"))
        entries = (runs.folder / name / "failed_videos.jsonl").read_text(encoding="utf-8").splitlines()
        assert [Path(json.loads(entry)["path"]).name for entry in entries] == ["nine.broken.mp4"]


def test_process_without_validation_videos(runs: Runs) -> None:
    assert [outcome["status"] for outcome in runs.outcomes("statistics")] == [0, 0]
    assert runs.logged("statistics", "val/top1") in ([0.0], [1.0])
    assert runs.logged("statistics", "val/failed_videos") == [0]


def test_precise_statistics_cover_the_clips_of_all_processes(runs: Runs) -> None:
    config = load(runs.folder / "statistics" / "config.yaml")
    datamodule = data_of(config)
    batches = []
    for rank in (0, 1):
        datamodule.trainer = SimpleNamespace(global_rank=rank, world_size=2, accumulate_grad_batches=1, num_devices=2)  # type: ignore
        batches += list(datamodule.precise_bn_dataloader(0))
    clips = [normalize(batch["clip"], config.preprocessing.mean, config.preprocessing.std) for batch in batches]
    assert len(clips) == 4
    saved = {name.removeprefix("network."): value for name, value in runs.weights("statistics").items()}
    network = build_model(config.model)
    network.load_state_dict(saved)
    # The input of the stem does not depend on the batches, so its statistics are those of all 16 clips.
    with torch.no_grad():
        values = torch.cat([network.blocks[0].conv(clip) for clip in clips]).transpose(0, 1).flatten(1).double()
    close = {"rtol": 1e-5, "atol": 1e-6, "check_dtype": False}
    torch.testing.assert_close(saved["blocks.0.norm.running_mean"], values.mean(dim=1), **close)
    torch.testing.assert_close(saved["blocks.0.norm.running_var"], values.var(dim=1, correction=0), **close)
    # Inputs of deeper layers depend on the batches: compare with one process over the same batches.
    update_bn_stats(network.train(), clips, num_iters=4)
    statistics = {name: value for name, value in network.state_dict().items() if "running_" in name}
    assert len(statistics) == 2 * sum(isinstance(m, nn.BatchNorm3d) for m in network.modules()) > 100
    for name, value in statistics.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_nan_loss_in_one_process_stops_both_and_names_its_videos(runs: Runs) -> None:
    first, second = runs.errors("nan")
    assert first == second
    words = re.fullmatch(
        r"dnl-video: error: the loss is nan in epoch 1, step 2, of videos (.*); lower optim.lr, .*", first
    )
    assert words is not None
    records = read_manifest(runs.tiny.train).records
    _, second_step = ClipBatchSampler(16, 3, seed=0, rank=1, world_size=2)
    assert words[1].split(", ") == [records[index].video_id for _, index in second_step]


def test_both_stop_early_together(runs: Runs) -> None:
    outcomes = runs.outcomes("early")
    assert [outcome["status"] for outcome in outcomes] == [0, 0]
    line = "stopped early: no better validation since epoch 1"
    assert [line in outcome["out"].splitlines() for outcome in outcomes] == [True, False]
    assert len(runs.logged("early", "val/top1")) == 2


def test_too_many_broken_videos_stop_both(runs: Runs) -> None:
    first, second = runs.errors("damaged")
    assert first == second
    assert "1 of 17 training videos failed or are missing, more than data.max_failed_share 0 allows: " in first
    assert "damaged.broken.mp4" in first


def test_settings_that_several_processes_do_not_support(runs: Runs) -> None:
    for error in runs.errors("few"):
        assert error == (
            "dnl-video: error: 16 training videos are too few for a step of 18 (9 a batch x 2 process(es)); lower "
            "data.batch_size, or give more videos"
        )
    for error in runs.errors("sync"):
        assert error == (
            "dnl-video: error: trainer.sync_batchnorm is true for 2 processes on the CPU, which torch does not "
            "support; set it to false, and use optim.precise_bn_batches or optim.freeze_batch_norm instead"
        )


def test_evaluation_by_two_processes_equals_that_of_one(runs: Runs) -> None:
    outcomes = runs.outcomes("evaluate")
    # The process that ends last reports the failed video.
    assert {outcome["status"] for outcome in outcomes} <= {0, 3}
    assert 3 in {outcome["status"] for outcome in outcomes}
    one, two = (read_predictions(runs.folder / f"evaluated-by-{name}") for name in ("one", "two"))
    assert sorted(two.video_id) == sorted(one.video_id)
    assert len(two.video_id) == 9
    reports = [build_report(predictions) for predictions in (one, two)]
    for report in reports:
        report.pop("run", None)
    assert reports[0] == reports[1]


def test_final_test_is_reported_once(runs: Runs) -> None:
    first, second = runs.outcomes("two")
    assert (first["status"], second["status"]) == (0, 0)
    (report,) = (runs.folder / "two" / "evaluation").glob("*/report.json")
    assert json.loads(report.read_text(encoding="utf-8"))["coverage"]["finished"] == 9
    assert str(report) in first["out"]
    assert str(report) not in second["out"]


def test_one_video_for_two_processes(runs: Runs) -> None:
    for name in ("predict", "features"):
        assert [outcome["status"] for outcome in runs.outcomes(name)] == [0, 0], runs.outcomes(name)
    assert len(read_predictions(runs.folder / "predict").video_id) == 1
    assert len(list((runs.folder / "features").glob("*.npz"))) == 1
