"""A run that is resumed after a kill, a stop or a damaged checkpoint ends exactly like an uninterrupted one."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dnl_video.cli.main import main
from dnl_video.cli.run_facts import facts_of
from dnl_video.config import TrainConfig
from dnl_video.data.loaders import VideoDataModule
from dnl_video.errors import InputError
from dnl_video.models.weights.checkpoint import load_checkpoint, read_raw
from dnl_video.models.weights.export import model_card
from dnl_video.models.weights.source import FORMAT_KEY
from dnl_video.spec import to_dict
from dnl_video.training.checkpoint_callbacks import AtomicCheckpointIO
from dnl_video.training.module import VideoTrainingModule, seed_network
from dnl_video.training.optim import lr_factor
from dnl_video.training.resume import find_resume_point
from dnl_video.training.run import train
from dnl_video.training.setup import build_run
from tests.conftest import TinyRun
from tests.training.runs import configured, interrupted


def config_for(tiny: TinyRun, output: Path) -> TrainConfig:
    """Use everything that has a state or is random: dropout, mixup, EMA, precise statistics, accumulation."""
    return configured(
        tiny,
        output,
        model={"dropout": 0.5},
        augment={"mixup": 0.8},
        optim={"ema_decay": 0.8, "frozen_stages": 1, "lr": 0.05},
        trainer={"max_epochs": 3, "save_every_n_steps": 1, "accumulate_grad_batches": 2},
    )


def last(output: Path) -> dict[str, Any]:
    return torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)


def differing(a: Path, b: Path) -> list[str]:
    """Return the names of the tensors (trained and EMA) and states that differ in the last checkpoints of two runs."""
    a, b = last(a), last(b)
    names = []
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert a[part].keys() == b[part].keys()
        names += [f"{part}.{key}" for key in a[part] if not torch.equal(a[part][key], b[part][key])]
    states = ("lr_schedulers", "global_step", "epoch")
    return names + [name for name in states if a[name] != b[name]]


@pytest.fixture(scope="module")
def whole(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    output = tmp_path_factory.mktemp("whole") / "run"
    train(config_for(tiny, output))
    return output


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_run_killed_and_stopped_many_times_ends_with_the_same_weights(
    whole: Path, tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An epoch has four batches and two steps; "auto" also starts the run."""
    output = tmp_path / "parts"
    config = config_for(tiny, output)
    positions = []
    save = AtomicCheckpointIO.save_checkpoint

    def watched(self: AtomicCheckpointIO, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        positions.append(checkpoint["VideoDataModule"]["train_loader"]["position"])
        save(self, checkpoint, *args, **kwargs)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", watched)
    step = (VideoTrainingModule, "training_step")
    # Killed before the first checkpoint, then in the second step.
    interrupted(config, *step, 0)
    assert not (output / "checkpoints").exists()
    interrupted(config, *step, 2)
    assert last(output)["global_step"] == 1
    # SIGTERM in the first half of the second step: the step is finished, the validation of the epoch is not.
    path = output / "checkpoints" / "last.ckpt"
    assert interrupted(config, *step, 0, terminate) == f"epoch 1, step 2 saved in {path}"
    assert last(output)["global_step"] == 2
    # During validation, and the precise statistics before it, the run stops immediately.
    assert interrupted(config, VideoTrainingModule, "validation_step", 1, terminate) == ""
    interrupted(config, VideoDataModule, "precise_bn_dataloader", 0)
    # The validation is repeated and writes the best checkpoint of the first epoch. Stopped in the second epoch.
    assert interrupted(config, *step, 1, terminate) == f"epoch 2, step 3 saved in {path}"
    assert list((output / "checkpoints").glob("best-epoch-001-*"))
    # With a damaged last checkpoint, the run resumes from the one before it, at the end of the first epoch.
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    capsys.readouterr()
    interrupted(config, *step, 1)
    assert f"; resuming from {output}/checkpoints/previous.ckpt, the checkpoint before it" in capsys.readouterr().err
    # No step was finished since, and the damaged checkpoint did not replace the previous one.
    train(config, resume="auto")
    assert differing(whole, output) == []
    assert {position % 2 for position in positions} == {0}
    best = [sorted(p.name for p in (run / "checkpoints").glob("best-*")) for run in (whole, output)]
    assert best[0] == best[1]


KILLED = """
import os, signal, sys
from dnl_video.cli.main import main
from dnl_video.training.module import VideoTrainingModule

original = VideoTrainingModule.training_step

def step(self, batch, batch_idx):
    if (self.current_epoch, batch_idx) == (1, 2):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batch, batch_idx)

VideoTrainingModule.training_step = step
sys.exit(main(sys.argv[1:]))
"""


def test_run_killed_by_sigkill_ends_with_the_same_weights(whole: Path, tiny: TinyRun, tmp_path: Path) -> None:
    """Killed in the second epoch, after its first step; with loader processes that read ahead."""
    output = tmp_path / "run"
    config = config_for(tiny, output)
    config.data.num_workers = 1
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_dict(config)), encoding="utf-8")
    script = tmp_path / "killed.py"
    script.write_text(KILLED, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script), "train", "--config", str(recipe)], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert (last(output)["epoch"], last(output)["global_step"]) == (1, last(whole)["global_step"] // 2)
    train(config, resume="last")
    assert differing(whole, output) == []


def test_two_processes_stop_together_and_resume(tiny: TinyRun, tmp_path: Path) -> None:
    output = tmp_path / "run"
    words = ["--output_dir", str(output), "--trainer.devices", "2", "--trainer.max_epochs", "30"]
    command = [sys.executable, "-m", "dnl_video", "train", "--config", str(tiny.config), *words]
    # Lightning starts the second process. Both are in one session, so the test can find them.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("epoch 2/30"):
            process.terminate()
            break
    rest, errors = process.communicate(timeout=120)
    printed += rest
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    stopped = re.findall(
        rf"^stopped by SIGTERM; epoch \d+, step (\d+) saved in {output}/checkpoints/last\.ckpt; resume with: dnl-video "
        rf"train --config {output}/config\.yaml --resume$",
        printed,
        re.MULTILINE,
    )
    assert stopped == [str(last(output)["global_step"])], printed
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    # Train to the end of the epoch after the one it was stopped in.
    state = last(output)
    epochs, batches = state["epoch"] + 2, 2
    words = ["--config", str(output / "config.yaml"), "--trainer.max_epochs", str(epochs), "--resume"]
    done = subprocess.run([sys.executable, "-m", "dnl_video", "train", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ended = re.findall(r"^epoch (\d+)/", printed + done.stdout, re.MULTILINE)
    assert ended == [str(epoch) for epoch in range(1, epochs + 1)], "each epoch once"
    assert last(output)["global_step"] == epochs * batches


def test_dropout_depends_only_on_the_position_in_the_run() -> None:
    def draws(**place: int) -> torch.Tensor:
        seed_network(0, **({"epoch": 1, "batch": 2, "rank": 0} | place))
        return torch.rand(4)

    first = draws()
    assert torch.equal(first, draws())
    for place in ({"epoch": 2}, {"batch": 1}, {"rank": 1}):
        assert not torch.equal(first, draws(**place))


def damage(file: Path, how: str) -> None:
    """Damage a checkpoint like a full disk, a power failure or a bad cable."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    if how == "flipped":
        content[middle] ^= 1
    elif how == "zeroed":
        content[middle : middle + 4096] = bytes(4096)
    else:
        del content[int(float(how) * len(content)) if "." in how else int(how) :]
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["0", "1", "40", "0.1", "0.5", "0.999", "-1", "flipped", "zeroed"])
def test_previous_checkpoint_replaces_a_damaged_last_one(
    how: str, tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    shutil.copytree(tiny.run / "checkpoints", output / "checkpoints")
    newest, before = output / "checkpoints" / "last.ckpt", output / "checkpoints" / "previous.ckpt"
    damage(newest, how)
    start = find_resume_point("last", output)
    assert start is not None
    assert start.file == before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: {newest}: ")
    assert lines[0].endswith(f"; resuming from {before}, the checkpoint before it")
    if how == "flipped":
        assert " does not match its checksum); copy it again, or take another one; " in lines[0]
    damage(before, how)
    with pytest.raises(InputError) as refused:
        find_resume_point("last", output)
    assert str(refused.value).endswith(
        "last.ckpt and previous.ckpt are all damaged: resume from another checkpoint with --resume CKPT, or start a "
        "new run with another --output"
    )
    before.unlink()
    with pytest.raises(InputError, match=r"last\.ckpt: "):
        find_resume_point("last", output)


def test_previous_checkpoint_alone_is_enough(tiny: TinyRun, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    shutil.copytree(tiny.run / "checkpoints", folder)
    (folder / "last.ckpt").unlink()
    start = find_resume_point("auto", tmp_path / "run")
    assert start is not None
    assert start.file == folder / "previous.ckpt"
    # The temporary file of a killed process is no checkpoint.
    other = tmp_path / "other" / "checkpoints" / ".0123abcd.last.ckpt"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"PK")
    assert find_resume_point("auto", tmp_path / "other") is None
    assert find_resume_point(None, tmp_path / "other") is None
    with pytest.raises(InputError, match="no last checkpoint in this folder; train first"):
        find_resume_point("last", tmp_path / "other")


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            "optim",
            {"gamma": 0.5},
            "optim.gamma is 0.1, the configuration's is 0.5; resume with the run's own config.yaml",
        ),
        ("optim", {"ema_decay": 0.5}, "optim.ema_decay is null, the configuration's is 0.5; "),
        ("data", {"limit_videos": 8}, "data.limit_videos is null, the configuration's is 8; "),
        ("data", {"batch_size": 8}, "data.batch_size is 4, the configuration's is 8; "),
        ("preprocessing", {"frame_stride": 1}, "preprocessing.frame_stride is 2, the configuration's is 1; "),
        ("model", {"context": "nl"}, "model.context is dnl, the configuration's is nl; "),
        ("weights", {"source": "other.pth"}, "weights.source is null, the configuration's is other.pth; "),
    ],
)
def test_resume_with_other_settings_is_refused(section: str, values: Any, message: str, tiny: TinyRun) -> None:
    with pytest.raises(InputError) as refused:
        train(configured(tiny, tiny.run, **{section: values}), resume="last")
    assert str(refused.value).startswith(f"{tiny.run}/checkpoints/last.ckpt: its {message}")


CHANGES: dict[str, Any] = {
    "optim": {"lr": 0.01, "warmup_start_lr": 0.001, "weight_decay": 0.5, "bias_weight_decay": 0.0, "ema_decay": 0.5},
    "trainer": {"gradient_clip_val": 0.1},
}


def changed(tiny: TinyRun, output: Path) -> TrainConfig:
    """Return the configuration of `config_for` with `CHANGES`."""
    config = config_for(tiny, output)
    for section, values in CHANGES.items():
        setattr(config, section, dataclasses.replace(getattr(config, section), **values))
    return config


def train_with_changes_by_hand(tiny: TinyRun, output: Path, from_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without a stop; before each step from ``from_step`` on, set what `CHANGES` sets. A step has two batches."""
    config, new = config_for(tiny, output), changed(tiny, output)
    original, decay = VideoTrainingModule.training_step, [0.8]

    def step(self: VideoTrainingModule, batch: Any, batch_idx: int) -> Any:
        if self.global_step >= from_step:
            decay[0], self.trainer.gradient_clip_val = 0.5, 0.1
            lr = 0.01 * 8 / 16 * lr_factor(self.global_step / 2, new.optim, 3)
            (optimizer,) = self.trainer.optimizers
            names = {
                p: (module, kind)
                for module in self.network.modules()
                for kind, p in module.named_parameters(recurse=False)
            }
            norms = (torch.nn.BatchNorm3d, torch.nn.LayerNorm)
            groups = []
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                module, kind = names[parameter]
                wd = 0.0 if isinstance(module, norms) or kind == "bias" else 0.5
                groups.append(optimizer.param_groups[0] | {"params": [parameter], "lr": lr, "weight_decay": wd})
            optimizer.param_groups[:] = groups
            self.trainer.lr_scheduler_configs.clear()
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(VideoTrainingModule, "training_step", step)
        average = "dnl_video.training.run.get_ema_multi_avg_fn"
        patch.setattr(average, lambda _: lambda *tensors: get_ema_multi_avg_fn(decay[0])(*tensors))
        train(config)


def test_changed_settings_continue_at_the_same_place(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed in the third of six steps; also the warm-up and the groups of equal weight decay change."""
    output, by_hand = tmp_path / "run", tmp_path / "by hand"
    interrupted(config_for(tiny, output), VideoTrainingModule, "training_step", 5)
    assert last(output)["global_step"] == 2
    config = changed(tiny, output)
    capsys.readouterr()
    train(config, resume="last")
    line = (
        "changed from epoch 2, step 3: optim.lr 0.05 -> 0.01, optim.weight_decay 0.05 -> 0.5, optim.bias_weight_decay "
        "null -> 0, optim.warmup_start_lr 0.0002 -> 0.001, optim.ema_decay 0.8 -> 0.5, trainer.gradient_clip_val null "
        "-> 0.1"
    )
    assert capsys.readouterr().out.splitlines()[0] == line
    train_with_changes_by_hand(tiny, by_hand, 2, monkeypatch)
    # The order of the parameters changes the rounding of the gradient norm.
    for part in ("state_dict", "current_model_state"):
        torch.testing.assert_close(last(output)[part], last(by_hand)[part], rtol=1e-4, atol=1e-4)

    # The changes are in every later checkpoint and in config.yaml, and stay there.
    stored = read_raw(output / "checkpoints" / "last.ckpt")[FORMAT_KEY]
    assert stored["config"] == to_dict(config)
    (first,) = stored["provenance"]["changed_settings"]
    assert (first["epoch"], first["step"], first["optim.lr"]) == (2, 3, [0.05, 0.01])
    config.trainer = dataclasses.replace(config.trainer, max_epochs=4, gradient_clip_val=None)
    train(config, resume="last")
    changes = read_raw(output / "checkpoints" / "last.ckpt")[FORMAT_KEY]["provenance"]["changed_settings"]
    assert changes == [first, {"epoch": 4, "step": 7, "trainer.gradient_clip_val": [0.1, None]}]
    text = (output / "config.yaml").read_text()
    assert text.splitlines()[:2] == [
        f"# {line}",
        "# changed from epoch 4, step 7: trainer.gradient_clip_val 0.1 -> null",
    ]
    assert yaml.safe_load(text) == to_dict(config)
    assert facts_of(str(output))["provenance"]["changed settings"] == changes
    card = model_card(
        load_checkpoint(output / "checkpoints" / "last.ckpt"), "m.safetensors", {"changed_settings": changes}
    )
    assert "\n- settings changed during training: epoch 2, step 3, optim.lr \\[0.05, 0.01\\], " in card


def test_precision_may_change(tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On some CPUs bf16 gives NaN; the values do not matter here.
    monkeypatch.setattr("dnl_video.training.setup.check_precision", lambda *_, **__: None)
    monkeypatch.setattr(VideoTrainingModule, "_check_finite", lambda *_: None)
    output = tmp_path / "run"
    shutil.copytree(tiny.run, output)
    for epochs, precision in ((2, "bf16-mixed"), (3, "32-true")):
        train(configured(tiny, output, trainer={"max_epochs": epochs, "precision": precision}), resume="last")
    changes = read_raw(output / "checkpoints" / "last.ckpt")[FORMAT_KEY]["provenance"]["changed_settings"]
    pairs = [change["trainer.precision"] for change in changes]
    assert pairs == [["32-true", "bf16-mixed"], ["bf16-mixed", "32-true"]]


def test_finished_run_is_not_trained_again(tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    shutil.copytree(tiny.run, output)
    before = sorted(output.rglob("*"))
    for words in (["--resume"], ["--resume", "auto"], ["--resume", "--dry-run"]):
        capsys.readouterr()
        assert main(["train", "--config", str(tiny.config), "--output", str(output), *words]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[0] == f"{output}: finished (1/1 epochs); raise trainer.max_epochs to continue"
        assert len(printed) == (1 if "--dry-run" in words else 2)
    elsewhere = str(tmp_path / "elsewhere")
    assert main(["train", "--config", str(tiny.config), "--output", elsewhere, "--resume", str(output)]) == 0
    assert f"next: dnl-video evaluate --checkpoint {output} " in capsys.readouterr().err
    alone = shutil.copy(output / "checkpoints/last.ckpt", tmp_path / "alone.ckpt")
    with pytest.raises(InputError, match=r"alone\.ckpt: finished \(1/1 epochs\); raise trainer\.max_epochs"):
        train(configured(tiny, tmp_path / "elsewhere"), resume=str(alone))
    assert sorted(output.rglob("*")) == before
    train(configured(tiny, output, trainer={"max_epochs": 2}), resume="last")
    with pytest.raises(InputError) as refused:
        train(configured(tiny, output), resume="last")
    assert str(refused.value) == (
        f"{output}/checkpoints/last.ckpt: its run has done 2 epochs, trainer.max_epochs is 1; raise it, or start a new "
        "run with another --output"
    )


def test_run_stopped_in_its_last_validation_is_not_finished(tiny: TinyRun, tmp_path: Path) -> None:
    config = configured(tiny, tmp_path / "run")
    interrupted(config, VideoTrainingModule, "validation_step", 0)
    assert not list((tmp_path / "run" / "checkpoints").glob("best-*"))
    train(config, resume="auto")
    assert list((tmp_path / "run" / "checkpoints").glob("best-*"))


def test_run_that_another_training_began_is_not_overwritten(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queued job starts while the old one is about to write its first checkpoint, and gets the lock after it."""
    output = tmp_path / "run"

    def begin(*args: Any) -> Any:
        shutil.copytree(tiny.run, output, dirs_exist_ok=True, copy_function=shutil.copyfile)
        return build_run(*args)

    monkeypatch.setattr("dnl_video.training.run.build_run", begin)
    with pytest.raises(InputError) as refused:
        train(configured(tiny, output), resume="auto")
    line = f"another training wrote to {output} in the meantime; continue it with --resume"
    assert str(refused.value) == line
    with pytest.raises(InputError) as refused:  # the same, while the old job writes its next checkpoint
        train(configured(tiny, output, trainer={"max_epochs": 2}), resume="auto")
    assert str(refused.value) == line


@pytest.mark.parametrize("saved", [False, True])
def test_advice_after_a_nan_loss_can_be_followed(
    saved: bool, tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss is NaN in the second or the fifth step, unless the learning rate was lowered."""
    output, step = tmp_path / "run", 4 if saved else 1
    original = VideoTrainingModule.normalized

    def poisoned(self: VideoTrainingModule, clips: torch.Tensor) -> torch.Tensor:
        broken = self.global_step == step and self.config.optim.lr == 0.002 and self.training
        return original(self, clips) * (float("nan") if broken else 1.0)

    monkeypatch.setattr(VideoTrainingModule, "normalized", poisoned)
    words = ["train", "--config", str(tiny.config), "--output", str(output)]
    words += ["--trainer.max_epochs", "2", "--data.batch_size", "4" if saved else "8"]
    assert main(words) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dnl-video: error: ")]
    then = "start again: nothing was saved yet"
    if saved:
        then = "continue from the last checkpoint with --resume, or from the best with --resume CKPT"
    listed = r"(\S+, ){3}\S+" if saved else r"(\S+, ){4}\S+ and 3 more"
    videos = rf"the loss is nan in epoch {1 + saved}, step {step + 1}, of videos {listed}; "
    advice = "lower optim.lr, for example --optim.lr 0.0002, or clip gradients (--trainer.gradient_clip_val 1), and "
    assert re.fullmatch(f"dnl-video: error: {videos}{re.escape(advice + then)}", message)
    assert main([*words, "--optim.lr", "0.0002", *(["--resume"] if saved else [])]) == 0
    assert last(output)["epoch"] == 1
