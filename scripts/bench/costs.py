"""Count the parameters and multiply-accumulates that `dnl-video models` prints; takes ten minutes on one core.

python scripts/bench/costs.py > dnl_video/models/inspect/costs.csv
"""

from __future__ import annotations

from dnl_video.models.create import create_model
from dnl_video.models.inspect.flops import count
from dnl_video.spec import Architecture, Context, list_models

SIDES = (224, 256)


def row(architecture: Architecture, context: Context, sides: tuple[int, ...] = SIDES) -> str:
    """Return the line of a network: its parameters, then its multiply-accumulates for each side of the crop."""
    model = create_model(architecture, context=context)
    frames = 32 if architecture.startswith("slowfast") else 8
    costs = [count(model, 1, 3, frames, side, side) for side in sides]
    return ",".join(map(str, [architecture, context, costs[0].params, *(cost.macs for cost in costs)]))


def main() -> None:
    """Print the file."""
    print("architecture,context,params", *(f"macs_{side}" for side in SIDES), sep=",")
    for architecture, contexts in list_models().items():
        for context in contexts:
            print(row(architecture, context), flush=True)


if __name__ == "__main__":
    main()
