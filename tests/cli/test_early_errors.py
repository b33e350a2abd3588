"""A wrong path or setting is found before torch is imported, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CHECKPOINT = ["--checkpoint", "gone.ckpt"]
COMMANDS = {
    "gone.ckpt: no such checkpoint": [
        ["evaluate", *CHECKPOINT, "--manifest", "list.csv"],
        ["predict", "a.mp4", *CHECKPOINT],
        ["features", "a.mp4", *CHECKPOINT, "--output", "out"],
        ["visualize", "a.mp4", *CHECKPOINT],
        ["export", *CHECKPOINT, "--output", "out"],
    ],
    "manifest gone.csv does not exist": [
        ["evaluate", "--checkpoint", "a.mp4", "--manifest", "gone.csv"],
        ["train", "--config", "i3d_dnl", "--data.train_manifest", "gone.csv"],
        ["train", "--config", "i3d_dnl", "--data.train_manifest", "list.csv", "--data.val_manifest", "gone.csv"],
    ],
    "gone.mp4 does not exist": [
        ["predict", "gone.mp4", *CHECKPOINT],
        ["features", "gone.mp4", *CHECKPOINT, "--output", "out"],
        ["visualize", "gone.mp4", *CHECKPOINT],
    ],
    "gone.pth: no such file of weights": [["convert", "gone.pth", "--output", "out"]],
    "gone does not exist": [["report", "gone"], ["compare", "gone", "gone too"], ["show", "gone"]],
    "is not a folder": [["prepare", "--videos", "gone", "--output", "out.csv"]],
    "no such file or recipe": [["train", "--config", "gone.yaml"], ["ablate", "--config", "gone.yaml"]],
    "file/out: cannot be written": [
        ["report", "a", "--output", "file/out"],
        ["compare", "a", "b", "--output", "file/out"],
        ["export", *CHECKPOINT, "--output", "file/out"],
        ["convert", "a.mp4", "--output", "file/out"],
        ["visualize", "a.mp4", "--checkpoint", "a.mp4", "--output", "file/out"],
    ],
    "give a name that ends in .safetensors": [
        ["export", *CHECKPOINT, "--output", "out.pt"],
        ["convert", "a.mp4", "--output", "out.pt"],
    ],
    "--annotate": [
        ["predict", "a.mp4", *CHECKPOINT, "--sliding", "--annotate", "file/seen.mp4"],
        ["predict", "a.mp4", *CHECKPOINT, "--sliding", "--annotate", "seen.txt"],
    ],
    "; give": [
        ["predict", "a.mp4", *CHECKPOINT, "--top", "0"],
        ["evaluate", *CHECKPOINT, "--manifest", "list.csv", "--num-clips", "0"],
        ["visualize", "a.mp4", *CHECKPOINT, "--fps", "0"],
        ["models", "--size", "3"],
        ["train", "--config", "i3d_dnl", "--optim.lr", "nan"],
        ["demo-data", "--output", "out", "--val-videos", "0"],
    ],
}

CODE = """
import contextlib, io, json, sys
from dnl_video.cli.main import main
found = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        status = main(words)
    found.append([words, status, stderr.getvalue(), "torch" in sys.modules])
print(json.dumps(found))
"""


def test_wrong_paths_and_settings_are_found_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\na.mp4,0\n")
    for name in ("a.mp4", "file"):
        (tmp_path / name).touch()
    expected = [(words, message) for message, commands in COMMANDS.items() for words in commands]
    command = [sys.executable, "-c", CODE, json.dumps([words for words, _ in expected])]
    found = json.loads(subprocess.check_output(command, cwd=tmp_path, text=True))
    for (words, message), (_, status, error, torch_loaded) in zip(expected, found, strict=True):
        assert (status, error.strip().count("\n")) == (2, 0), words
        assert message in error or message == "--annotate", words
        assert not torch_loaded, words
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "file", "list.csv"}
