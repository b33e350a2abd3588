"""The command `dnl-video demo-data`."""

import shlex
import subprocess
import sys

import pytest

from dnl_video.cli import demo_data
from dnl_video.cli.main import make_parser, set_up_logging
from dnl_video.errors import InputError


@pytest.fixture
def parser():
    return make_parser("demo-data", demo_data)


def test_videos_and_next_command(parser, tmp_path, capsys):
    directory = tmp_path / "my demo"
    args = parser.parse_args(
        ["--output", str(directory), "--train-videos", "8", "--val-videos", "2", "--num-workers", "2"]
    )
    set_up_logging(set())
    assert demo_data.run(args) == 0
    out, err = capsys.readouterr()
    assert f"{directory}: 8 training and 2 validation videos (wrote 10 videos)" in out
    assert "10/10" in err
    note, *command = shlex.split(err.splitlines()[-1])
    assert note == "next:"
    assert command[:3] == ["dnl-video", "train", "--config"]
    assert command[-4:-2] == ["--data.train_manifest", str(directory / "train.csv")]
    assert command[-2:] == ["--data.val_manifest", str(directory / "val.csv")]
    assert demo_data.run(args) == 0
    assert "nothing to do: all videos exist" in capsys.readouterr().out
    args.seed = 1
    with pytest.raises(InputError, match="was made with seed=0, not 1"):
        demo_data.run(args)


def test_defaults_and_help(parser):
    args = parser.parse_args(["--output", "data"])
    assert (args.seed, args.train_videos, args.val_videos, args.num_workers) == (0, 400, 160, None)
    text = parser.format_help()
    assert "dnl-video demo-data --output data/demo" in text
    assert "flip 0" in text
    assert "Default: 400." in text


def test_the_module_imports_no_heavy_library():
    heavy = "import sys, dnl_video.cli.demo_data; print({'numpy', 'av', 'rich', 'torch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", heavy], text=True).strip() == "set()"
