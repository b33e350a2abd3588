import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dnl_video.cli import report as command
from dnl_video.cli.main import make_parser
from dnl_video.cli.results import thumbnail_reader
from dnl_video.data.encoding import write_video
from dnl_video.errors import InputError
from dnl_video.results.predictions import VideoPrediction
from tests.report.directories import make_meta, write


def run(*args):
    return command.run(make_parser("report", command).parse_args([str(arg) for arg in args]))


@pytest.fixture
def directory(tmp_path):
    """Four listed videos: two right, one wrong, one failed."""
    model, preprocessing = {"architecture": "i3d_r50"}, {"num_frames": 8, "frame_stride": 8, "crop_size": 224}
    names = ["run", "jump [fast]"]
    meta = make_meta(4, names, model=model, preprocessing=preprocessing, num_clips=1, num_crops=1)
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], dtype=np.float32)
    videos = [
        VideoPrediction(f"v{i}", f"v{i}.mp4", i % 2, 1, row, np.zeros(1), np.ones(1), row[None])
        for i, row in enumerate(scores)
    ]
    videos.append(VideoPrediction("v3", "v3.mp4", 1, error="v3.mp4: no [video] stream"))
    return write(tmp_path / "p", videos, meta)


def test_the_command_writes_and_shows_the_report(directory, capsys):
    assert run(directory) == 0
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == "i3d_r50, 1 clip x 1 crop at 224, clips of 8 frames with stride 8"
    assert "video-level 66.7% [20.8, 93.9] 75.0% [" in "\n".join(lines)
    assert "4 videos listed, 3 evaluated, 1 failed; brackets are 95% intervals" in lines
    assert 'Failed videos count as wrong in the row "listed".' in lines
    assert "1 failed: VIDEO: no [video] stream (such as v3)" in lines
    assert lines[-3:] == [f"wrote {directory / f'report.{kind}'}" for kind in ("json", "md", "html")]
    assert (directory / "report.md").read_text().startswith("# Accuracy of i3d_r50 on data/val.csv (run a)\n")


def test_output_folder(directory, tmp_path, capsys):
    assert run(directory, "--output", tmp_path / "out") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "report.json", "report.md"]
    assert not (directory / "report.json").exists()
    assert capsys.readouterr().out.endswith(f"wrote {tmp_path / 'out' / 'report.html'}\n")


def test_an_unfinished_run_is_marked(directory, capsys):
    next(directory.glob("*.jsonl")).write_text('{"id":"a","path":"a","label":0,"num_views":0,"row":null,"error":"x"}\n')
    assert run(directory) == 0
    assert "Incomplete: 1 of 4 videos." in capsys.readouterr().out


# ---------------------------------------------------------------- frames of videos


@pytest.fixture
def mistaken_video(directory, tmp_path):
    """The file of v2, the wrong video: 24 frames of increasing brightness."""
    frames = np.repeat(10 * np.arange(24, dtype=np.uint8), 64 * 96 * 3).reshape(24, 64, 96, 3)
    shard = next(directory.glob("*.jsonl"))
    shard.write_text(shard.read_text().replace('"v2.mp4"', f'"{tmp_path}/val/run/v2.mp4"'))
    path = tmp_path / "val" / "run" / "v2.mp4"
    path.parent.mkdir(parents=True)
    write_video(path, frames, fps=12)
    return path


def test_frames_are_spread_over_the_video_and_small(mistaken_video):
    frames = thumbnail_reader()(str(mistaken_video))
    assert (frames.shape, frames.dtype) == ((6, 96, 144, 3), np.uint8)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [20, 60, 100, 140, 180, 220], atol=6)


def test_the_page_shows_the_mistaken_video(directory, mistaken_video, capsys):
    assert run(directory) == 0
    page = (directory / "report.html").read_text()
    assert page.count('<img src="data:image/jpeg') == 1
    assert 'width="879" height="96"' in page


def test_videos_that_moved_are_found_by_path_or_name(mistaken_video, tmp_path):
    name = str(mistaken_video)
    for place in ("new/val/run/v2.mp4", "flat/v2.mp4"):
        moved = tmp_path / place
        moved.parent.mkdir(parents=True)
        shutil.copy(mistaken_video, moved)
    mistaken_video.unlink()
    assert thumbnail_reader()(name) == "file not found"
    for root in ("new", "flat"):
        assert thumbnail_reader(str(tmp_path / root))(name).shape == (6, 96, 144, 3)
        assert thumbnail_reader(str(tmp_path / root))("val/run/v2.mp4").shape == (6, 96, 144, 3)
    assert thumbnail_reader(str(tmp_path / "flat"))("other.mp4") == "file not found"


def test_page_says_that_a_video_is_broken_or_missing(directory, mistaken_video, capsys):
    for harm, reason in (
        (lambda: mistaken_video.write_text("no video at all"), "cannot be opened"),
        (mistaken_video.unlink, "file not found"),
    ):
        harm()
        assert run(directory) == 0
        assert f'<div class="no-frames">{reason}</div>' in (directory / "report.html").read_text()


