"""Published weights by name, downloaded once into torch.hub's cache.

Addresses: pytorchvideo 0.1.5, models/hub/resnet.py and models/hub/slowfast.py; torchvision, models/resnet.py
(IMAGENET1K_V2). Tests compare them with the installed packages.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch

from dnl_video.errors import InputError, nearest
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
# torch.hub's convention: the file's sha256 begins with what follows the last hyphen. pytorchvideo publishes none.
_HASH = re.compile(r"-([0-9a-f]{8,})\.\w+$")


def pretrained_file(name: str, architecture: Architecture) -> Path:
    """Return the file of published weights for a network, downloading it unless torch.hub's cache has it.

    Processes of one node that ask together download once: the others wait for the first.

    Args:
        name: kinetics400 (pytorchvideo's hub) or imagenet (torchvision's ResNets, to inflate).
        architecture: The network.

    Raises:
        InputError: There are no such weights, they cannot be downloaded, or the cached file has another checksum.
    """
    url = _address(name, architecture)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rpartition("/")[2]
    if file.is_file():
        _check_cached(file)
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(file):
            if not file.is_file():
                _download(url, file)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{url}: download failed ({_reason(error)}); download it by other means and put it at {file}"
        ) from error
    return file


def _address(name: str, architecture: str) -> str:
    if name not in SOURCES:
        raise InputError(f"pretrained is {name!r}; allowed: {', '.join(SOURCES)}, or a file{nearest(name, SOURCES)}")
    if architecture not in SOURCES[name]:
        known = "; ".join(f"{source} for {', '.join(urls)}" for source, urls in SOURCES.items())
        raise InputError(f"no {name} weights of {architecture} are published; there are {known}")
    return SOURCES[name][architecture]


def _check_cached(file: Path) -> None:
    found = _HASH.search(file.name)
    if found is None:
        return
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if not digest.hexdigest().startswith(found[1]):
        raise InputError(
            f"{file}: sha256 is {digest.hexdigest()[:8]}..., published {found[1]}; delete it to download it again"
        )


def _download(url: str, file: Path) -> None:
    """Download beside the file and move what is whole; torch.hub takes a broken connection for the end of the file."""
    expected = _size(url)
    found = _HASH.search(file.name)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as folder:
        part = Path(folder) / file.name
        torch.hub.download_url_to_file(url, str(part), hash_prefix=found[1] if found else None, progress=True)
        size = part.stat().st_size
        if expected is not None and size != expected:
            raise RuntimeError(f"{size} of {expected} bytes came")
        part.replace(file)


def _size(url: str) -> int | None:
    try:
        with urlopen(Request(url, method="HEAD", headers={"User-Agent": "torch.hub"})) as answer:
            length = answer.headers.get("Content-Length")
    except HTTPError:  # some servers refuse HEAD only; what concerns the file, the download says
        return None
    return int(length) if length else None


@contextlib.contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """Hold the lock beside a file. It saves traffic only: without locks (Windows, some network drives) all is safe."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with file.with_name(f".{file.name}.lock").open("w") as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _reason(error: BaseException) -> str:
    if isinstance(error, URLError) and not getattr(error, "code", None):
        error = error.reason if isinstance(error.reason, BaseException) else error
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
