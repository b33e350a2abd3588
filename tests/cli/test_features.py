from __future__ import annotations

from dnl_video.cli.main import main
from dnl_video.results.reader import finished_ids, read_predictions


def test_end_to_end(tiny, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["features", str(tiny.folder / "videos" / "val"), "--checkpoint", str(tiny.run), "--output", str(output)]
    words += ["--num-clips", "2", "--device", "cpu", "--num-workers", "0"]
    assert main(words) == 0
    assert f"features of 8 of 8 videos: {output}" in capsys.readouterr().out
    features = read_predictions(output).clip_features
    assert features.shape == (16, 256)
    assert main(words) == 0
    assert "8 of 8 videos are already done" in capsys.readouterr().err
    broken = [tmp_path / f"broken{i:02d}.mp4" for i in range(12)]
    for path in broken:
        path.write_bytes(b"nothing")
    words[words.index(str(output))] = str(tmp_path / "more")
    assert main(words[:1] + [str(path) for path in broken] + words[1:]) == 3
    printed, notes = capsys.readouterr()
    assert printed == f"features of 8 of 20 videos: {tmp_path / 'more'}\n"
    for path, line in zip(broken, notes.splitlines(), strict=False):
        assert line.startswith(f"failed: {path}: cannot be opened")
    assert len(notes.splitlines()) == 12


def test_one_of_several_processes(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    words = ["features", str(tiny.folder / "videos" / "val"), "--checkpoint", str(tiny.run), "--output", str(tmp_path)]
    assert main([*words, "--num-clips", "1", "--device", "cpu", "--num-workers", "0"]) == 0
    assert f"process 1 of 3 is done; others are still at work in {tmp_path}" in capsys.readouterr().err
    assert len(finished_ids(tmp_path)) == 3
