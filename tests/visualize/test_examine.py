from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import dnl_video
from dnl_video.data.encoding import write_video
from dnl_video.errors import InputError
from dnl_video.inference.predictor import Predictor
from dnl_video.spec import Architecture, Context, Preprocessing
from dnl_video.visualize.examine import examine
from tests.visualize.planted import untrained


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examine") / "noise.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (24, 64, 80, 3), dtype=np.uint8), 8)
    return path


def predictor(
    architecture: Architecture = "slow_r50",
    context: Context = "dnl",
    positions: dict[str, list[int]] | None = None,
    num_frames: int = 8,
) -> Predictor:
    preprocessing = Preprocessing(num_frames=num_frames, frame_stride=2, short_side=64, crop_size=64)
    return untrained(architecture, context, preprocessing, positions=positions or {"res3": [1], "res4": [1]})


def written(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def test_two_networks_side_by_side(video):
    found = examine([predictor(), predictor(context="nl")], video)
    assert found.blocks == ["res3.1", "res4.1"]
    titles = [row.title for row in found.rows("res3.1")]
    assert titles == ["DNL: unary"] + ["DNL: whitened pairwise", "NL: coupled"] * 2
    assert [name for name, _ in found.decompositions("res3.1")] == ["NL"]
    text = written(found.sheet("res3.1"))
    assert text.startswith("res3.1: attention of DNL and NL\nnoise.mp4, 0.50 to 2.38 s; DNL predicts ")
    assert "M = 128 keys (T \u00d7 H \u00d7 W = 8 \u00d7 4 \u00d7 4)" in text
    assert "query A: strongest motion" in text
    assert "query B: centre" in text
    decomposition = written(found.decompositions("res3.1")[0][1])
    assert "the coupled logits split into a unary and a whitened pairwise term" in decomposition
    assert "% of variance" in decomposition


def test_two_networks_of_one_kind_with_different_grids(video):
    found = examine([predictor(), predictor("i3d_r50")], video)
    assert [name for name, _ in found.networks] == ["DNL (1)", "DNL (2)"]
    text = written(found.sheet("res4.1"))
    assert "M = 32 keys (T \u00d7 H \u00d7 W = 8 \u00d7 2 \u00d7 2) in DNL (1), M = 16 keys" in text
    assert "4 \u00d7 2 \u00d7 2) in DNL (2)" in text


def test_two_seeds_are_named_by_their_run_folders(video):
    networks = [predictor(), predictor()]
    for seed, network in enumerate(networks):
        network.facts = {"weights": f"runs/s{seed}/checkpoints/last.ckpt", "seed": seed, "optim": {"lr": 0.1}}
    found = examine(networks, video)
    assert [row.title for row in found.rows("res3.1")][:2] == ["s0: unary", "s1: unary"]
    text = written(found.sheet("res3.1"))
    assert text.startswith("res3.1: DNL attention of s0 and s1\n")
    assert "; s0: seed 0; s1: seed 1; " in text.replace("\n", " ")


def test_slowfast_shows_the_frames_of_its_slow_pathway(video):
    figure = dnl_video.draw_attention(predictor("slowfast_r50", num_frames=16), video, clip_start_s=0)
    titles = [axes.get_title().splitlines()[0] for axes in figure.axes if axes.get_title()]
    assert titles == ["frame 0", "frame 5", "frame 10", "frame 15"]


@pytest.mark.parametrize("context", ["unary", "snl", "gc"])
def test_maps_that_do_not_depend_on_queries(video, context):
    found = examine([predictor(context=context)], video)
    assert found.queries == []
    assert len(found.rows("res3.1")) == 1
    assert "query" not in written(found.sheet("res3.1"))
    assert found.decompositions("res3.1") == []


def test_texts_lie_inside_the_picture(video):
    """Also in a figure with one column, whose headings are wider than its panels."""
    found = examine([predictor("slow_r50", num_frames=1), predictor("slow_r50", "nl", num_frames=1)], video)
    for figure in (found.sheet("res3.1"), found.decompositions("res3.1")[0][1]):
        figure.canvas.draw()
        for text in figure.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.x1, text.get_text()
        lines = [text.get_window_extent() for text in figure.texts if text.get_verticalalignment() == "top"]
        assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(lines))


def test_draw_attention(video, tmp_path):
    used = predictor()
    figure = dnl_video.draw_attention(used, video)
    assert written(figure).startswith("res4.1: attention of DNL")
    chosen = dnl_video.draw_attention(used, video, queries=[(3, 0.25, 0.75)], block="res3.1", clip_start_s=1)
    assert written(chosen).startswith("res3.1: attention of DNL\nnoise.mp4, 1.00 to 2.88 s")
    assert "query A: (3, 0.25, 0.75)" in written(chosen)
    chosen.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    both = dnl_video.draw_attention(used, video, compare_to=predictor(context="nl"))
    assert "NL: coupled" in written(both)


def test_networks_and_queries_that_do_not_fit_are_refused(video):
    with pytest.raises(InputError, match=r"at the same place \(res3\.1, res4\.1 and res2\.0\); compare networks"):
        examine([predictor(), predictor(positions={"res2": [0]})], video)
    with pytest.raises(InputError, match="see different clips: num_frames is 8 and 16"):
        examine([predictor(), predictor(num_frames=16)], video)
    with pytest.raises(InputError, match="no context blocks"):
        examine([predictor(), predictor(context="none")], video)
    with pytest.raises(InputError, match="maps of GC are the same for every query; leave it out"):
        dnl_video.draw_attention(predictor(context="gc"), video, queries=[(0, 0.5, 0.5)])
    with pytest.raises(InputError, match="query frame 8 is outside the clip; its frames are 0 to 7"):
        dnl_video.draw_attention(predictor(), video, queries=[(8, 0.5, 0.5)])
    with pytest.raises(InputError, match=r"no block 'res5\.0'"):
        dnl_video.draw_attention(predictor(), video, block="res5.0")
