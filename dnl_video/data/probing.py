"""Placeholder of the decoders' own probe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VideoProbe:
    """What a file holds, and what reads it exactly."""

    codec: str
    duration_s: float
    decoder: str


def probe_video(path: str) -> VideoProbe:
    """Look at a file."""
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        seconds = container.duration / 1e6 if container.duration else 0.0
        return VideoProbe(stream.codec_context.name, seconds, "decord")
