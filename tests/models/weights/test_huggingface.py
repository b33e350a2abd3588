"""Networks on the Hugging Face hub, with a stand-in for huggingface_hub that keeps repositories in folders."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from torch import nn

from dnl_video import EvaluationConfig, InputError, Predictor, load_checkpoint
from dnl_video.cli.main import main
from dnl_video.models.weights import huggingface
from dnl_video.spec import Preprocessing
from tests.conftest import TinyRun

FAST = EvaluationConfig(num_clips=1, num_crops=1)


# The classes of huggingface_hub 1.x's errors.py, by name and descent.
class HfHubHTTPError(OSError): ...


class RepositoryNotFoundError(HfHubHTTPError): ...


class GatedRepoError(RepositoryNotFoundError): ...


class RevisionNotFoundError(HfHubHTTPError): ...


class EntryNotFoundError(Exception): ...


class RemoteEntryNotFoundError(HfHubHTTPError, EntryNotFoundError): ...


class LocalEntryNotFoundError(FileNotFoundError, EntryNotFoundError): ...


class OfflineModeIsEnabled(ConnectionError): ...


class ConnectError(Exception):  # httpx
    ...


class Hub(ModuleType):
    """huggingface_hub with the signatures that we use; `calls` records every call, `error` is raised by all."""

    def __init__(self, folder: Path) -> None:
        super().__init__("huggingface_hub")
        self.folder, self.calls, self.error = folder, [], None

    def _record(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: Any = None, token: Any = None) -> str:
        self._record("hf_hub_download", repo_id, filename, revision, token)
        return str(self.folder / repo_id / filename)

    def HfApi(self, *, token: Any = None) -> Hub:
        self._record("HfApi", token)
        return self

    def create_repo(self, repo_id: str, *, private: Any = None, exist_ok: bool = False) -> str:
        self._record("create_repo", repo_id, private, exist_ok)
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str]) -> None:
        self._record("upload_folder", repo_id)
        (self.folder / repo_id).mkdir(parents=True, exist_ok=True)
        for file in (file for pattern in allow_patterns for file in Path(folder_path).glob(pattern)):
            shutil.copy(file, self.folder / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    return stand_in


def test_a_pushed_predictor_comes_back_with_the_same_scores(hub: Hub, tiny: TinyRun) -> None:
    first = Predictor.from_checkpoint(tiny.run, FAST)
    assert first.push_to_hub("me/tiny", private=True, token="secret") == "https://huggingface.co/me/tiny"
    assert hub.calls == [
        ("HfApi", "secret"), ("create_repo", "me/tiny", True, True), ("upload_folder", "me/tiny"),
    ]  # fmt: skip
    files = {file.name for file in (hub.folder / "me" / "tiny").iterdir()}
    assert files == {"model.safetensors", "config.json", "README.md"}
    hub.calls.clear()
    second = Predictor.from_pretrained("me/tiny", options=FAST, revision="v1", token="secret")
    assert hub.calls == [("hf_hub_download", "me/tiny", "model.safetensors", "v1", "secret")]
    assert second.preprocessing == first.preprocessing
    assert second.class_names == first.class_names
    video = tiny.files()[0]
    assert np.array_equal(first.predict(video).scores, second.predict(video).scores)
    pushed, trained = load_checkpoint(hub.folder / "me" / "tiny"), load_checkpoint(tiny.run)
    assert pushed.provenance["checkpoint_sha256"] == trained.sha256
    assert pushed.config == trained.config
    card = (hub.folder / "me" / "tiny" / "README.md").read_text(encoding="utf-8")
    assert 'dnl_video.Predictor.from_pretrained("me/tiny")' in card
    header, text = card.split("---\n", maxsplit=2)[1:]  # YAML between two lines of dashes
    assert yaml.safe_load(header) == {"pipeline_tag": "video-classification", "tags": ["action-recognition"]}
    assert text.startswith("\n# i3d_r50 + dnl\n")


def test_export_uploads_its_folder_and_nothing_else_in_it(
    hub: Hub, tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "private.txt").write_text("mine")
    words = ["export", "--checkpoint", str(tiny.run), "--push-to-hub", "me/tiny", "--output"]
    assert main([*words, str(out)]) == 0
    assert "uploaded to https://huggingface.co/me/tiny\n" in capsys.readouterr().out
    assert hub.calls[1:] == [("create_repo", "me/tiny", False, True), ("upload_folder", "me/tiny")]
    assert not (hub.folder / "me" / "tiny" / "private.txt").exists()
    assert main([*words, str(tmp_path / "m.safetensors")]) == 2
    assert "--push-to-hub uploads a folder; give --output a folder in place of" in capsys.readouterr().err
    assert not (tmp_path / "m.safetensors").exists()


def test_folders_need_no_huggingface_hub(tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # `import` raises ImportError
    assert main(["export", "--checkpoint", str(tiny.run), "--output", str(tmp_path / "folder")]) == 0
    for place in (tmp_path / "folder", str(tiny.run)):
        assert Predictor.from_pretrained(place, options=FAST).class_names == load_checkpoint(tiny.run).class_names


@pytest.mark.parametrize("command", [False, True])
def test_without_the_extra(
    command: bool, tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = "me/tiny: taken as a repository of the Hugging Face hub, which needs huggingface_hub; pip install "
    said += "'dnl-video[hub]'"
    if command:
        words = ["--output", str(tmp_path / "folder"), "--push-to-hub", "me/tiny"]
        assert main(["export", "--checkpoint", str(tiny.run), *words]) == 2
        assert capsys.readouterr().err == f"dnl-video: error: {said}\n"
        assert not (tmp_path / "folder").exists()  # found before the work
    else:
        with pytest.raises(InputError) as error:
            Predictor.from_pretrained("me/tiny")
        assert str(error.value) == said


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RepositoryNotFoundError("401 Client Error\n\nURL"), "no such repository on the Hugging Face hub; check"),
        (GatedRepoError("403"), "no such repository on the Hugging Face hub; check the name; for a private one"),
        (RevisionNotFoundError("404"), "the repository has no such revision; give a branch, a tag or a commit"),
        (RemoteEntryNotFoundError("404"), "holds no model.safetensors; `dnl-video export --push-to-hub` uploads"),
        (LocalEntryNotFoundError("no cache"), "the Hugging Face hub cannot be reached; connect, or give a folder"),
        (OfflineModeIsEnabled("HF_HUB_OFFLINE"), "the Hugging Face hub cannot be reached; connect, or"),
        (ConnectError("[Errno -3]"), "the Hugging Face hub cannot be reached; connect, or"),
        (HfHubHTTPError("500 Server\nmore"), "the Hugging Face hub refused (500 Server); check the name; for"),
        (ValueError(), "the Hugging Face hub refused (ValueError); check the name"),
    ],
)  # fmt: skip
def test_errors_of_the_hub_are_one_line(error: Exception, message: str, hub: Hub, tmp_path: Path) -> None:
    hub.error = error
    with pytest.raises(InputError) as raised:
        huggingface.download("me/x", revision="v1")
    assert str(raised.value).startswith(f"me/x@v1: {message}")
    assert "\n" not in str(raised.value)


def test_a_failed_upload_is_one_line(hub: Hub, tmp_path: Path) -> None:
    api = hub.HfApi()
    hub.error = HfHubHTTPError("403 Forbidden: you have no right to write")
    hub.HfApi = lambda **_: api  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"^me/x: the Hugging Face hub refused \(403 Forbidden: you have .*; check"):
        huggingface.upload(tmp_path, "me/x")


@pytest.mark.parametrize("name", ["nowhere", "./a/b/c", "gone.ckpt", "/tmp/gone/model"])
def test_names_that_are_neither_path_nor_repository(name: str, hub: Hub) -> None:
    with pytest.raises(InputError) as error:
        Predictor.from_pretrained(name)
    assert str(error.value) == f"{name}: no such file or folder, and not USER/REPOSITORY of the Hugging Face hub"
    assert hub.calls == []


def test_a_network_without_a_spec_is_not_pushed(hub: Hub) -> None:
    with pytest.raises(InputError, match=r"^Linear has no ModelSpec; push a network of create_model$"):
        Predictor(nn.Linear(1, 1), Preprocessing(), ["a"]).push_to_hub("me/x")
