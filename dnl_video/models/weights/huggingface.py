"""Exported models on the Hugging Face hub, by huggingface_hub (extra `hub`): download by name, upload a folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dnl_video.errors import InputError
from dnl_video.models.weights.find import EXPORTED_NAME

_LOG_IN = "check the name; for a private one log in with `hf auth login`, or give a token"
_OFFLINE = "the Hugging Face hub cannot be reached; connect, or give a folder of this machine"
# Class of huggingface_hub.errors, or of the network -> what it means; the first class of an error counts.
_REASONS = {
    "RepositoryNotFoundError": f"no such repository on the Hugging Face hub; {_LOG_IN}",
    "RevisionNotFoundError": "the repository has no such revision; give a branch, a tag or a commit",
    "EntryNotFoundError": f"holds no {EXPORTED_NAME}; `dnl-video export --push-to-hub` uploads one",
    **dict.fromkeys(("LocalEntryNotFoundError", "ConnectionError", "ConnectError"), _OFFLINE),
}


def download(name: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Return the exported model of a repository, kept in huggingface_hub's cache; a local path stays as it is.

    Raises:
        InputError: There is no such repository, revision or file, or the hub cannot be reached.
    """
    if Path(name).exists():
        return Path(name)
    hub = require_hub(str(name))
    try:
        return Path(hub.hf_hub_download(str(name), EXPORTED_NAME, revision=revision, token=token))
    except Exception as error:  # the network can raise anything
        raise _failed(f"{name}@{revision}" if revision else str(name), error) from error


def upload(folder: str | Path, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload the files of an exported folder to a repository, made when missing; return its address.

    Raises:
        InputError: The repository cannot be made or written.
    """
    api = require_hub(repo_id).HfApi(token=token)
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        files = ["model.*", "config.json", "README.md"]
        api.upload_folder(repo_id=repo_id, folder_path=str(folder), allow_patterns=files)
    except Exception as error:  # the network can raise anything
        raise _failed(repo_id, error) from error
    return str(address)


def require_hub(name: str) -> Any:
    """Return the module huggingface_hub, or raise an InputError; also if the name is no ``user/repository``."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{name}: no such file or folder, and not USER/REPOSITORY of the Hugging Face hub")
    try:
        import huggingface_hub
    except ImportError as error:
        needs = "which needs huggingface_hub; pip install 'dnl-video[hub]'"
        raise InputError(f"{name}: taken as a repository of the Hugging Face hub, {needs}") from error
    return huggingface_hub


def _failed(name: str, error: Exception) -> InputError:
    known = (_REASONS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _REASONS)
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    return InputError(f"{name}: {next(known, f'the Hugging Face hub refused ({line}); {_LOG_IN}')}")
