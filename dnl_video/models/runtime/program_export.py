"""Networks as programs for other runtimes: ONNX and torch.export, each compared with the network it was made from."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.files import atomic_path
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.weights.checkpoint import Checkpoint, payload

_TOLERANCE = 1e-3  # of the largest logit: convolutions sum in another order elsewhere


def require_onnx() -> None:
    """Check that the optional libraries are there.

    Raises:
        InputError: They are not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f"--onnx needs {', '.join(missing)}; pip install 'dnl-video[onnx]'")


def export_onnx(checkpoint: Checkpoint, path: Path) -> float:
    """Write a network as ONNX: ``clip`` float [batch, 3, T, S, S], normalised, to ``logits`` [batch, K].

    T and S are the checkpoint's frames and crop size, the batch is free. The model's metadata ``dnl_video`` holds what
    preprocessing and classes it has, as JSON.

    Args:
        checkpoint: The network.
        path: The file.

    Returns:
        The largest difference from the network's own logits, as a share of the largest logit.

    Raises:
        InputError: The exporter does not take the network, or onnxruntime computes something else.
    """
    require_onnx()
    import onnxruntime

    model, clip = checkpoint.build(), _clip(checkpoint, 2)
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (clip,),
                dynamo=True,
                input_names=["clip"],
                output_names=["logits"],
                dynamic_shapes=({0: batch},),
                verbose=False,
            )
    except Exception as error:  # the exporter's own kinds, one for each of its steps
        raise InputError(
            f"{path}: the ONNX exporter does not take {_named(checkpoint)} ({_innermost(error)}); use --torch-export"
        ) from error
    assert program is not None
    described = payload(checkpoint.spec, checkpoint.preprocessing, checkpoint.class_names, {})
    program.model.metadata_props["dnl_video"] = json.dumps(described)

    def check(file: Path) -> float:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return _difference(
            checkpoint, model, lambda x: torch.from_numpy(session.run(None, {"clip": np.asarray(x)})[0]), path
        )

    return _written(path, lambda file: program.save(file), check)


def export_program(checkpoint: Checkpoint, path: Path) -> float:
    """Write a network as a program for `torch.export.load`, with the shapes of `export_onnx`.

    Returns:
        The largest difference from the network's own logits, as a share of the largest logit.

    Raises:
        InputError: torch.export does not take the network, or the program computes something else.
    """
    model, clip = checkpoint.build(), _clip(checkpoint, 2)
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
            program = torch.export.export(model, (clip,), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export raises many kinds
        raise InputError(f"{path}: torch.export does not take {_named(checkpoint)} ({_innermost(error)})") from error

    def check(file: Path) -> float:
        loaded = torch.export.load(file).module()
        return _difference(checkpoint, model, lambda x: loaded(x), path)

    return _written(path, lambda file: torch.export.save(program, file), check)


def _written(path: Path, write: Callable[[Path], object], check: Callable[[Path], float]) -> float:
    """Write beside, check what was written, then give it its name."""
    with atomic_path(path) as temporary:
        write(temporary)
        return check(temporary)


@torch.no_grad()
def _difference(checkpoint: Checkpoint, model: VideoClassifier, other: Callable[[Tensor], Tensor], path: Path) -> float:
    worst = 0.0
    for clips in (1, 3):
        clip = _clip(checkpoint, clips)
        expected, found = model(clip), other(clip)
        worst = max(worst, float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)))
    if not worst <= _TOLERANCE:
        raise InputError(
            f"{path}: not written: its logits differ from those of {_named(checkpoint)} by {worst:.1e} of the largest"
        )
    return worst


def _clip(checkpoint: Checkpoint, clips: int) -> Tensor:
    size, frames = checkpoint.preprocessing.crop_size, checkpoint.preprocessing.num_frames
    return torch.randn(clips, 3, frames, size, size, generator=torch.Generator().manual_seed(clips))


def _named(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.spec.architecture} with context {checkpoint.spec.context}"


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress and advice off the terminal."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
