"""Training options: short runs compared with loops, formulas and tables written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dnl_video.config import TrainConfig
from dnl_video.errors import InputError
from dnl_video.inference.device import check_cpu_precision
from dnl_video.models.build import build_model
from dnl_video.models.weights.checkpoint import load_checkpoint
from dnl_video.training import module as training_module
from dnl_video.training import precision
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.run import train
from tests.conftest import TinyRun
from tests.training.runs import configured, data_of, final_weights, logged


def short(tiny: TinyRun, output: Path, **changes: dict[str, Any]) -> TrainConfig:
    """Train a bare network for two steps of four clips, with SGD at a constant rate, and the given changes."""
    plain: dict[str, dict[str, Any]] = {
        # Residual branches that start at zero limit the growth of rounding errors.
        "model": {"context": "none", "zero_init_residual": True},
        "data": {"limit_videos": 8, "batch_size": 4},
        "optim": {
            "optimizer": "sgd",
            "lr": 0.002,
            "lr_batch": None,
            "weight_decay": 0.0,
            "schedule": "step",
            "milestones": (100.0,),
            "warmup_epochs": 0.0,
            "precise_bn_batches": 0,
        },
    }
    return configured(
        tiny, output, **{section: plain.get(section, {}) | changes.get(section, {}) for section in plain | changes}
    )


def differing(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    assert found.keys() == expected.keys()
    return [name for name in expected if not torch.equal(found[name], expected[name])]


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-4, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture(scope="module")
def plain(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with default options."""
    output = tmp_path_factory.mktemp("plain")
    train(short(tiny, output))
    return output


def by_hand(config: TrainConfig, clip_norm: float, smoothing: float) -> tuple[dict[str, Tensor], list[float]]:
    """Train in plain torch; return the weights, and the gradients' norms before clipping."""
    torch.manual_seed(config.seed)
    network = build_model(config.model).train()
    velocity = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    norms = []
    for batch in data_of(config).train_dataloader():
        clips = (batch["clip"].permute(0, 4, 1, 2, 3).float() / 255 - 0.45) / 0.225
        log_p = network(clips).log_softmax(dim=1)
        targets = nn.functional.one_hot(batch["label"], 8) * (1 - smoothing) + smoothing / 8
        network.zero_grad()
        (-(targets * log_p).sum(dim=1).mean()).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(network.parameters(), clip_norm)))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                # Nesterov momentum as in torch.
                velocity[name] = 0.9 * velocity[name] + parameter.grad
                parameter -= config.optim.lr * (parameter.grad + 0.9 * velocity[name])
    return {f"network.{name}": value for name, value in network.state_dict().items()}, norms


def test_clipping_and_label_smoothing_equal_a_loop_by_hand(tiny: TinyRun, tmp_path: Path) -> None:
    changes = {"optim": {"label_smoothing": 0.2, "lr": 0.02}, "trainer": {"gradient_clip_val": 0.5}}
    config = short(tiny, tmp_path, **changes)
    train(config)
    expected, norms = by_hand(config, clip_norm=0.5, smoothing=0.2)
    assert min(norms) > 0.5
    found = {name: value for name, value in final_weights(tmp_path).items() if name in expected}
    assert_close(found, expected, 1e-6)
    # Either of the two moves the weights by more than the tolerance.
    for wrong in (by_hand(config, 1e9, 0.2)[0], by_hand(config, 0.5, 0.0)[0]):
        with pytest.raises(AssertionError):
            assert_close(found, wrong, 1e-6)


# Three epochs of two steps; a fractional epoch every half.
COSINE = [0.01, (0.01 + 0.075) / 2, 0.075, 0.05, 0.025, 0.05 * (1 - 3**0.5 / 2)]
STEPS = [0.1, 0.1, 0.01, 0.01, 0.01, 0.001]


