"""What `dnl-video bench` measures of blocks and networks, as plain records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from dnl_video.bench.block import Block, BlockCase, Variant
from dnl_video.bench.memory import peak_bytes
from dnl_video.bench.network import NetworkCase
from dnl_video.bench.timing import alternate

Advance = Callable[[str], None]
VARIANTS: tuple[Variant, ...] = ("ours", "naive")


@dataclass(frozen=True)
class BlockResult:
    """Seconds and peak bytes of a pass by variant; bytes are None where they were not measured."""

    case: BlockCase
    seconds: dict[str, float]
    peak: dict[str, int | None]


@dataclass(frozen=True)
class GrowthResult:
    """Peak bytes of a pass at several numbers of positions L, and the exponent p of the fit bytes = c * L^p."""

    variant: Variant
    backward: bool
    positions: tuple[int, ...]
    peak: tuple[int, ...]
    exponent: float


@dataclass(frozen=True)
class NetworkResult:
    """Seconds of a pass and, on a GPU, peak bytes by variant."""

    case: NetworkCase
    seconds: dict[str, float]
    peak: dict[str, int]


def measure_blocks(
    cases: Sequence[BlockCase], device: torch.device, *, repeats: int, budget_s: float, memory: bool, advance: Advance
) -> Iterator[BlockResult]:
    """Measure each case's block against its literal form."""
    for case in cases:
        name = f"{case.block} L={case.positions}"
        seconds = alternate(
            case.passes(device),  # type: ignore[arg-type]
            device,
            repeats=repeats,
            budget_s=budget_s,
            advance=lambda variant, name=name: advance(f"{name} {variant}"),  # type: ignore[misc]
        )
        peak: dict[str, int | None] = {}
        for variant in VARIANTS:
            advance(f"{name} {variant}, memory")
            peak[variant] = peak_bytes(case, variant, device) if memory else None
        yield BlockResult(case, seconds, peak)


def measure_growth(
    block: Block,
    frames: Sequence[int],
    device: torch.device,
    *,
    channels: int,
    height: int,
    largest_naive: int,
    advance: Advance,
    backward: Sequence[bool] = (False, True),
) -> Iterator[GrowthResult]:
    """Measure how peak memory of the unpooled block grows with its positions.

    Args:
        block: Which one.
        frames: Numbers of frames T; positions are T * height^2.
        device: Where.
        channels: Channels C.
        height: Height and width of the maps.
        largest_naive: Positions beyond which the literal form is left out.
        advance: Told what is measured next.
        backward: Without and with the backward pass.
    """
    for training in backward:
        for variant in VARIANTS:
            cases = [BlockCase(block, channels, t, height, backward=training) for t in frames]
            cases = [c for c in cases if variant == "ours" or c.positions <= largest_naive]
            found = []
            for case in cases:
                advance(f"{variant} L={case.positions}")
                peak = peak_bytes(case, variant, device)
                if peak is None:
                    return
                found.append(peak)
            positions = tuple(case.positions for case in cases)
            yield GrowthResult(variant, training, positions, tuple(found), growth_exponent(positions, found))


def growth_exponent(positions: Sequence[int], values: Sequence[float]) -> float:
    """Return the p of the least-squares fit ``log value = p log positions + c``."""
    x, y = [math.log(n) for n in positions], [math.log(v) for v in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread


def measure_networks(
    cases: Sequence[NetworkCase], device: torch.device, *, repeats: int, budget_s: float, advance: Advance
) -> Iterator[NetworkResult]:
    """Measure each case's variants in turns."""
    for case in cases:
        passes = case.passes(device)
        seconds = alternate(
            passes,
            device,
            repeats=repeats,
            budget_s=budget_s,
            advance=lambda variant, case=case: advance(f"{case.context} {variant}"),  # type: ignore[misc]
        )
        peak = {}
        if device.type == "cuda":
            for name, one_pass in passes.items():
                torch.cuda.reset_peak_memory_stats(device)
                one_pass()
                torch.cuda.synchronize()
                peak[name] = torch.cuda.max_memory_allocated(device)
        yield NetworkResult(case, seconds, peak)
