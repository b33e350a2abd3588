"""Records which video each loader process reads, so that an error can name the video of a process that died or hung.

Each process keeps its record in a memory-mapped file. A process that exits normally deletes its file.
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
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from dnl_video.data.shared_memory import ADVICE
from dnl_video.errors import InputError

STOPPED_REASON = "stopped the process that decoded it"
"""Reason of failure of a video whose decoder crashed or hung."""

_RECORD_BYTES = 8192
_record: mmap.mmap | None = None


class LoaderStopped(InputError):
    """Loader processes died or hung.

    Args:
        message: What happened and what to do.
        videos: The videos they were reading, if known.
    """

    def __init__(self, message: str, videos: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.videos = videos


_folder = functools.cache(lambda: tempfile.TemporaryDirectory(prefix="dnl-video-loaders-", ignore_cleanup_errors=True))


def record_folder() -> str:
    """Return the folder for the records of this process's loaders. It is deleted when this process exits."""
    return _folder().name


def start_record(folder: str, worker_id: int) -> None:
    """Start this loader process's record in a folder (a `worker_init_fn`)."""
    global _record
    if hasattr(os, "setpgid"):
        # Own process group: the main process handles Ctrl-C and `timeout`, and then stops its loaders.
        os.setpgid(0, 0)
    file = Path(folder) / str(os.getpid())
    file.write_bytes(bytes(_RECORD_BYTES))
    with file.open("r+b") as opened:
        _record = mmap.mmap(opened.fileno(), _RECORD_BYTES)
    multiprocessing.util.Finalize(None, _delete, args=(file,), exitpriority=0)
    # The thread that hands tensors over prints its errors. A main process that ends, as on Ctrl-C, breaks its
    # connection: that is no error.
    sys.excepthook = _print_unless_disconnected


def _print_unless_disconnected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def record_reading(path: str) -> None:
    """Record that this process now reads a video; "" for none. Does nothing in a process without a record."""
    if _record is not None:
        line = f"{time.time()}\n{path}".encode(errors="surrogateescape")[: _RECORD_BYTES - 1]
        _record[: len(line) + 1] = line + b"\0"


@contextlib.contextmanager
def loader_faults(timeout_s: float) -> Iterator[None]:
    """Replace the errors of a loader whose processes died or hung by one that names the video and what to do.

    PyTorch also raises these errors from a signal handler, so the block must hold all code that runs while a loader is
    in use.

    Args:
        timeout_s: Timeout of the loader in seconds.

    Raises:
        LoaderStopped: In place of the loader's RuntimeError.
    """
    _take_dead()  # left by earlier loaders
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        # PyTorch raises two errors. Only the one from its signal handler names the signal.
        text = f"{error.__cause__ or error.__context__ or ''}\n{error}"
        if full := re.search(r"</torch_\w+>.*: (.*) \(\d+\)|signal: (Bus error)", text):  # a file in shared memory
            _disable_signal_handler()
            raise LoaderStopped(_full_message(full[1] or full[2])) from error
        if "DataLoader timed out" in text:
            videos = _stuck(timeout_s)
            raise LoaderStopped(_hung_message(timeout_s, videos), videos) from error
        # A process that dies while it sends a batch breaks the connection before PyTorch notices its death.
        broken = not isinstance(error, RuntimeError)
        if not broken and "DataLoader worker (pid" not in text:
            raise
        _disable_signal_handler()
        dead = _take_dead(wait_s=2.0)
        if broken and not dead:
            raise
        killed = re.search(r"is killed by signal: ([\w ]+)", text)
        videos = tuple(path for path in dead.values() if path)
        raise LoaderStopped(_dead_message(sorted(dead), killed and killed[1], videos), videos) from error


@contextlib.contextmanager
def later_faults() -> Iterator[None]:
    """Report a loader process that dies during this block at its end: no error may stop the code of a caller."""
    in_main = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main else None
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGCHLD, handler)
    if callable(handler):
        handler(signal.SIGCHLD, None)


def _disable_signal_handler() -> None:
    """Keep PyTorch's handler from raising the error again while the results so far are saved."""
    from torch.utils.data._utils import signal_handling

    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal_handling._SIGCHLD_handler_set = False  # the next loader sets it again


def _dead_message(pids: list[int], reason: str | None, videos: tuple[str, ...]) -> str:
    who = " ".join(["a loader process", *(f"({pid})" for pid in pids)])
    how = f"was stopped by signal {reason.strip()}" if reason else "exited unexpectedly"
    where = f" while it read {', '.join(videos)}" if videos else ""
    return (
        f"{who} {how}{where}; if memory ran out, lower num_workers; start again (train with --resume): "
        "finished work is kept"
    )


def _full_message(reason: str) -> str:
    return (
        f"a loader process cannot put a batch into shared memory, /dev/shm ({reason}); {ADVICE}; "
        "start again (train with --resume): finished work is kept"
    )


def _hung_message(timeout_s: float, videos: tuple[str, ...]) -> str:
    where = f"; a loader process is stuck in {', '.join(videos)}" if videos else ""
    return (
        f"the loader returned no video within {timeout_s:g} s{where}; start again (train with --resume): finished work "
        "is kept. If the storage or the machine is that slow, raise data.timeout_s or lower num_workers"
    )


def _take_dead(wait_s: float = 0.0) -> dict[int, str]:
    """Return the processes that did not exit normally, with the video each was reading; delete their records."""
    deadline = time.monotonic() + wait_s
    while True:
        alive = {process.pid for process in multiprocessing.active_children()}
        dead = [file for file in sorted(Path(record_folder()).iterdir()) if int(file.name) not in alive]
        if dead or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    videos = {int(file.name): _read(file)[1] for file in dead}
    for file in dead:
        _delete(file)
    return videos


def _stuck(timeout_s: float) -> tuple[str, ...]:
    """Return the videos that have been read for at least 80 % of the timeout."""
    videos = []
    for file in sorted(Path(record_folder()).iterdir()):
        since, path = _read(file)
        if path and time.time() - since > 0.8 * timeout_s:
            videos.append(path)
            _delete(file)
    return tuple(videos)


def _delete(file: Path) -> None:
    with contextlib.suppress(OSError):  # Windows keeps files that a process still maps
        file.unlink()


def _read(file: Path) -> tuple[float, str]:
    """Return the start time and the path of a record; zero and "" if its process read nothing."""
    try:
        since, _, path = file.read_bytes().partition(b"\0")[0].decode(errors="surrogateescape").partition("\n")
        return float(since), path
    except (OSError, ValueError):
        return 0.0, ""
