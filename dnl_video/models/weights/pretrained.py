"""Published weights by name, downloaded once into torch.hub's cache.

Addresses: pytorchvideo 0.1.5, models/hub/resnet.py and models/hub/slowfast.py; torchvision, models/resnet.py
(IMAGENET1K_V2). Tests compare them with the installed packages.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch

from dnl_video.errors import InputError, nearest
from dnl_video.files import atomic_path, locked
from dnl_video.models.weights.source import Source
from dnl_video.spec import Architecture

_KINETICS = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"
_IMAGENET = {
    "r50": "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    "r101": "https://download.pytorch.org/models/resnet101-cd907fc2.pth",
}
SOURCES: dict[str, dict[str, str]] = {
    "kinetics400": {
        "slow_r50": f"{_KINETICS}/SLOW_8x8_R50.pyth",
        "c2d_r50": f"{_KINETICS}/C2D_8x8_R50.pyth",
        "i3d_r50": f"{_KINETICS}/I3D_8x8_R50.pyth",
        "slowfast_r50": f"{_KINETICS}/SLOWFAST_8x8_R50.pyth",
        "slowfast_r101": f"{_KINETICS}/SLOWFAST_8x8_R101.pyth",
    },
    "imagenet": {f"{family}_{depth}": url for family in ("slow", "c2d", "i3d") for depth, url in _IMAGENET.items()},
}
# torch.hub's convention: the first digits of the file's sha256 follow the last hyphen. pytorchvideo's names have none.
_HASH = re.compile(r"-([0-9a-f]{8,})\.\w+$")


def pretrained_file(name: str, architecture: Architecture) -> Source:
    """Return the file of published weights for a network; download it unless torch.hub's cache has it.

    If several processes of a node need it, one downloads it and the others wait.

    Args:
        name: kinetics400 (pytorchvideo's hub) or imagenet (torchvision's ResNets, to inflate).
        architecture: The network.

    Raises:
        InputError: There are no such weights, they cannot be downloaded, or the cached file has another checksum.
    """
    url = _address(name, architecture)
    source = Source(Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2])
    if source.path.is_file():
        found = _HASH.search(source.path.name)
        if found is not None and not source.sha256.startswith(found[1]):
            raise InputError(
                f"{source.path}: sha256 is {source.sha256[:8]}..., published {found[1]}; delete it to download it again"
            )
        return source
    try:
        source.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(source.path.with_name(f".{source.path.name}.lock")):
            if not source.path.is_file():
                _download(url, source.path)
    except (OSError, RuntimeError) as error:
        raise _failed(url, source.path, error) from error
    return source


def _address(name: str, architecture: str) -> str:
    if name not in SOURCES:
        raise InputError(f"pretrained is {name!r}; allowed: {', '.join(SOURCES)}, or a file{nearest(name, SOURCES)}")
    if architecture not in SOURCES[name]:
        known = "; ".join(f"{source} for {', '.join(urls)}" for source, urls in SOURCES.items())
        raise InputError(f"no {name} weights of {architecture} are published; there are {known}")
    return SOURCES[name][architecture]


def _download(url: str, file: Path) -> None:
    """Download atomically and check the size, because torch.hub accepts a file that a lost connection cut short."""
    with atomic_path(file) as part:
        try:
            expected, found = _size(url), _HASH.search(file.name)
            torch.hub.download_url_to_file(url, str(part), hash_prefix=found[1] if found else None, progress=True)
            if expected is not None and part.stat().st_size != expected:
                raise RuntimeError(f"{part.stat().st_size} of {expected} bytes arrived")
        except (OSError, RuntimeError) as error:
            raise _failed(url, file, error) from error


def _size(url: str) -> int | None:
    try:
        with urlopen(Request(url, method="HEAD", headers={"User-Agent": "torch.hub"})) as answer:
            length = answer.headers.get("Content-Length")
    except HTTPError:  # some servers refuse only HEAD; the download reports other errors
        return None
    return int(length) if length else None


def _failed(url: str, file: Path, error: BaseException) -> InputError:
    if isinstance(error, URLError) and isinstance(error.reason, BaseException) and not getattr(error, "code", None):
        error = error.reason
    lines = str(error).strip().splitlines()
    reason = lines[0][:120] if lines else type(error).__name__
    ways = "or train with --weights.source FILE, or --weights.source null (random weights)"
    return InputError(f"{url}: download failed ({reason}); download it by other means and put it at {file}, {ways}")
