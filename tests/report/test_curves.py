from pathlib import Path

import matplotlib.image
import numpy as np

from dnl_video.report.curves import draw_training, read_curves
from dnl_video.report.figures import save_png

# Two epochs of 10 steps, then the second again and a third in a resumed run; lr has no epoch of its own.
FIRST = """epoch,lr-SGD,step,train/loss,train/loss_epoch,train/top1,val/loss,val/top1
,0.1,4,,,,,
0,,4,9.0,,,,
0,,9,,2.0,0.25,,
0,,9,,,,1.5,0.3
1,,19,,1.0,0.5,,
,0.09"""
RESUMED = """epoch,lr-SGD,step,train/loss_epoch,train/top1,val/top1
,0.05,14,,,
1,,19,0.75,0.75,
2,,29,0.5,0.8,0.9
"""


def written(run: Path) -> Path:
    for name, text in (("csv", FIRST), ("csv-resumed-1", RESUMED)):
        (run / "logs" / name).mkdir(parents=True)
        (run / "logs" / name / "metrics.csv").write_text(text, encoding="utf-8")
    return run


def test_curves_join_the_logs_of_a_resumed_run(tmp_path):
    assert read_curves(written(tmp_path)) == {
        "train/loss": [(1, 2.0), (2, 0.75), (3, 0.5)],
        "train/top1": [(1, 0.25), (2, 0.75), (3, 0.8)],
        "val/loss": [(1, 1.5)],
        "val/top1": [(1, 0.3), (3, 0.9)],
        "lr": [(0.5, 0.1), (1.5, 0.05)],
    }
    assert read_curves(tmp_path / "nowhere") == {}


def test_figure_draws_the_points(tmp_path):
    curves = read_curves(written(tmp_path))
    figure = draw_training(curves)
    loss, top1, rate = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in top1.lines}
    assert drawn == {part: [list(point) for point in curves[f"{part}/top1"]] for part in ("train", "val")}
    assert len(loss.lines) == 2
    np.testing.assert_allclose(rate.lines[0].get_xydata(), curves["lr"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "val"]
    save_png(figure, tmp_path / "curves.png")
    assert matplotlib.image.imread(tmp_path / "curves.png").shape[1] == 840
    save_png(draw_training({"val/top1": [(1, 0.5)]}), tmp_path / "curves.png")  # without training metrics and lr
