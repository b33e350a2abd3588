"""Training without a validation list: messages, the result, and its batch-norm statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn

from dnl_video.cli.main import main
from dnl_video.data.transforms import normalize
from dnl_video.errors import InputError
from dnl_video.models.weights.checkpoint import load_checkpoint
from dnl_video.training.run import train
from tests.cli.test_show import show
from tests.conftest import TinyRun
from tests.training.runs import configured, data_of, final_weights


def test_messages_and_files(tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    words = ["train", "--config", str(tiny.config), "--output", str(output), "--data.val_manifest", "null"]
    assert main([*words, "--dry-run"]) == 0
    checked = capsys.readouterr().out
    assert "dry run passed: lists, decoding, one short epoch and a checkpoint all work" in checked
    assert ["validation", "videos", "0"] in map(str.split, checked.splitlines())
    assert main([*words, "--final-test"]) == 2
    assert "--final-test has no videos; give a list, or leave it out" in capsys.readouterr().err
    assert not output.exists()
    for more in ([], ["--resume"]):
        assert main([*words, *more]) == 0
        printed = capsys.readouterr()
        last = output / "checkpoints" / "last.ckpt"
        assert printed.out.splitlines()[-1] == f"last checkpoint: {last}"
        assert f"next: dnl-video evaluate --checkpoint {output} --manifest LIST" in printed.err
        assert "nan" not in printed.out
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    facts = show(capsys, output)
    assert facts["weights"]["file"] == facts["progress"]["last checkpoint"] == str(last)
    assert "validation top-1" not in facts["weights"]
    assert not [name for name in facts["progress"]["metrics"] if name.startswith("val/")]
    assert facts["next"][0] == f"dnl-video evaluate --checkpoint {output} --manifest LIST"
    given = configured(tiny, output, trainer={"max_epochs": 2})
    with pytest.raises(InputError, match=r"its data\.val_manifest is null, the configuration's is .*val\.csv"):
        train(given, resume="last")


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_last_checkpoint_has_precise_statistics(ema: float | None, tiny: TinyRun, tmp_path: Path) -> None:
    optim = {"precise_bn_batches": 2, "ema_decay": ema}
    changes: dict[str, Any] = {"optim": optim, "trainer": {"max_epochs": 2}}
    config = configured(tiny, tmp_path / "run", data={"val_manifest": None}, **changes)
    result = train(config)
    assert result.best_checkpoint.name == "last.ckpt"
    network = load_checkpoint(result.best_checkpoint).build()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    found = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.train()
    assert len(get_bn_modules(network)) == len(norms)
    batches = data_of(config).precise_bn_dataloader(1)
    update_bn_stats(network, (normalize(b["clip"], (0.45,) * 3, (0.225,) * 3) for b in batches), num_iters=2)
    for norm, (mean, variance) in zip(norms, found, strict=True):
        torch.testing.assert_close(mean, norm.running_mean)
        torch.testing.assert_close(variance, norm.running_var)
    # Validation changes no weight.
    train(configured(tiny, tmp_path / "validated", **changes))
    weights, other = final_weights(tmp_path / "run"), final_weights(tmp_path / "validated")
    names = dict(network.named_parameters())
    assert all(torch.equal(weights[f"network.{name}"], other[f"network.{name}"]) for name in names)
