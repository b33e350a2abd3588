"""Published weights by name: addresses as in the installed packages, downloads from files and a local server."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from pathlib import Path

import pytest
import torch
import torchvision
from pytorchvideo.models.hub import resnet as hub_resnet
from pytorchvideo.models.hub import slowfast as hub_slowfast

from dnl_video.errors import InputError
from dnl_video.models.weights import pretrained
from dnl_video.models.weights.pretrained import SOURCES, pretrained_file

CONTENT = b"some weights" * 100


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in place of the published one of slow_r50."""
    file = tmp_path / "origin" / "SLOW_8x8_R50.pyth"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    monkeypatch.setitem(SOURCES["kinetics400"], "slow_r50", file.as_uri())
    return file


def test_addresses_equal_those_of_the_packages() -> None:
    theirs = hub_resnet.checkpoint_paths | hub_slowfast.checkpoint_paths
    assert SOURCES["kinetics400"] == {
        name: theirs[name] for name in ("slow_r50", "c2d_r50", "i3d_r50", "slowfast_r50", "slowfast_r101")
    }
    models = torchvision.models
    r50, r101 = models.ResNet50_Weights.IMAGENET1K_V2.url, models.ResNet101_Weights.IMAGENET1K_V2.url
    assert SOURCES["imagenet"] == {
        f"{family}_{depth}": url for family in ("slow", "c2d", "i3d") for depth, url in (("r50", r50), ("r101", r101))
    }


def test_a_file_is_downloaded_once(origin: Path, cache: Path) -> None:
    file = pretrained_file("kinetics400", "slow_r50").path
    # The name that torch.hub.load_state_dict_from_url uses: files that pytorchvideo downloaded are found.
    assert file == cache / "SLOW_8x8_R50.pyth"
    assert file.read_bytes() == CONTENT
    origin.unlink()
    assert pretrained_file("kinetics400", "slow_r50").path == file


def test_file_copied_into_the_cache_is_used(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "I3D_8x8_R50.pyth").write_bytes(b"by hand")
    assert pretrained_file("kinetics400", "i3d_r50").path.read_bytes() == b"by hand"


def test_a_damaged_file_in_the_cache_is_refused(cache: Path) -> None:
    file = cache / "resnet50-11ad3fa6.pth"
    cache.mkdir(parents=True)
    file.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(InputError) as error:
        pretrained_file("imagenet", "slow_r50")
    assert str(error.value) == (
        f"{file}: sha256 is {digest[:8]}..., published 11ad3fa6; delete it to download it again"
    )


def test_failed_download_is_one_line_with_advice(origin: Path, cache: Path) -> None:
    origin.unlink()
    with pytest.raises(InputError) as error:
        pretrained_file("kinetics400", "slow_r50")
    message = str(error.value)
    assert message.startswith(f"{origin.as_uri()}: download failed (")
    assert "No such file or directory" in message
    assert message.endswith(
        f"); download it by other means and put it at {cache / 'SLOW_8x8_R50.pyth'}, or train with --weights.source "
        "FILE, or --weights.source null (random weights)"
    )
    assert "\n" not in message
    assert not [p for p in cache.iterdir() if not p.name.endswith(".lock")]


def test_a_wrong_checksum_keeps_nothing(origin: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    for prefix, good in ((digest[:8], True), ("0123abcd", False)):
        file = origin.with_name(f"resnet50-{prefix}.pth")
        file.write_bytes(CONTENT)
        monkeypatch.setitem(SOURCES["imagenet"], "slow_r50", file.as_uri())
        if good:
            for _ in range(2):  # downloaded, then found
                assert pretrained_file("imagenet", "slow_r50").path.read_bytes() == CONTENT
        else:
            with pytest.raises(InputError, match=r'download failed \(invalid hash value \(expected "0123abcd"'):
                pretrained_file("imagenet", "slow_r50")
            assert not (cache / file.name).exists()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; /short/ sends half of it, /nohead/ refuses HEAD requests, /gone/ does not exist."""

    def do_HEAD(self) -> None:
        self.send_response(405 if "nohead" in self.path else 404 if "gone" in self.path else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(404 if "gone" in self.path else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if "short" in self.path else CONTENT)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("folder", ["whole", "nohead"])
def test_download_from_a_server(folder, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES["kinetics400"], "slow_r50", f"{address}/{folder}/SLOW_8x8_R50.pyth")
    assert pretrained_file("kinetics400", "slow_r50").path.read_bytes() == CONTENT


@pytest.mark.parametrize(("folder", "reason"), [("short", "600 of 1200 bytes arrived"), ("gone", "HTTP Error 404: ")])
def test_a_broken_download_keeps_nothing(
    folder: str, reason: str, address: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{address}/{folder}/SLOW_8x8_R50.pyth"
    monkeypatch.setitem(SOURCES["kinetics400"], "slow_r50", url)
    with pytest.raises(InputError) as error:
        pretrained_file("kinetics400", "slow_r50")
    assert str(error.value).startswith(f"{url}: download failed ({reason}")
    assert [p.name for p in cache.iterdir()] == [".SLOW_8x8_R50.pyth.lock"]


def test_without_network_the_message_has_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # No server listens on port 9.
    monkeypatch.setitem(SOURCES["kinetics400"], "slow_r50", "http://127.0.0.1:9/SLOW_8x8_R50.pyth")
    with pytest.raises(InputError, match=r"^http://127\.0\.0\.1:9/SLOW_8x8_R50\.pyth: download failed \(.*refused"):
        pretrained_file("kinetics400", "slow_r50")


def test_concurrent_processes_download_once(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")
    downloads: list[str] = []

    def slow_download(url: str, file: Path) -> None:
        downloads.append(url)
        time.sleep(0.2)
        file.write_bytes(CONTENT)

    monkeypatch.setattr(pretrained, "_download", slow_download)
    files: list[Path] = []
    threads = [
        threading.Thread(target=lambda: files.append(pretrained_file("kinetics400", "slow_r50"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files) == 4
    assert len(downloads) == 1


PUBLISHED = (
    "there are kinetics400 for slow_r50, c2d_r50, i3d_r50, slowfast_r50, slowfast_r101; "
    "imagenet for slow_r50, slow_r101, c2d_r50, c2d_r101, i3d_r50, i3d_r101"
)


@pytest.mark.parametrize(
    ("name", "architecture", "message"),
    [
        (
            "kinetics",
            "slow_r50",
            "pretrained is 'kinetics'; allowed: kinetics400, imagenet, or a file",
        ),
        (
            "imagenet",
            "slowfast_r50",
            f"no imagenet weights of slowfast_r50 are published; {PUBLISHED}",
        ),
        ("kinetics400", "i3d_r101", f"no kinetics400 weights of i3d_r101 are published; {PUBLISHED}"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(name: str, architecture, message: str) -> None:
    with pytest.raises(InputError) as error:
        pretrained_file(name, architecture)
    assert str(error.value) == message
