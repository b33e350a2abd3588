"""`dnl-video train`, in process, with its output."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from dnl_video.cli.main import main
from dnl_video.inference import device
from dnl_video.models.weights.checkpoint import load_checkpoint
from dnl_video.models.weights.find import find_checkpoint
from tests.conftest import TinyRun
from tests.processes import CommandProcess
from tests.test_recipes import settings


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must be refused: exit status 2, one line on stderr, no traceback."""
    capsys.readouterr()
    assert main(list(words)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dnl-video: error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("dnl-video: error: ")


def train_words(tiny: TinyRun, output: Path, *words: str) -> list[str]:
    return ["train", "--config", str(tiny.config), "--output_dir", str(output), *words]


def test_a_run_writes_checkpoints_config_and_logs(tiny):
    names = sorted(p.name for p in (tiny.run / "checkpoints").iterdir())
    assert names[0].startswith("best-epoch-001-top1_0.")
    assert names[1:] == ["last.ckpt", "previous.ckpt"]
    resolved = yaml.safe_load((tiny.run / "config.yaml").read_text(encoding="utf-8"))
    assert resolved["model"]["context"] == "dnl"
    rows = list(csv.DictReader((tiny.run / "logs" / "csv" / "metrics.csv").open(encoding="utf-8")))
    assert {"train/loss", "train/top1", "val/top1", "val/top5", "val/loss"} <= set(rows[0])
    assert list((tiny.run / "logs" / "tensorboard").glob("events.*"))


def test_the_stored_config_reproduces_the_run(tiny, tmp_path):
    again = tmp_path / "again"
    assert main(["train", "--config", str(tiny.run / "config.yaml"), "--output_dir", str(again)]) == 0
    first, second = load_checkpoint(tiny.run), load_checkpoint(again)
    assert first.spec == second.spec
    assert first.preprocessing == second.preprocessing
    assert first.config | {"output_dir": str(again)} == second.config
    assert all(torch.equal(first.state_dict[k], second.state_dict[k]) for k in first.state_dict)


def test_checkpoints_contain_classes_and_preprocessing(tiny):
    checkpoint = load_checkpoint(tiny.run)
    assert checkpoint.class_names[0] == "growing"
    assert len(checkpoint.class_names) == 8
    assert checkpoint.preprocessing.num_frames == 4
    model = checkpoint.build()
    assert not model.training
    assert model(torch.rand(1, 3, 4, 64, 64)).shape == (1, 8)


def test_final_test_ends_with_a_report(tiny, tmp_path, capsys):
    output = tmp_path / "run"
    words = ["--limit-videos", "8", "--model.context", "none", "--optim.lr", "0.2", "--optim.lr_batch", "16"]
    assert main(train_words(tiny, output, "--final-test", *words)) == 0
    printed = capsys.readouterr().out
    assert "learning rate 0.2 per 16 clips -> 0.05" in printed
    assert "epoch 1/1" in printed
    assert "clips/s" in printed
    folder = output / "evaluation" / load_checkpoint(output).path.rpartition("/")[2].removesuffix(".ckpt")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["coverage"]["evaluated"] == 8
    assert report["model"]["context"] == "none"
    assert (folder / "report.md").is_file()


def test_resume_continues_the_run_and_keeps_its_logs(tiny, tmp_path, capsys):
    output = tmp_path / "run"
    shutil.copytree(tiny.run, output)
    message = refused(capsys, *train_words(tiny, output))
    assert message == f"output_dir {output} holds a run already; continue it with --resume, or give another --output"
    assert main(train_words(tiny, output, "--trainer.max_epochs", "2", "--resume")) == 0
    assert "epoch 2/2" in capsys.readouterr().out
    state = torch.load(find_checkpoint(output, last=True), weights_only=True)
    assert state["global_step"] == 8
    log = "logs/csv/metrics.csv"
    assert (output / log).read_text(encoding="utf-8") == (tiny.run / log).read_text(encoding="utf-8")
    added = csv.DictReader((output / "logs/csv-resumed-1/metrics.csv").open(encoding="utf-8"))
    assert {row["epoch"] for row in added if row["train/loss"]} == {"1"}


FIRST_LINE = """
import sys
from dnl_video.cli import main, train
train._check_devices = lambda config: sys.exit("torch" in sys.modules or "matplotlib" in sys.modules)
main.main(sys.argv[1:])
"""


def test_a_line_is_printed_before_torch_is_loaded(tiny):
    """Loading torch takes seconds."""
    words = ["train", "--config", str(tiny.config), "--output", "runs/new"]
    done = subprocess.run([sys.executable, "-c", FIRST_LINE, *words], capture_output=True, text=True)
    assert done.stderr == "train i3d_r50 with context dnl in runs/new; loading torch ...\n"
    assert done.returncode == 0


def test_only_rank_0_prints_the_result_of_a_dry_run(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Trainer, "is_global_zero", False)
    assert main(train_words(tiny, tmp_path / "run", "--dry-run")) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {}", "RECIPE: unknown key 'modle'; did you mean 'model'?"),
        ("model: {contxt: nl}", "RECIPE: unknown key 'model.contxt'; did you mean 'model.context'?"),
        (
            "model: {context_options: {poool: null}}",
            "RECIPE: unknown key 'model.context_options.poool'; did you mean 'model.context_options.pool'?",
        ),
        ("model: {context: nll}", "model.context is nll; allowed: none, nl, dnl, pairwise, unary"),
        ("optim: {lr: abc}", "optim.lr is abc; give a number in [1e-12, 1000]"),
        ("data: {decoder: opencv}", "data.decoder is opencv; allowed: decord, av, auto"),
        (
            "evaluation: {decoder: dekord}",
            "evaluation.decoder is dekord; allowed: decord, av, auto; did you mean 'decord'?",
        ),
        ("optim: {ema_decay: 1}", "optim.ema_decay is 1.0; give a number in [0, 1), or null"),
        ("optim: {lr: .nan}", "optim.lr is nan; give a number in [1e-12, 1000]"),
        ("data: {batch_size: null}", "data.batch_size is null; give a whole number in [1, 4096]"),
        ("trainer: {devices: 1.5}", "trainer.devices is 1.5; give a whole number in [1, 1024] or auto"),
        ("optim: {lr: 0.1, lr: 0.2}", "RECIPE: not valid YAML: lr occurs twice in line 1, column 9"),
        ("data: {batch_size: 0}", "data.batch_size is 0; give a whole number in [1, 4096]"),
        ("augment: {crop_size: 300}", "augment.short_side is [256, 320] with crop_size 300; give [low, high]"),
        ("preprocessing: {crop_size: 300}", "crop_size 300 exceeds short_side 256; the crop must fit inside"),
        ("model: [", "not valid YAML"),
        ("", "contains no settings; start from a recipe such as i3d_dnl"),
        ("seed: 1", "data.train_manifest is not set; give a Kinetics CSV, a list or a class folder"),
    ],
)
def test_bad_keys_and_values_are_one_line(text, message, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text, encoding="utf-8")
    for words in ([], ["--print_config"])[: 1 if "train_manifest" in message else 2]:
        assert message.replace("RECIPE", str(recipe)) in refused(capsys, "train", "--config", str(recipe), *words)


