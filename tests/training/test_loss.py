"""The training loss with class weights, against loops from its definition, and balanced runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dnl_video.data.balance import class_weights
from dnl_video.data.dataset import ClipDataset
from dnl_video.data.manifest import read_manifest
from dnl_video.errors import InputError
from dnl_video.training.module import VideoTrainingModule, cross_entropy
from dnl_video.training.run import train
from tests.conftest import TinyRun
from tests.training.runs import check_logged_top1, configured, final_weights, interrupted, logged

LABELS = [0, 2, 1, 0]
SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0], [0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
WEIGHTS = torch.tensor([0.5, 1.0, 3.0])


def by_definition(logits: torch.Tensor, soft: list[list[float]], smoothing: float) -> float:
    """Return the mean over clips of the weighted cross entropies of all labels of a clip."""
    total = 0.0
    for scores, shares in zip(logits.double().log_softmax(dim=1).tolist(), soft, strict=True):
        for label, share in enumerate(shares):
            smoothed = [smoothing / 3 + (1 - smoothing) * (k == label) for k in range(3)]
            total += share * float(WEIGHTS[label]) * -sum(q * s for q, s in zip(smoothed, scores, strict=True))
    return total / len(soft)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_class_weights_with_soft_labels_and_label_smoothing(mixed: bool, smoothing: float) -> None:
    logits = torch.randn(4, 3)
    target = SOFT if mixed else torch.tensor(LABELS)
    soft = SOFT.tolist() if mixed else torch.eye(3)[LABELS].tolist()
    loss = cross_entropy(logits, target, WEIGHTS, smoothing)
    assert float(loss) == pytest.approx(by_definition(logits, soft, smoothing), rel=1e-5)
    # Equal weights are no weights.
    plain = cross_entropy(logits, target, None, smoothing)
    torch.testing.assert_close(cross_entropy(logits, target, torch.ones(3), smoothing), plain)


def uneven(tiny: TinyRun, folder: Path) -> Path:
    """Write a list with all 16 training videos of the tiny run, where the first class has only one."""
    lines = tiny.train.read_text(encoding="utf-8").splitlines()
    column = lines[0].split(",").index("label")
    names = [line.split(",")[column] for line in lines[1:]]
    rare = names[0]
    kept = [line for line, name in zip(lines[1:], names, strict=True) if name != rare]
    file = folder / "uneven.csv"
    file.write_text("\n".join([lines[0], lines[1], *kept]) + "\n", encoding="utf-8")
    return file


def test_weights_reach_the_training_loss_and_not_the_validation(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"train_manifest": str(uneven(tiny, tmp_path)), "train_root": str(tiny.train.parent), "balance": "weights"}
    seen: list[VideoTrainingModule] = []
    original = VideoTrainingModule.on_train_start
    monkeypatch.setattr(VideoTrainingModule, "on_train_start", lambda self: seen.append(self) or original(self))
    train(configured(tiny, tmp_path / "run", data=data))
    (module,) = seen
    labels = [record.label for record in module.trainer.datamodule.train.records]  # type: ignore[attr-defined]
    assert module.class_weights is not None
    assert module.class_weights.tolist() == pytest.approx(class_weights(labels, 8).tolist())
    clips, target = torch.randn(2, 3, 4, 64, 64), torch.tensor([0, 7])
    loss, logits = module.eval().loss(clips, target)
    torch.testing.assert_close(loss, cross_entropy(logits, target, module.class_weights, 0.0))
    assert not torch.allclose(loss, torch.nn.functional.cross_entropy(logits, target))
    evaluated = check_logged_top1(tmp_path / "run", tiny, tmp_path / "evaluation")
    expected = -np.log(evaluated.scores[np.arange(8), evaluated.label]).mean()
    assert [*logged(tmp_path / "run", "val/loss").values()] == pytest.approx([expected], rel=1e-4)
    assert not [name for name in final_weights(tmp_path / "run") if "class_weights" in name]
    with pytest.raises(InputError, match=r"its data\.balance is weights, the configuration's is none"):
        train(configured(tiny, tmp_path / "run", data=data | {"balance": "none"}), resume="last")


def test_a_balanced_run_resumes_exactly(tiny: TinyRun, tmp_path: Path) -> None:
    changes = {
        "data": {
            "train_manifest": str(uneven(tiny, tmp_path)),
            "train_root": str(tiny.train.parent),
            "balance": "sampler",
            "batch_size": 4,
        },
        "augment": {"repeats": 2},
        "trainer": {"save_every_n_steps": 2},
    }
    train(configured(tiny, tmp_path / "whole", **changes))
    config = configured(tiny, tmp_path / "parts", **changes)
    interrupted(config, VideoTrainingModule, "training_step", 4)
    train(config, resume="last")
    whole, parts = final_weights(tmp_path / "whole"), final_weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_further_draws_of_a_video_show_other_clips(tiny: TinyRun, tmp_path: Path) -> None:
    config = configured(tiny, tmp_path)
    records = read_manifest(tiny.train).records
    config.augment.short_side, config.augment.repeats = (64, 80), 2
    dataset = ClipDataset(records, config.preprocessing, config.augment, seed=0)
    first, second = dataset[0, 3], dataset[0, 3 + len(records)]
    assert (first["index"], first["label"]) == (second["index"], second["label"])
    clips = [clip.numpy().tobytes() for sample in (first, second) for clip in sample["clips"]]
    assert len(set(clips)) == 4
    again = dataset[0, np.int64(3 + len(records))]["clips"][0]
    assert torch.equal(second["clips"][0], again)
