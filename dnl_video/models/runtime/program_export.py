"""Export networks as programs for other runtimes, ONNX and torch.export, and compare them with the network."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.files import atomic_path
from dnl_video.models.weights.checkpoint import Checkpoint, payload

_TOLERANCE = 1e-3  # of the largest logit: other runtimes sum in another order


def require_onnx() -> None:
    """Check that the optional libraries are installed.

    Raises:
        InputError: One is missing.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f"--onnx needs {', '.join(missing)}; pip install 'dnl-video[onnx]'")


def export_onnx(checkpoint: Checkpoint, path: Path) -> float:
    """Write a network as ONNX: ``clip`` float [batch, 3, T, S, S], normalised, to ``logits`` [batch, K].

    T and S are the frames and crop size of the checkpoint; the batch size is free. The metadata entry ``dnl_video`` of
    the model holds its preprocessing and classes as JSON.

    Returns:
        The largest difference from the logits of the network, as a share of the largest logit.

    Raises:
        InputError: The exporter fails, or onnxruntime computes something else.
    """
    require_onnx()
    import onnxruntime

    def write(file: Path, model: torch.nn.Module, clip: Tensor, shapes: Any) -> None:
        names: dict[str, Any] = {"input_names": ["clip"], "output_names": ["logits"]}
        program = torch.onnx.export(model, (clip,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
        assert program is not None
        metadata = payload(checkpoint.spec, checkpoint.preprocessing, checkpoint.class_names, {})
        program.model.metadata_props["dnl_video"] = json.dumps(metadata)
        program.save(file)

    def load(file: Path) -> Callable[[Tensor], Tensor]:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda clip: torch.from_numpy(session.run(None, {"clip": clip.numpy()})[0])

    return _export(checkpoint, path, write, load, failed="the ONNX exporter fails for {} ({}); use --torch-export")


def export_program(checkpoint: Checkpoint, path: Path) -> float:
    """Write a network as a program for `torch.export.load`, with the shapes of `export_onnx`.

    Returns:
        The largest difference from the logits of the network, as a share of the largest logit.

    Raises:
        InputError: torch.export fails, or the program computes something else.
    """

    def write(file: Path, model: torch.nn.Module, clip: Tensor, shapes: Any) -> None:
        torch.export.save(torch.export.export(model, (clip,), dynamic_shapes=shapes), file)

    def load(file: Path) -> Callable[[Tensor], Tensor]:
        return torch.export.load(file).module()

    return _export(checkpoint, path, write, load, failed="torch.export fails for {} ({})")


def _export(
    checkpoint: Checkpoint,
    path: Path,
    write: Callable[[Path, torch.nn.Module, Tensor, Any], None],
    load: Callable[[Path], Callable[[Tensor], Tensor]],
    *,
    failed: str,
) -> float:
    """Write a program to a temporary file, compare its logits for several batch sizes, and rename the file."""
    model, name = checkpoint.build(), f"{checkpoint.spec.architecture} with context {checkpoint.spec.context}"
    with atomic_path(path) as temporary:
        try:
            with _quiet():
                write(temporary, model, _clip(checkpoint, 2), ({0: torch.export.Dim("batch")},))
        except OSError:  # atomic_path explains it
            raise
        except Exception as error:  # exporters raise many types
            raise InputError(f"{path}: {failed.format(name, _innermost(error))}") from error
        program, worst = load(temporary), 0.0
        for clips in (1, 3):
            clip = _clip(checkpoint, clips)
            with torch.no_grad():
                expected, found = model(clip), program(clip)
            worst = max(worst, float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)))
        if not worst <= _TOLERANCE:
            by = f"by {worst:.1e} of the largest"
            raise InputError(f"{path}: not written: its logits differ from those of {name} {by}")
    return worst


def _clip(checkpoint: Checkpoint, clips: int) -> Tensor:
    size, frames = checkpoint.preprocessing.crop_size, checkpoint.preprocessing.num_frames
    return torch.randn(clips, 3, frames, size, size, generator=torch.Generator().manual_seed(clips))


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress and advice of the exporters."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