def test_recipes_that_cannot_be_read_are_refused_with_the_reason(tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(b"output_dir: caf\xe9")
    advice = "give a recipe such as i3d_dnl"
    assert refused(capsys, "train", "--config", str(recipe)) == f"{recipe}: cannot be read (no UTF-8 text); {advice}"

    def deny(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_text", deny)
    line = refused(capsys, "train", "--config", str(recipe))
    assert line == f"{recipe}: cannot be read (Permission denied); {advice}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file or recipe; recipes: i3d_dnl, slow_dnl, "),
        (["--data.bach_size", "3"], "unknown option '--data.bach_size'; did you mean '--data.batch_size'?"),
        (["--trainer.max", "1"], "unknown option '--trainer.max'; see dnl-video train --help-all"),
        (["--trainer.verbose", "3"], "unknown option '--trainer.verbose'; see dnl-video train --help-all"),
        (["--trainer.patiense", "3"], "unknown option '--trainer.patiense'; did you mean '--trainer.patience'?"),
        (["--trainer.seconds", "3"], "unknown option '--trainer.seconds'; see dnl-video train --help-all"),
        (["--lr", "0.1"], "unknown option '--lr'; did you mean '--optim.lr'?"),
        (["optim.lr=0.1"], "unexpected 'optim.lr'; options are written as --optim.lr 0.1; see dnl-video train"),
        (["optim.lr", "0.1"], "unexpected 'optim.lr'; options are written as --optim.lr 0.1; see dnl-video train"),
        (["lr=0.1"], "unexpected 'lr'; options are written as --NAME VALUE; did you mean '--optim.lr'?"),
        (
            ["--model.context", "dln"],
            "model.context is dln; allowed: none, nl, dnl, pairwise, unary, snl, gc; did you mean 'dnl'?",
        ),
        (["--optim.lr", ""], "optim.lr is empty; give a number in [1e-12, 1000]"),
        (["--limit-videos", "0"], "data.limit_videos is 0; give a whole number in [1, 100000000], or null"),
    ],
)
def test_bad_options_are_one_line(words, message, capsys):
    assert message in refused(capsys, "train", *words)


