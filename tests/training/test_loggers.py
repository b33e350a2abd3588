"""Other loggers than those of the run's folder, with stub packages in place of the real ones."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import mlflow, wandb

from dnl_video.config import TrainConfig, TrainerConfig
from dnl_video.errors import InputError
from dnl_video.training.trainer import make_loggers
from tests.conftest import TinyRun
from tests.training.runs import configured, train


def config_with(option: str) -> TrainConfig:
    return TrainConfig(trainer=TrainerConfig(**{option: "motions"}))


@pytest.mark.parametrize(("option", "package"), [("wandb_project", "wandb"), ("mlflow_experiment", "mlflow")])
def test_a_logger_that_is_not_installed_is_one_line(
    option: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "_MLFLOW_AVAILABLE", False)
    monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", False)
    with pytest.raises(InputError) as refused:
        make_loggers(config_with(option), tmp_path)
    assert str(refused.value) == f"trainer.{option} is set but {package} is not installed; pip install {package}"


class Client:
    """A server of MLflow in memory."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.experiments: list[str] = []
        self.tags: dict[str, str] = {}
        self.metrics: dict[str, dict[int, float]] = {}
        self.status = ""

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        self.experiments.append(name)
        return "0"

    def create_run(self, experiment_id: str, tags: dict[str, str]) -> Any:
        self.tags = tags
        return SimpleNamespace(info=SimpleNamespace(run_id="run"))

    def get_run(self, run_id: str) -> str:
        return run_id

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        for metric in metrics:
            self.metrics.setdefault(metric.key, {})[metric.step] = metric.value

    def set_terminated(self, run_id: str, status: str) -> None:
        self.status = status


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    """Install a stub of MLflow; return the clients that are made."""
    made: list[Client] = []

    def client(uri: str) -> Client:
        made.append(Client(uri))
        return made[-1]

    contents: dict[str, dict[str, Any]] = {
        "mlflow": {"set_tracking_uri": lambda uri: None},
        "mlflow.tracking": {"MlflowClient": client},
        "mlflow.tracking.context.registry": {"resolve_tags": lambda tags: tags},
        "mlflow.entities": {"Metric": SimpleNamespace, "Param": SimpleNamespace},
        "mlflow.utils.mlflow_tags": {"MLFLOW_RUN_NAME": "run name"},
    }
    for name in ("mlflow.tracking.context", "mlflow.utils", *contents):
        module = ModuleType(name)
        vars(module).update(contents.get(name, {}))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(mlflow, "_MLFLOW_AVAILABLE", True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


def test_mlflow_receives_the_metrics_of_a_run(tiny: TinyRun, tmp_path: Path, clients: list[Client]) -> None:
    result = train(configured(tiny, tmp_path / "first", trainer={"mlflow_experiment": "motions"}))
    (client,) = clients
    assert (client.uri, client.experiments, client.tags) == ("sqlite:///mlflow.db", ["motions"], {"run name": "first"})
    assert list(client.metrics["val/top1"].values()) == pytest.approx([result.best_top1], abs=1e-4)
    assert {"train/loss", "train/top1", "val/loss"} <= client.metrics.keys()
    assert client.status == "FINISHED"


def test_mlflow_uses_the_server_of_the_environment(
    tmp_path: Path, clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    make_loggers(config_with("mlflow_experiment"), tmp_path)
    assert clients[0].uri == "http://server"
