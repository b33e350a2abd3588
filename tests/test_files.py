"""Atomic writes, locks and JSON lines."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from dnl_video.errors import InputError
from dnl_video.files import (
    append_json_lines,
    atomic_path,
    cell_text,
    check_output,
    file_sha256,
    list_folder,
    lock_file,
    read_json_lines,
    remove_partial,
    walk,
    write_atomic,
    write_csv,
)


def test_a_write_replaces_the_file_and_leaves_no_temporary(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_atomic(file, "old")
    write_atomic(file, "näme \udcff")
    assert file.read_bytes() == "näme ".encode() + rb"\udcff"
    assert list(tmp_path.iterdir()) == [file]


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    file = tmp_path / f"{'ä' * 125}.json"
    write_atomic(file, "{}")
    assert list(tmp_path.iterdir()) == [file]


def test_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    file, other = tmp_path / "a [1].mp4", tmp_path / "b.a [1].mp4"
    other.touch()
    with pytest.raises(InputError), atomic_path(file) as temporary:  # noqa: PT012
        temporary.write_text("half")
        remove_partial(tmp_path, glob.escape(file.name))
        assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_block_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "a.mp4"
    file.write_text("old")
    with pytest.raises(error), atomic_path(file) as temporary:  # noqa: PT012
        assert (temporary.suffix, temporary.parent) == (".mp4", tmp_path)
        temporary.write_text("half")
        raise error
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder: cannot be written \(Is a directory\); choose another path"):
        write_atomic(tmp_path / "folder", b"")
    missing = tmp_path / "missing" / "a"
    with (
        pytest.raises(InputError, match=r"missing/a: cannot be written .*; free some space"),
        atomic_path(missing, advice="free some space") as temporary,
    ):
        temporary.write_bytes(b"")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_cells_that_spreadsheets_would_run_are_marked_as_text(tmp_path: Path) -> None:
    texts = ["=1+1", "+a", "-3NNxb2uA8Y", "@x", "\tq", "'=x", "''-y", "'x", "-", "-1_0", "-٣", "a=b", "", " =x"]
    numbers = ["-5", "+1.5e-3", "-.5", "7", -5, 0.25]
    write_csv(tmp_path / "a.csv", [texts, numbers])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.reader(file)
    assert [cell for cell in first if cell[:1] in tuple("=+-@\t\r")] == []
    assert first[:3] == ["'=1+1", "'+a", "'-3NNxb2uA8Y"]
    assert list(map(cell_text, first)) == texts
    assert second == list(map(str, numbers)) == list(map(cell_text, second))


def test_outputs_are_checked_before_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path, is_file in ((tmp_path, False), (tmp_path / "a" / "b", False), (tmp_path / "a" / "b.mp4", True)):
        check_output(path, is_file=is_file)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for path, is_file, reason in (
        (tmp_path, True, "Is a directory"),
        (tmp_path / "file" / "a", False, "Not a directory"),
        (tmp_path / "file" / "a.mp4", True, "Not a directory"),
        (tmp_path / "file", False, "Not a directory"),
        (tmp_path / ("x" * 300), False, "File name too long"),
    ):
        with pytest.raises(InputError) as info:
            check_output(path, is_file=is_file)
        assert str(info.value) == f"{path}: cannot be written ({reason}); choose another path"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=r"a/b: cannot be written \(Permission denied\); choose another path"):
        check_output(tmp_path / "a" / "b")


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_lock_is_exclusive_until_it_is_released(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dnl_video.files import lock_file; lock_file(Path(sys.argv[1]), 'x')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    lock = lock_file(tmp_path / ".lock", "another process writes here; wait for it")
    held = subprocess.run(command, capture_output=True, text=True)
    assert held.returncode == 1
    assert "InputError: x" in held.stderr
    lock.release()
    subprocess.run(command, check=True)
    lock_file(tmp_path / ".lock", "free again").release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_hold_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from dnl_video.files import lock_file\n"
        "lock_file(Path(sys.argv[1]), 'busy')\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(60)\n"
        "print(child, flush=True); os._exit(0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            process.wait()
            lock_file(tmp_path / ".lock", "the child holds it").release()
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK], ids=errno.errorcode.get)
def test_file_system_without_locks_is_used_without_one(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    for _ in range(2):
        assert not lock_file(tmp_path / ".lock", "busy").is_locked


def test_a_lock_in_a_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"\.lock: cannot be written"):
        lock_file(tmp_path / "file" / ".lock", "busy")


def test_json_lines_survive_a_torn_last_line(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.jsonl"
    assert read_json_lines(file) == []
    append_json_lines(file, {"a": 1}, {"name": "ä\udcff\n"})
    assert len(file.read_bytes().splitlines()) == 2
    file.write_bytes(file.read_bytes()[:-5])
    assert read_json_lines(file) == [{"a": 1}]
    append_json_lines(file, {"b": 2})
    append_json_lines(file, {"c": 3}, sync=False)
    assert read_json_lines(file) == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_json_lines_keep_names_that_are_not_unicode(tmp_path: Path) -> None:
    append_json_lines(tmp_path / "a.jsonl", "ä\udcff\n")
    assert read_json_lines(tmp_path / "a.jsonl") == ["ä\udcff\n"]


def test_a_walk_enters_each_folder_once_in_order(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.txt", "a/.hidden/3.txt", ".git/4.txt", "5.txt", "README"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path / "b")
    (tmp_path / "d.txt").symlink_to(tmp_path / "gone.txt")
    found = [(parent, folders, sorted(files)) for parent, folders, files in walk(tmp_path)]
    assert found == [
        (str(tmp_path), ["a", "b", "c"], ["5.txt", "README", "d.txt"]),
        (str(tmp_path / "a"), ["up"], ["1.txt"]),
        (str(tmp_path / "b"), [], ["2.txt"]),
    ]
    assert sorted(list_folder(tmp_path, "*.txt")) == [tmp_path / "5.txt", tmp_path / "d.txt"]
    assert list_folder(tmp_path / "gone") == list_folder(tmp_path / "5.txt") == []


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, deny: Callable[[Path], Path]) -> None:
    locked = deny(tmp_path / "a" / "locked")
    locked.mkdir(parents=True)
    message = f"^folder {locked} cannot be read \\(Permission denied\\); make it readable, or move it away$"
    with pytest.raises(InputError, match=message):
        list(walk(tmp_path))
    with pytest.raises(InputError, match=message):
        list_folder(locked)