@pytest.mark.parametrize(
    ("optim", "accumulate", "table"),
    [
        ({"schedule": "cosine", "warmup_epochs": 1.0, "warmup_start_lr": 0.01}, 1, COSINE),
        ({"schedule": "step", "milestones": (1.0, 2.5)}, 2, STEPS),
    ],
    ids=["cosine with warm-up", "steps, accumulating"],
)
def test_learning_rate_of_every_step(
    optim: dict[str, Any], accumulate: int, table: list[float], tiny: TinyRun, tmp_path: Path
) -> None:
    config = short(
        tiny,
        tmp_path,
        optim={"lr": 0.1, **optim},
        data={"limit_videos": 8, "batch_size": 4 // accumulate},
        trainer={"max_epochs": 3, "check_val_every_n_epoch": 3, "accumulate_grad_batches": accumulate},
    )
    train(config)
    rates = logged(tmp_path, "lr-SGD")
    assert list(rates) == list(range(6))
    assert list(rates.values()) == pytest.approx(table)


def test_activation_checkpointing_gives_the_same_run(tiny: TinyRun, tmp_path: Path, plain: Path) -> None:
    train(short(tiny, tmp_path, trainer={"activation_checkpointing": True}))
    assert differing(final_weights(tmp_path), final_weights(plain)) == []
    assert logged(tmp_path, "val/loss") == logged(plain, "val/loss")


def test_channels_last_in_training_and_checkpoints(
    tiny: TinyRun, tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def layouts(network: nn.Module) -> set[bool]:
        # A kernel with one position or one input channel has both layouts.
        spread = [p for p in network.parameters() if p.ndim == 5 and p.shape[1] > 1 and p[0, 0].numel() > 1]
        return {p.is_contiguous(memory_format=torch.channels_last_3d) for p in spread}

    seen = []
    step = VideoTrainingModule.training_step

    def watched(self: VideoTrainingModule, *args: Any) -> Tensor:
        seen.append(layouts(self.network))
        return step(self, *args)

    monkeypatch.setattr(VideoTrainingModule, "training_step", watched)
    config = short(tiny, tmp_path, trainer={"channels_last": True})
    train(config)
    assert seen == [{True}, {True}]
    last, usual = final_weights(tmp_path), final_weights(plain)
    assert_close(last, usual, 1e-4)
    # Each layout loads a checkpoint of the other.
    assert layouts(load_checkpoint(tmp_path).build()) == {False}
    module = VideoTrainingModule(config, [str(i) for i in range(8)])
    module.load_state_dict(usual)
    assert layouts(module.network) == {True}
    assert differing(dict(module.state_dict()), usual) == []


def test_bf16_computes_in_bf16_and_keeps_weights_in_float32(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        check_cpu_precision("bf16-mixed")
    except InputError:
        pytest.skip("this processor emulates bf16")
    dtypes: set[torch.dtype] = set()
    step = VideoTrainingModule.training_step

    def watched(self: VideoTrainingModule, *args: Any) -> Tensor:
        stem = self.network.blocks[0].conv  # type: ignore[union-attr]
        with stem.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype)):  # type: ignore
            loss = step(self, *args)
        dtypes.add(loss.dtype)
        return loss

    monkeypatch.setattr(VideoTrainingModule, "training_step", watched)
    # One step: its loss is correct even where the gradients are not.
    monkeypatch.setattr(precision, "bf16_gradients_are_correct", lambda: True)
    train(short(tiny, tmp_path, data={"limit_videos": 8, "batch_size": 8}, trainer={"precision": "bf16-mixed"}))
    assert dtypes == {torch.bfloat16, torch.float32}
    weights = final_weights(tmp_path)
    assert {w.dtype for name, w in weights.items() if name.endswith("weight")} == {torch.float32}
    exact = short(tiny, tmp_path / "exact", data={"limit_videos": 8, "batch_size": 8})
    train(exact)
    losses = logged(tmp_path, "train/loss"), logged(tmp_path / "exact", "train/loss")
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_fp16_needs_a_gpu(tiny: TinyRun, tmp_path: Path) -> None:
    config = short(tiny, tmp_path, trainer={"precision": "16-mixed", "accelerator": "cpu"})
    with pytest.raises(InputError, match=r"trainer\.precision 16-mixed needs a GPU; use bf16-mixed or 32-true"):
        train(config)


def correct_conv3d(clip: Tensor, weight: Tensor, padding: tuple[int, int, int]) -> Tensor:
    """Compute the convolution in float32, one temporal tap after the other."""
    size = clip.shape[2]
    padded = nn.functional.pad(clip.float(), (0, 0, 0, 0, 1, 1))
    taps = [
        torch.einsum("bcthw,dc->bdthw", padded[:, :, k : k + size], weight[:, :, k, 0, 0].float()) for k in range(3)
    ]
    return sum(taps).to(clip.dtype)  # type: ignore[union-attr, return-value]


def test_bf16_with_wrong_gradients_is_refused(tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unwritten_tap(clip: Tensor, weight: Tensor, padding: tuple[int, int, int]) -> Tensor:
        kept = (
            torch.cat([weight[:, :, :1].detach(), weight[:, :, 1:]], dim=2) if clip.dtype == torch.bfloat16 else weight
        )
        return correct_conv3d(clip, kept, padding)

    monkeypatch.setattr(nn.functional, "conv3d", correct_conv3d)
    assert precision.bf16_gradients_are_correct()
    monkeypatch.setattr(nn.functional, "conv3d", unwritten_tap)
    assert not precision.bf16_gradients_are_correct()
    config = short(tiny, tmp_path, trainer={"precision": "bf16-mixed", "accelerator": "cpu"})
    message = (
        r"trainer\.precision bf16-mixed: on this CPU torch .* wrong gradients of temporal convolutions in bf16; use"
    )
    with pytest.raises(InputError, match=message):
        train(config)
    assert not list(tmp_path.iterdir())


def test_compiled_run_equals_the_eager_run(tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train and validate a stem, one residual block and the head, because tracing is slow."""

    def shallow(spec: Any) -> nn.Module:
        network = build_model(spec)
        stem, stage, *_, head = network.blocks
        stage.res_blocks = stage.res_blocks[:1]  # type: ignore[union-attr, index]
        head.proj = nn.Linear(32, 8)  # type: ignore[assignment]
        network.blocks = nn.ModuleList([stem, stage, head])
        return network

    compiled = []
    original = nn.Module.compile

    def trace(self: nn.Module) -> None:
        # aot_eager traces forward and backward like inductor, without compiling C++.
        compiled.append(self)
        original(self, backend="aot_eager")

    monkeypatch.setattr(training_module, "build_model", shallow)
    monkeypatch.setattr(nn.Module, "compile", trace)
    torch._dynamo.reset()
    for name in ("eager", "compiled"):
        train(short(tiny, tmp_path / name, optim={"precise_bn_batches": 2}, trainer={"compile": name == "compiled"}))
    assert [type(network).__name__ for network in compiled] == ["VideoClassifier"]
    eager, traced = tmp_path / "eager", tmp_path / "compiled"
    for column in ("train/loss", "val/loss", "val/top1"):
        assert logged(traced, column) == pytest.approx(logged(eager, column), rel=1e-4)
    assert_close(final_weights(traced), final_weights(eager))
