"""Exported models on the Hugging Face hub: download by name, upload a folder. Needs the extra `hub`.

API: huggingface_hub's file_download.py (`hf_hub_download`), hf_api.py (`create_repo`, `upload_folder`) and errors.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dnl_video.errors import InputError
from dnl_video.models.weights.find import EXPORTED_NAME

_LOG_IN = "check the name; for a private one log in with `hf auth login`, or give a token"
# Name of an error of huggingface_hub -> what it means here. An error takes the first of its classes.
_REASONS = {
    "GatedRepoError": "its owner must grant access; ask for it on its page, then log in with `hf auth login`",
    "RepositoryNotFoundError": f"no such repository on the Hugging Face hub; {_LOG_IN}",
    "RevisionNotFoundError": "the repository has no such revision; give a branch, a tag or a commit",
    "LocalEntryNotFoundError": "the Hugging Face hub cannot be reached; connect, or give a folder of this machine",
    "EntryNotFoundError": f"holds no {EXPORTED_NAME}; `dnl-video export --push-to-hub` uploads one",
    "ConnectionError": "the Hugging Face hub cannot be reached; check the connection",
    "ConnectError": "the Hugging Face hub cannot be reached; check the connection",
}


def download(name: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Return the exported model of a repository; huggingface_hub keeps it in its cache.

    Args:
        name: ``user/repository``. A path of this machine is returned as it is.
        revision: Branch, tag or commit of the repository; None for its main branch.
        token: Access token; None for the one of `hf auth login`.

    Raises:
        InputError: There is no such repository, revision or file in it, it cannot be reached, or huggingface_hub is not
            installed.
    """
    if Path(name).exists():
        return Path(name)
    hub = require_hub(str(name))
    try:
        return Path(hub.hf_hub_download(str(name), EXPORTED_NAME, revision=revision, token=token))
    except Exception as error:  # the network and the library can raise anything
        raise _failed(f"{name}@{revision}" if revision else str(name), error) from error


def upload(folder: str | Path, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload the files of an exported folder, and return the address of the repository.

    Args:
        folder: A folder that `export_model` wrote.
        repo_id: ``user/repository``; made if there is none.
        private: Make a new repository private.
        token: Access token; None for the one of `hf auth login`.

    Raises:
        InputError: The repository cannot be made or written, or huggingface_hub is not installed.
    """
    api = require_hub(repo_id).HfApi(token=token)
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        patterns = [Path(EXPORTED_NAME).stem + ".*", "config.json", "README.md"]
        api.upload_folder(repo_id=repo_id, folder_path=str(folder), allow_patterns=patterns)
    except Exception as error:  # the network and the library can raise anything
        raise _failed(repo_id, error) from error
    return str(address)


def require_hub(name: str) -> Any:
    """Return the module huggingface_hub.

    Raises:
        InputError: The name is no ``user/repository``, or the module is not installed.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{name}: no such file or folder, and not USER/REPOSITORY of the Hugging Face hub")
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f"{name}: taken as a repository of the Hugging Face hub, which needs huggingface_hub; pip install "
            "'dnl-video[hub]'"
        ) from error
    return huggingface_hub


def _failed(name: str, error: Exception) -> InputError:
    known = [_REASONS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _REASONS]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(f"{name}: {known[0] if known else f'the Hugging Face hub refused ({lines[0][:120]}); {_LOG_IN}'}")