@pytest.mark.parametrize("option", ["--trainer.precision", "--evaluation.precision"])
def test_emulated_half_precision_is_refused(option, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(device, "cpu_flags", lambda: {"avx2"})
    error = refused(capsys, *train_words(tiny, tmp_path / "run", option, "bf16-mixed"))
    assert error == (
        "precision 'bf16-mixed' is emulated on this CPU (none of amx_bf16, avx512_bf16), 30 to 100 times slower than "
        f"float32; use {option} 32-true, or a GPU"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["trainer.accelerator", "evaluation.device"])
@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_unavailable_devices_are_refused(option, name, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    message = refused(capsys, *train_words(tiny, tmp_path / "run", f"--{option}", name))
    assert message == f"{option} '{name}' is not available here; available: cpu"
    message = refused(capsys, *train_words(tiny, tmp_path / "run", "--trainer.accelerator", "gpu"))
    assert message == "trainer.accelerator 'gpu' is not available here; available: cpu"
    assert not (tmp_path / "run").exists()


def test_a_gpu_index_out_of_range_is_refused(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = refused(capsys, *train_words(tiny, tmp_path / "run", "--evaluation.device", "cuda:2"))
    assert message == "evaluation.device 'cuda:2' is not available here; there are 2, from cuda:0"


def test_classes_must_match(tiny, tmp_path, capsys):
    message = refused(capsys, *train_words(tiny, tmp_path / "run", "--model.num_classes", "7"))
    assert message == f"{tiny.train} has 8 classes, but model.num_classes is 7; set model.num_classes=8"
    assert not (tmp_path / "run").exists()


def listed(tiny: TinyRun, folder: Path, *, broken: int = 0, last_label: int = 7) -> list[str]:
    """Return the words to train on a `path label` list whose first ``broken`` files are not videos."""
    lines = [f"{file} {i % 8}" for i, file in enumerate(tiny.files("train"))]
    for i in range(broken):
        (folder / f"broken{i}.mp4").write_bytes(b"not a video")
        lines[i] = f"{folder / f'broken{i}.mp4'} 0"
    lines[-1] = f"{lines[-1][:-1]}{last_label}"
    (folder / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    manifest = str(folder / "list.txt")
    return train_words(tiny, folder / "run", "--data.train_manifest", manifest, "--data.val_manifest", manifest)


def test_one_class_is_refused(tiny, tmp_path, capsys):
    lines = [f"{file} 0" for file in tiny.files("train")]
    (tmp_path / "ids.txt").write_text("\n".join(lines))
    (tmp_path / "names.csv").write_text("\n".join(["path,label", *(f"{line[:-2]},dancing" for line in lines)]))
    for name, message in (("ids.txt", "model.num_classes is 1"), ("names.csv", f"{tmp_path}/names.csv has 1 class")):
        lists = [word for side in ("train", "val") for word in (f"--data.{side}_manifest", str(tmp_path / name))]
        words = train_words(tiny, tmp_path / "run", *lists, "--model.num_classes", "1")
        assert refused(capsys, *words) == f"{message}; give at least 2 classes"


def test_milestones_after_the_last_epoch_get_a_warning(tiny, tmp_path, capsys):
    words = ["--optim.schedule", "step", "--optim.milestones", "[0.5, 1, 44.5]", "--dry-run"]
    assert main(train_words(tiny, tmp_path / "run", *words)) == 0
    assert capsys.readouterr().err.splitlines()[1] == (
        "warning: optim.milestones has 1, 44.5, but the run ends after trainer.max_epochs 1; the learning rate stays "
        "the same there"
    )


def test_dry_run_refuses_what_a_training_refuses(tiny, tmp_path, capsys, monkeypatch):
    """The checkpoint to resume from, the weights, the warm-up and the output folder, before any video is read."""
    monkeypatch.setattr("dnl_video.training.run.build_run", None)
    (tmp_path / "file").touch()
    last = tiny.run / "checkpoints" / "last.ckpt"
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(last.read_bytes()[:-100])
    for words, message in (
        (["--output", str(tmp_path / "file" / "run")], f"{tmp_path}/file/run: cannot be written (Not a directory); "),
        (["--resume", str(damaged)], f"{damaged}: "),
        (["--resume", "--output", str(tmp_path / "new")], f"{tmp_path}/new: no such checkpoint; "),
        (["--resume", "--optim.gamma", "0.5", "--output", str(tiny.run)], f"{last}: its optim.gamma is 0.1, the "),
        (["--output", str(tiny.run)], f"output_dir {tiny.run} holds a run already; "),
        (["--optim.warmup_epochs", "1"], "optim.warmup_epochs 1 leaves nothing of trainer.max_epochs 1; lower it"),
    ):
        assert refused(capsys, *train_words(tiny, tmp_path / "run", *words, "--dry-run")).startswith(message)
    monkeypatch.undo()
    words = train_words(tiny, tmp_path / "run", "--weights.source", str(tmp_path / "none.pth"), "--dry-run")
    assert refused(capsys, *words).startswith(f"{tmp_path}/none.pth")
    # A resumed run needs no weights, and its folder is not touched.
    words = train_words(tiny, tiny.run, "--trainer.max_epochs", "2", "--resume", "--dry-run")
    before = sorted(tiny.run.rglob("*"))
    assert main(words) == 0
    assert sorted(tiny.run.rglob("*")) == before


def test_label_ids_must_fit(tiny, tmp_path, capsys):
    message = refused(capsys, *listed(tiny, tmp_path, last_label=8))
    assert message == "label 8 in the manifests, but model.num_classes is 8 (labels 0 to 7); set model.num_classes"


def test_labels_that_start_at_1_are_named(tiny, tmp_path, capsys):
    words = listed(tiny, tmp_path)
    path = tmp_path / "list.txt"
    zero = shutil.copy(path, tmp_path / "zero.txt")
    lines = [line.rpartition(" ") for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("\n".join(f"{name} {int(label) + 1}" for name, _, label in lines), encoding="utf-8")
    for word in ("--seed=1", f"--data.val_manifest={zero}"):
        message = refused(capsys, *words, word)
        assert message.endswith("is 8 (labels 0 to 7); no video has label 0; do labels start at 1?")


def test_classes_without_training_videos_are_named(tiny, tmp_path, capsys):
    words = listed(tiny, tmp_path)
    path = tmp_path / "list.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    lost = [f"{line.rpartition(' ')[0]}.gone 5" if line.endswith(" 5") else line for line in lines]
    train = tmp_path / "train.txt"
    train.write_text("\n".join(line for line in lost if not line.endswith(" 3")), encoding="utf-8")
    words += ["--data.train_manifest", str(train), "--data.max_failed_share", "1", "--weights.source", str(path)]
    assert main(words) == 2
    warning = "warning: 2 of 8 classes have no training video: 3, 5; 2 of them have validation videos: 3, 5\n"
    assert warning in capsys.readouterr().err


def test_a_broken_video_is_replaced_counted_and_reported_once(tiny, tmp_path, capsys):
    assert main([*listed(tiny, tmp_path, broken=1), "--trainer.max_epochs", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count(f"warning: {tmp_path / 'broken0.mp4'}: ") == 1
    assert "(1 val videos failed)" in captured.out
    rows = csv.DictReader((tmp_path / "run" / "logs" / "csv" / "metrics.csv").open(encoding="utf-8"))
    assert max(float(row["train/failed_videos"]) for row in rows if row["train/failed_videos"]) == 1.0


def test_too_many_broken_videos_stop_the_run_with_the_list(tiny, tmp_path, capsys):
    message = refused(capsys, *listed(tiny, tmp_path, broken=4))
    assert "of 16 training videos failed or are missing, more than data.max_failed_share 0.02 allows: " in message
    assert any(str(tmp_path / f"broken{i}.mp4") in message for i in range(4))
    assert not list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))


def test_missing_videos_stop_before_training(tiny, tmp_path, capsys):
    message = refused(capsys, *train_words(tiny, tmp_path / "run", "--data.train_root", str(tmp_path)))
    assert message.startswith(f"16 of 16 videos of {tiny.train} are not on disk (allowed: 1): ")
    assert message.endswith("; set data.train_root, or raise data.max_failed_share")


def help_text(capsys: pytest.CaptureFixture[str], option: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["train", option])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_is_short_and_starts_with_examples(capsys):
    printed = help_text(capsys, "--help")
    assert len(printed.splitlines()) <= 80
    assert printed.index("examples:") < printed.index("common options:")
    for word in ("--config", "--output", "--model.context", "--optim.lr", "--resume", "--dry-run", "torchrun"):
        assert word in printed


def test_help_all_shows_every_setting(capsys):
    printed = help_text(capsys, "--help-all")
    # Two fields also have a short name before this one; Python 3.13 prints the value only once.
    assert all(re.search(rf"  (--\S+( \S+)?, )?--{re.escape(key)} ", printed) for key in settings("slow_r50_8x8_dnl"))
    assert "--dry-run" in printed


@pytest.mark.full
def test_a_run_resumes_after_ctrl_c(tiny, tmp_path, full_size):
    words = train_words(tiny, tmp_path / "run", "--trainer.max_epochs", "50")
    with CommandProcess(words, tmp_path / "printed", new_interpreter=full_size) as process:
        while "epoch 2/50" not in process.stdout:
            assert process.returncode() is None, process.stderr
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, process.stderr
    saved = rf"^interrupted; epoch \d+, step \d+ saved in {tmp_path}/run/checkpoints/last.ckpt; "
    assert re.search(saved, process.stdout, re.M)
    assert f"resume with: dnl-video train --config {tmp_path / 'run'}/config.yaml --resume" in process.stdout
    assert process.stderr.splitlines()[-1] == "dnl-video: interrupted; finished work is kept"
    words = ["--config", str(tmp_path / "run" / "config.yaml"), "--trainer.max_epochs", "4", "--resume"]
    assert main(["train", *words]) == 0


def test_a_stopped_final_test_resumes(tiny, tmp_path, monkeypatch, capsys):
    from dnl_video.cli import evaluate

    output = tmp_path / "run"
    shutil.copytree(tiny.run, output)
    words = train_words(tiny, output, "--resume", "--final-test")
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        assert main(words) == 143
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == (
        f"stopped by SIGTERM; resume with: dnl-video train --config {output}/config.yaml --resume --final-test"
    )
    assert captured.err.splitlines()[-1] == "dnl-video: terminated by SIGTERM; finished work is kept"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert main(words) == 0
    assert list(output.glob("evaluation/*/report.json"))


def test_training_starts_from_weights_and_records_them(tiny, tmp_path, capsys):
    start = tmp_path / "start.ckpt"
    shutil.copy(find_checkpoint(tiny.run), start)
    output, words = tmp_path / "run", ["--weights.source", str(start), "--model.context", "pairwise"]
    # A tiny learning rate leaves the weights almost unchanged.
    assert main(train_words(tiny, output, *words, "--optim.lr", "1e-12", "--optim.warmup_start_lr", "0")) == 0
    printed = capsys.readouterr().out
    assert f"weights: {start} (dnl_video)" in printed
    assert "5 tensors left: unary term, which is not of this block" in printed
    trained, source = load_checkpoint(find_checkpoint(output, last=True)), load_checkpoint(start)
    for key, value in trained.state_dict.items():
        if key.endswith("weight"):
            torch.testing.assert_close(value, source.state_dict[key], rtol=1e-4, atol=1e-6)
    started = trained.provenance["started_from"]
    assert (started["source"], started["sha256"], started["origin"]) == (str(start), source.sha256, "dnl_video")
    # Resuming reads only the checkpoint: the source file may be deleted, and its record stays.
    start.unlink()
    words += ["--optim.lr", "1e-12", "--optim.warmup_start_lr", "0", "--trainer.max_epochs", "2", "--resume"]
    assert main(train_words(tiny, output, *words)) == 0
    assert "weights: " not in capsys.readouterr().out
    assert load_checkpoint(find_checkpoint(output, last=True)).provenance["started_from"] == started


def test_weights_that_do_not_fit_stop_before_training(tiny, tmp_path, capsys):
    words = train_words(tiny, tmp_path / "run", "--weights.source", str(tiny.run))
    message = refused(capsys, *words, "--preprocessing.channel_order", "bgr")
    assert message == (
        f"{tiny.run}: its first convolution takes rgb, preprocessing.channel_order is bgr; set "
        "preprocessing.channel_order=rgb"
    )
    message = refused(capsys, *words, "--model.context", "none")
    assert "do not fit i3d_r50 with context none, stem_channels 8" in message
    assert message.endswith("or set drop_blocks")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_loads_the_weights_and_writes_nothing(tiny, tmp_path, capsys):
    words = ["--weights.source", str(tiny.run), "--model.context", "none", "--weights.drop_blocks", "true"]
    words += ["--preprocessing.mean", "[0.5, 0.5, 0.5]", "--dry-run"]
    assert main(train_words(tiny, tmp_path / "run", *words)) == 0
    printed = capsys.readouterr().out
    assert "dry run passed" in printed
    assert "60 tensors left: context blocks without a place here (drop_blocks)" in printed
    assert "note: preprocessing.mean is [0.5, 0.5, 0.5] here and [0.45, 0.45, 0.45] in the source" in printed
    assert not (tmp_path / "run").exists()
