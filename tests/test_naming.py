import pytest

from dnl_video.naming import differing_settings, network_names, run_folder

CKPT = "checkpoints/best-epoch031-top1_0.8750.ckpt"


def network(weights, model="slow_r50 + dnl", **facts):
    return {"model": model, "weights": weights, **facts}


@pytest.mark.parametrize(
    ("networks", "names"),
    [
        # Two contexts of one backbone.
        ([network(f"runs/{c}/{CKPT}", f"slow_r50 + {c}") for c in ("dnl", "nl")], ["slow_r50 + dnl", "slow_r50 + nl"]),
        # Two seeds in two run folders; the part of the path that differs.
        ([network(f"runs/dnl_s{i}/{CKPT}", seed=i) for i in (0, 1)], ["dnl_s0", "dnl_s1"]),
        ([network(f"{root}/seed{i}/dnl/{CKPT}") for i, root in enumerate(("runs", "/far/runs"))], ["seed0", "seed1"]),
        # Exported models.
        ([network(f"models/{name}.safetensors") for name in "ab"], ["a", "b"]),
        # One run: another checkpoint, another setting, another directory, nothing.
        ([network("r/checkpoints/last.ckpt"), network(f"r/{CKPT}")], ["last", "best-epoch031-top1_0.8750"]),
        (
            [network(f"r/{CKPT}", frame_order=order) for order in ("natural", "reversed")],
            ["frame_order natural", "frame_order reversed"],
        ),
        ([network("w", results=f"predictions/{x}/val") for x in "cd"], ["c", "d"]),
        ([network("w", "nl"), network("w", "nl"), network("w", "nl")], ["nl (1)", "nl (2)", "nl (3)"]),
        # Only networks with one model get more than its name; an unknown origin has none.
        (
            [network("runs/a/last.ckpt", seed=3), network("runs/b/last.ckpt", seed=4), network("", "theirs.pkl")],
            ["slow_r50 + dnl, a", "slow_r50 + dnl, b", "theirs.pkl"],
        ),
        ([network("runs/a/last.ckpt")], ["slow_r50 + dnl"]),
        # Seven networks: three seeds of two contexts, and a plain one.
        (
            [network(f"runs/{c}{i}/{CKPT}", c) for c in ("dnl", "nl") for i in range(3)] + [network("x.ckpt", "none")],
            ["dnl, dnl0", "dnl, dnl1", "dnl, dnl2", "nl, nl0", "nl, nl1", "nl, nl2", "none"],
        ),
    ],
)  # fmt: skip
def test_names_say_what_differs(networks, names):
    assert network_names(networks) == names
    assert len(set(names)) == len(names)


def test_settings_are_those_that_differ():
    networks = [
        network("a", seed=0, optim={"lr": 0.1, "momentum": 0.9}, context="dnl"),
        network("b", seed=1, optim={"lr": 0.01, "momentum": 0.9}, context="nl", num_clips=10),
    ]
    assert differing_settings(networks) == [
        {"seed": "0", "optim.lr": "0.1"},
        {"seed": "1", "optim.lr": "0.01", "num_clips": "10"},
    ]
    assert differing_settings(networks[:1]) == [{}]


@pytest.mark.parametrize(
    ("weights", "folder"),
    [
        (f"runs/a/{CKPT}", "runs/a"),
        ("a/model.safetensors", "a"),
        ("m/slow.safetensors", "m/slow"),
        ("a/last.ckpt", "a"),
    ],
)
def test_run_folder(weights, folder):
    assert run_folder(weights).as_posix() == folder
