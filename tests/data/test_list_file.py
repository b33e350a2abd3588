"""What a user may give as a list by mistake, and lines that are not rows."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from dnl_video.cli.main import main
from dnl_video.data.class_lists import read_class_list
from dnl_video.data.manifest import Manifest, read_manifest, read_videos
from tests.data.test_manifest import CLASSES, labels, listing, paths, refusal, touch


def test_comments_are_skipped_and_counted(tmp_path):
    touch(tmp_path, "#1 dunk.mp4")
    source = listing(tmp_path, "# path label", "#1 dunk.mp4 0", "#old.mp4 2", "b.mp4 1", "#")
    manifest = read_manifest(source)
    assert paths(manifest, tmp_path) == ["#1 dunk.mp4", "b.mp4"]
    assert manifest.notes == (f"{source}: 3 comment lines (#) were skipped",)
    assert read_videos([str(source)]).notes == manifest.notes
    assert refusal(read_manifest, listing(tmp_path, "b.mp4 1", "c.mp4")).startswith(f"{source}, line 2: 'c.mp4' has no")
    source = listing(tmp_path, "# made by hand", "path,label", "# a.mp4,0", "b.mp4,1", name="list.csv")
    assert labels(read_manifest(source)) == [1]
    assert refusal(read_manifest, listing(tmp_path, "# a.mp4 0")).startswith(
        f"{tmp_path / 'list.txt'} has only comments; "
    )


@pytest.mark.parametrize("address", ["s3://bucket/a b.mp4", "https://host/a.mp4", "gs://b/a.mp4", "file:///data/a.mp4"])
def test_addresses_are_named(tmp_path, address):
    message = f"{address} is an address; copy the videos to a disk and give their paths"
    for lines, line in (([f"{address} 3"], 1), (["path,label", f"{address},3"], 2)):
        source = listing(tmp_path, *lines)
        assert refusal(read_manifest, source) == f"{source}, line {line}: {message}"
    for read in (read_manifest, lambda source: read_videos([source]), read_class_list):
        assert refusal(read, address) == message


@pytest.mark.parametrize("path", ["C:\\data\\a.mp4", "c:/data/a.mp4", "videos\\a.mp4", "\\\\server\\share\\a.mp4"])
def test_windows_paths_are_named(tmp_path, path, monkeypatch):
    message = f"{path} is a Windows path; give the path on this system, with / between folders"
    source = listing(tmp_path, f"{path} 3")
    assert refusal(read_manifest, source) == f"{source}, line 1: {message}"
    assert refusal(read_videos, [path]) == message
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, path)  # such a name is allowed here
    assert paths(read_manifest(source), tmp_path) == [path]


@pytest.mark.parametrize("header", [",0,1", "0,1", "\t0\t1", "0;1", ",0"])
def test_column_numbers_of_pandas_are_named(tmp_path, header):
    separator = next(one for one in "\t;," if one in header)
    index = "0" + separator if header[0] == separator else ""
    source = listing(tmp_path, header, f"{index}a.mp4{separator}3" if "1" in header else f"{index}a.mp4")
    assert refusal(read_manifest, source).endswith(
        "are column numbers, which pandas writes without names; name the columns path,label "
        "(df.columns = ['path', 'label'])"
    )


def test_numbered_folders_are_no_column_numbers(tmp_path):
    assert labels(read_manifest(listing(tmp_path, "0,1", "1,2"))) == [1, 2]
    assert labels(read_manifest(listing(tmp_path, "0 1"))) == [1]
    source = listing(tmp_path, ",path,label", "0,a.mp4,3", name="pandas.csv")
    assert paths(read_manifest(source), tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_text_of_excel(tmp_path, encoding):
    source = tmp_path / "list.txt"
    mark = "" if encoding == "utf-16" else "\ufeff"
    source.write_bytes(f"{mark}path\tlabel\r\ncafé.mp4\t1\r\n".encode(encoding))
    assert paths(read_manifest(source), tmp_path) == ["café.mp4"]


@pytest.mark.parametrize("read", [read_manifest, read_class_list])
def test_files_that_hold_no_text(tmp_path, read):
    (tmp_path / "list.xlsx").write_bytes(b"PK\x03\x04\x14\x00\x06\x00" + bytes(range(256)))
    assert refusal(read, tmp_path / "list.xlsx").startswith(
        f"{tmp_path / 'list.xlsx'} is a binary file, not text; give "
    )
    for device in (Path("/dev/zero"), Path("/dev/null")):
        assert refusal(read, device).startswith(f"{device} is a device, not a file; give ")


def test_a_pipe_is_read_to_its_end(tmp_path):
    """As of `<(grep ...)` in a shell."""
    for read, text in ((read_manifest, "a.mp4 0\nb.mp4 1\n"), (read_class_list, "archery\nzumba\n")):
        output, into = os.pipe()
        os.write(into, text.encode())
        os.close(into)
        found = read(f"/dev/fd/{output}")
        os.close(output)
        assert (labels(found) if isinstance(found, Manifest) else found) in ([0, 1], ("archery", "zumba"))


@pytest.mark.parametrize(
    "command",
    [
        "evaluate --checkpoint {run} --manifest /dev/zero",
        "prepare --output m.csv --videos . --annotations /dev/zero",
        "train --quiet --config {config} --dry-run --output_dir run --data.train_manifest /dev/zero",
        "train --quiet --config {config} --dry-run --output_dir run --data.class_list /dev/zero",
    ],
)
def test_a_device_as_a_list_ends_with_a_line(tiny, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main(command.format(run=tiny.run, config=tiny.config).split()) == 2
    error = capsys.readouterr().err
    assert re.fullmatch("dnl-video: error: /dev/zero is a device, not a file; give .+\n", error)


def test_permissions_are_named(tmp_path, monkeypatch):
    """`chmod` does not stop root, as which tests may run."""
    denied = listing(tmp_path / "folder", *CLASSES)

    def refusing(function):
        def call(path, *arguments, **options):
            if str(path).startswith(str(denied.parent)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return function(path, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refusing(Path.read_bytes))
        for read in (read_manifest, lambda source: read_videos([str(source)]), read_class_list):
            message = f"{denied} cannot be read (Permission denied); check the file and its permissions"
            assert refusal(read, denied) == message
    monkeypatch.setattr(Path, "stat", refusing(Path.stat))
    for read in (read_manifest, lambda source: read_videos([str(source)]), read_class_list):
        message = f"{denied} cannot be read (Permission denied); check the path and its permissions"
        assert refusal(read, denied) == message


@pytest.mark.parametrize("text", ["x" * 200_000 + ",1", "a.mp4,1\n" + "b," * 100_000, '"' + "x" * 200_000])
def test_lines_without_end(tmp_path, text):
    source = listing(tmp_path, text)
    assert refusal(read_manifest, source) == f"{source} has a line of over 100,000 characters; give one video a line"
    (tmp_path / "long.json").write_text(json.dumps([{"path": f"{i}.mp4", "label": 1} for i in range(9999)]))
    assert len(read_manifest(tmp_path / "long.json").records) == 9999


@pytest.mark.parametrize(
    "lines",
    [
        [f"a.mp4 {'9' * 5000} 0"],
        ['{"path": "a.mp4", "label": ' + "9" * 5000 + "}"],
    ],
)
def test_numbers_without_end(tmp_path, lines):
    assert str(tmp_path / "list.json") in refusal(read_manifest, listing(tmp_path, *lines, name="list.json"))
    source = listing(tmp_path, "path,label,num_frames,height,width", f"a.mp4,0,{'9' * 5000},3,4", name="list.csv")
    assert read_manifest(source).records[0].recorded is None
    (tmp_path / "c.json").write_text('{"a": "' + "9" * 5000 + '"}')
    assert refusal(read_class_list, tmp_path / "c.json").endswith(" must give each name one id, from 0 to 0")


def test_a_name_that_is_too_long(tmp_path):
    name = "x" * 300 + ".mp4"
    assert (
        refusal(read_videos, [name])
        == f"{name} cannot be read (File name too long); check the path and its permissions"
    )
