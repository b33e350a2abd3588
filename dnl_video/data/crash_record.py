"""Which video each loader process is reading, kept where it outlives the process.

A decoder that crashes takes its process along, and one that spins forever never answers; the process that waits for
them learns from the journal which video it was.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import multiprocessing
import multiprocessing.util
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from dnl_video.errors import InputError

STOPPED_REASON = "stopped the process that decoded it"
"""What a video is recorded as failed with, whose decoder crashed or hung."""

_SIZE = 8192
_page: mmap.mmap | None = None


class LoaderStopped(InputError):
    """Loader processes died or hung.

    Args:
        message: What happened, and what to do.
        videos: The videos they were reading, where known.
    """

    def __init__(self, message: str, videos: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.videos = videos


@functools.cache
def _own_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dnl-video-loaders-", ignore_cleanup_errors=True)


def journal_folder() -> str:
    """Return where the loaders of this process keep their journals; made on the first call, removed at exit."""
    return _own_folder().name


def start_journal(folder: str, worker_id: int) -> None:
    """Keep this process's journal in a folder; the `worker_init_fn` of loaders."""
    global _page
    if hasattr(os, "setpgid"):
        # What is sent to the whole group (Ctrl-C, `timeout`) is for the process that waits for this one to answer.
        os.setpgid(0, 0)
    name = Path(folder) / str(os.getpid())
    name.write_bytes(bytes(_SIZE))
    with name.open("r+b") as file:
        _page = mmap.mmap(file.fileno(), _SIZE)
    # Who ends as it should leaves none.
    multiprocessing.util.Finalize(None, _forget, args=(name,), exitpriority=0)


def note_reading(path: str) -> None:
    """Note that this process now reads a video; "" that it reads none. Nothing happens without a journal."""
    if _page is not None:
        line = f"{time.time()}\n{path}".encode(errors="surrogateescape")[: _SIZE - 1]
        _page[: len(line) + 1] = line + b"\0"


@contextlib.contextmanager
def loader_faults(timeout_s: float) -> Iterator[None]:
    """Turn the errors of a loader whose processes died or hang into one that names the video and what to do.

    PyTorch raises them from a signal handler too, so this belongs around all that runs while a loader is in use.

    Args:
        timeout_s: The loader's.

    Raises:
        LoaderStopped: Instead of the loader's RuntimeError.
    """
    _take_dead()  # what other loaders left
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        # Two errors come, one from PyTorch's signal handler, and only that one names the signal.
        text = f"{error.__cause__ or error.__context__ or ''}\n{error}"
        if "DataLoader timed out" in text:
            videos = _stuck(timeout_s)
            raise LoaderStopped(_hung_message(timeout_s, videos), videos) from error
        # A process that dies while it hands over a batch breaks the connection, before it counts as dead.
        broken = not isinstance(error, RuntimeError)
        if not broken and "DataLoader worker (pid" not in text:
            raise
        _silence_signals()
        dead = _take_dead(wait_s=2.0)
        if broken and not dead:
            raise
        killed = re.search(r"is killed by signal: ([\w ]+)", text)
        videos = tuple(path for path in dead.values() if path)
        raise LoaderStopped(_dead_message(sorted(dead), killed and killed[1], videos), videos) from error


def _silence_signals() -> None:
    """Keep PyTorch's handler from raising the same error again, in the middle of what is saved because of it."""
    from torch.utils.data._utils import signal_handling

    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal_handling._SIGCHLD_handler_set = False  # the next loader sets it anew


def _dead_message(pids: list[int], reason: str | None, videos: tuple[str, ...]) -> str:
    who = " ".join(["a loader process", *(f"({pid})" for pid in pids)])
    how = f"was stopped by signal {reason.strip()}" if reason else "ended without a word"
    where = f" while it read {', '.join(videos)}" if videos else ""
    return (
        f"{who} {how}{where}; if memory ran out, lower num_workers; start again (train with --resume): "
        "what is done is kept"
    )


def _hung_message(timeout_s: float, videos: tuple[str, ...]) -> str:
    where = f"; a loader process is stuck in {', '.join(videos)}" if videos else ""
    return (
        f"no video came out of the loader in {timeout_s:g} s{where}; start again (train with --resume): what is done "
        "is kept. If the storage or the machine is that slow, raise data.timeout_s or lower num_workers"
    )


def _take_dead(wait_s: float = 0.0) -> dict[int, str]:
    """Return, and forget, the processes that ended otherwise than they should, with what they were reading."""
    give_up = time.monotonic() + wait_s
    while True:
        alive = {process.pid for process in multiprocessing.active_children()}
        dead = [file for file in sorted(Path(journal_folder()).iterdir()) if int(file.name) not in alive]
        if dead or time.monotonic() > give_up:
            break
        time.sleep(0.05)
    entries = {int(file.name): _entry(file)[1] for file in dead}
    for file in dead:
        _forget(file)
    return entries


def _stuck(timeout_s: float) -> tuple[str, ...]:
    """Return what has been read for most of the time the loader waited."""
    videos = []
    for file in sorted(Path(journal_folder()).iterdir()):
        since, path = _entry(file)
        if path and time.time() - since > 0.8 * timeout_s:
            videos.append(path)
            _forget(file)
    return tuple(videos)


def _forget(file: Path) -> None:
    with contextlib.suppress(OSError):  # Windows keeps files that a process still maps
        file.unlink()


def _entry(file: Path) -> tuple[float, str]:
    try:
        since, _, path = file.read_bytes().partition(b"\0")[0].decode(errors="surrogateescape").partition("\n")
        return float(since), path
    except (OSError, ValueError):  # the process ended before it read anything
        return 0.0, ""
