"""Objects beside the tensors of other projects' files, read as things that do nothing.

Checkpoints of a training hold more than weights: mmengine's history of losses, numpy's numbers, a framework's or a
user's configuration. `torch.load(weights_only=True)` refuses a file for any of them. Here such a name stands for a
class of ours that ignores what it is given, so that the tensors can be read: no named code is imported or run.

Names that no record of a training needs (functions of the standard library) stay refused, because they tell an attack;
so do torch's own, since a tensor of an unknown kind must not vanish.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any

_DATA = frozenset(["argparse", "collections", "copyreg", "datetime", "functools", "pathlib", "types", "typing"])
_BUILTINS = ("getattr", "bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "slice", "str", "tuple")
# What nearly every file of mmengine has: known beforehand, they cost no second reading.
_COMMON = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
)
_MOST = 200


class Inert:
    """An object, a function or a function's result: it takes anything and keeps nothing."""

    def __new__(cls, *_: Any) -> Inert:
        """Make one, whatever is given."""
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Ignore them."""

    def __setstate__(self, state: Any) -> None:
        """Ignore it."""


class _InertDict:
    """A kind of dictionary, made as one that torch's reader puts items in."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


class InertNames:
    """The names that stand for inert objects while a file is read."""

    def __init__(self) -> None:
        self._names = {*_COMMON, *(f"builtins.{name}" for name in _BUILTINS)}

    def add(self, name: str) -> bool:
        """Take a name in; False where it has to stay refused, or is known already."""
        top, dot, _ = name.partition(".")
        refused = not dot or top == "torch" or (top in sys.stdlib_module_names and top not in _DATA)
        if refused or name in self._names or len(self._names) > _MOST:
            return False
        self._names.add(name)
        return True

    def as_safe_globals(self) -> list[Any]:
        """Return pairs of stand-in and name for `torch.serialization.safe_globals`."""
        # Subclasses of dict are told by name: torch's reader fills no other class with items.
        return [
            (_InertDict if name.lower().endswith(("dict", "cfgnode")) else Inert, name) for name in sorted(self._names)
        ]
