"""What a load of weights did: which tensors were filled, which stayed new, what of the source was left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LoadReport:
    """The result of `load_weights`.

    Attributes:
        origin: The project whose layout the source has.
        source: The file or name it was given as; None for weights in memory.
        sha256: The file's checksum.
        matched: The network's tensors that were filled.
        new: The network's tensors that kept their values, each with the reason.
        left: The source's tensors, by its own names, that went nowhere, each with the reason.
        reshaped: Filled tensors whose shape changed (1x1x1 kernels to matrices): ``"[64, 8, 1, 1, 1] -> [64, 8]"``.
        inflated: Filled tensors that were 2-D kernels, repeated over time and divided by its length.
        loaded_parameters: Parameters filled.
        new_parameters: Parameters that kept their values.
        left_parameters: Numbers in the source that went nowhere.
        preprocessing: Fields of `Preprocessing` that the source expects of its clips.
        notes: Sentences for the person who loads it.
    """

    origin: str
    source: str | None
    sha256: str | None
    matched: tuple[str, ...]
    new: Mapping[str, str]
    left: Mapping[str, str]
    reshaped: Mapping[str, str]
    inflated: Mapping[str, str]
    loaded_parameters: int
    new_parameters: int
    left_parameters: int
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the report as a few lines."""
        changed = [
            f"{len(names)} {word}"
            for names, word in ((self.reshaped, "reshaped"), (self.inflated, "inflated over time"))
            if names
        ]
        loaded = f"loaded, {self.loaded_parameters / 1e6:.2f}M parameters" + "".join(f", {text}" for text in changed)
        rows = [(len(self.matched), loaded)]
        rows += [(n, f"new: {reason}") for reason, n in Counter(self.new.values()).items()]
        rows += [(n, f"left: {reason}") for reason, n in Counter(self.left.values()).items()]
        lines = [
            f"weights: {self.source or 'given'} ({self.origin})",
            *(f"  {n:>4} tensors {text}" for n, text in rows),
        ]
        if self.new_parameters:
            lines.append(f"  {self.new_parameters:,} parameters are new")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def provenance(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it, as plain JSON types."""
        return {
            "origin": self.origin,
            "source": self.source,
            "sha256": self.sha256,
            "loaded_tensors": len(self.matched),
            "loaded_parameters": self.loaded_parameters,
            "new_parameters": self.new_parameters,
            "new": dict(Counter(self.new.values())),
            "left": dict(Counter(self.left.values())),
            "notes": list(self.notes),
        }