def test_no_thumbnails(directory, mistaken_video, capsys):
    assert run(directory, "--no-thumbnails") == 0
    page = (directory / "report.html").read_text()
    assert "<img" not in page
    assert "no-frames" not in page.partition("</style>")[2]


def test_video_root_does_not_exist(directory, tmp_path):
    with pytest.raises(InputError) as info:
        run(directory, "--video-root", tmp_path / "gone")
    assert str(info.value) == f"--video-root {tmp_path}/gone is not a folder; give the folder that holds the videos"


@pytest.mark.parametrize(("name", "message"), [(".", "has no meta.json"), ("gone", "does not exist")])
def test_wrong_directory(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / name)


def test_another_projects_results(tmp_path, capsys, monkeypatch):
    """The file has only scores; ids, labels and class names come from the list."""
    (tmp_path / "out.json").write_text("[[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]]")
    (tmp_path / "list.csv").write_text("path,label\na.mp4,run\nb.mp4,run\nc.mp4,jump\n")
    (tmp_path / "classes.txt").write_text("run\njump\n")
    monkeypatch.chdir(tmp_path)
    assert run("out.json", "--classes", "classes.txt", "--manifest", "list.csv") == 0
    shown = capsys.readouterr().out
    assert "out.json, protocol unknown" in shown
    assert "3 videos listed, 3 evaluated, 0 failed" in shown
    report = json.loads((tmp_path / "out-report" / "report.json").read_text())
    assert report["accuracy"]["evaluated"]["video"]["top1"]["correct"] == 1
    assert [row["name"] for row in report["per_class"]] == ["run", "jump"]
    assert report["manifest"]["source"] == "list.csv"
    assert report["run"]["written by"] == "mmaction2 0.x (--out)"
    assert "protocol unknown" in (tmp_path / "out-report" / "report.html").read_text()


def test_another_projects_results_without_a_list(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("video_id,label,score_0,score_1\na,0,0.9,0.1\nb,0,0.2,0.8\n")
    assert run(tmp_path / "r.csv", "--output", tmp_path / "out") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 evaluated, 0 failed; brackets are 95% intervals" in shown
    assert "videos listed" not in shown.partition("evaluated")[0]
    assert "The file does not say how many videos were listed or failed" in shown
    assert (tmp_path / "out" / "report.html").is_file()


def test_options_of_other_projects_need_a_file(directory):
    with pytest.raises(InputError, match="--classes and --manifest are for results of other projects; a predictions"):
        run(directory, "--manifest", "list.csv")


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    shown = capsys.readouterr().out
    assert "dnl-video report predictions/slow_dnl" in shown
    assert "A report needs labels." in shown


def test_report_loads_no_torch():
    code = (
        "import sys, dnl_video.cli.report; assert 'numpy' not in sys.modules and 'rich' not in sys.modules; "
        "import dnl_video.report, dnl_video.results.predictions; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mistakes_link_to_files_relative_to_the_page(mistaken_video, directory, tmp_path):
    assert run(directory, "--output", tmp_path / "out" / "a") == 0
    page = (tmp_path / "out" / "a" / "report.html").read_text()
    assert '<a href="../../val/run/v2.mp4">' in page
    mistaken_video.rename(mistaken_video.with_name("moved.mp4"))
    assert run(directory, "--output", tmp_path / "out" / "b") == 0
    assert "v2.mp4" not in (tmp_path / "out" / "b" / "report.html").read_text()


def test_training_curve_of_the_run(directory, tmp_path):
    """An evaluation in the run's folder, as `train --final-test` writes it."""
    run_folder = tmp_path / "runs" / "a"
    shutil.copytree(directory, run_folder / "evaluation" / "best")
    (run_folder / "checkpoints").mkdir()
    (run_folder / "config.yaml").write_text("seed: 1")
    (run_folder / "logs" / "csv").mkdir(parents=True)
    (run_folder / "logs" / "csv" / "metrics.csv").write_text("epoch,step,val/top1\n0,9,0.25\n1,19,0.5\n")
    command.report_directory(run_folder / "evaluation" / "best")
    written = json.loads((run_folder / "evaluation" / "best" / "report.json").read_text())
    assert written["training"] == {"val/top1": [[1, 0.25], [2, 0.5]]}
    assert "best validation top-1 is 50.0%" in (run_folder / "evaluation" / "best" / "report.html").read_text()


def test_a_damaged_log_leaves_the_training_curve_out(directory, tmp_path):
    run_folder = tmp_path / "runs" / "a"
    shutil.copytree(directory, run_folder / "evaluation")
    (run_folder / "checkpoints").mkdir()
    (run_folder / "config.yaml").write_text("[")
    (run_folder / "logs" / "csv").mkdir(parents=True)
    (run_folder / "logs" / "csv" / "metrics.csv").write_text("epoch,step,val/top1\nx,9,0.25\n")
    assert run(run_folder / "evaluation") == 0
    assert json.loads((run_folder / "evaluation" / "report.json").read_text())["training"] is None
