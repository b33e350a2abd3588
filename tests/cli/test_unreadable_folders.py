"""A folder that cannot be read is an error in every command that walks folders."""

from __future__ import annotations

import shutil

import pytest

from dnl_video.cli.main import main


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("predict {videos} --checkpoint {run}", "videos/growing"),
        ("predict {videos}/growing --checkpoint {run}", "videos/growing"),
        ("features {videos} --checkpoint {run} --output {out}", "videos/growing"),
        ("evaluate --manifest {videos} --checkpoint {run} --output {out}", "videos/growing"),
        ("train --quiet --config {config} --output {out} --data.val_manifest {videos}", "videos/growing"),
        ("prepare --videos {videos} --output {out}.csv", "videos/growing"),
        ("prepare --annotations {list} --videos {videos} --output {out}.csv", "videos/growing"),
        ("show {run}", "run/evaluation"),
        ("show {run}", "run/checkpoints"),
        ("show {run}", "run/logs"),
        ("predict {videos} --checkpoint {run}", "run/checkpoints"),
        ("train --quiet --config {config} --output {run} --resume auto", "run/checkpoints"),
        ("train --quiet --config {config} --output {run} --resume --trainer.max_epochs 2", "run/logs"),
        ("export --checkpoint {run} --output {out}.safetensors", "run/evaluation"),
        ("evaluate --manifest {videos} --checkpoint {run} --output {run}/evaluation", "run/evaluation"),
        ("demo-data --output {videos}", "videos"),
    ],
)
def test_an_unreadable_folder_is_named(tiny, tmp_path, capsys, deny, command, folder):
    shutil.copytree(tiny.run, tmp_path / "run")
    shutil.copytree(tiny.folder / "videos" / "val", tmp_path / "videos")
    (tmp_path / "run" / "evaluation").mkdir(exist_ok=True)
    official = tmp_path / "kinetics.csv"
    official.write_text("label,youtube_id,time_start,time_end,split\ngrowing,aaaaaaaaaaa,0,10,val\n")
    deny(tmp_path / folder)
    places = {"config": tiny.config, "out": tmp_path / "out", "list": official}
    places |= {name: tmp_path / name for name in ("run", "videos")}
    assert main([word.format(**places) for word in command.split()]) == 2
    line = f"folder {tmp_path / folder} cannot be read (Permission denied); make it readable, or move it away"
    assert capsys.readouterr().err.lstrip() == f"dnl-video: error: {line}\n"
