"""The package as a whole: what imports what, and what loads when."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dnl_video

PACKAGE = Path(dnl_video.__file__).parent

# Room -> rooms it may import. A room is a folder or file directly under the package.
ALLOWED = {
    "__init__": {"errors", "spec", "config", "models", "inference", "visualize"},
    "__main__": {"cli"},
    "errors": set(),
    "files": {"errors"},
    "cores": set(),
    "launcher": {"errors"},
    "spec": {"errors"},
    "naming": {"spec"},
    "config": {"errors", "spec"},
    "safe_pickle": set(),
    "progress_bar": set(),
    "models": {"errors", "files", "spec", "safe_pickle"},
    "data": {"errors", "files", "cores", "launcher", "spec", "config"},
    "results": {"errors", "files", "config", "spec", "safe_pickle"},
    "report": {"errors", "files", "naming", "results"},
    "synthetic": {"errors", "files", "cores", "data"},
    "training": {"errors", "files", "cores", "launcher", "progress_bar", "spec", "config", "models", "data", "report"},
    "inference": {"errors", "files", "cores", "launcher", "spec", "naming", "config", "models", "data", "results"},
    "studies": {"errors", "files", "cores", "launcher", "spec", "models", "results", "report"},
    "visualize": {"errors", "files", "cores", "spec", "naming", "models", "data", "inference"},
    "cli": {
        "errors",
        "files",
        "launcher",
        "progress_bar",
        "spec",
        "config",
        "models",
        "data",
        "results",
        "report",
        "synthetic",
        "training",
        "inference",
        "studies",
        "visualize",
    },
}
# Third-party border -> the files that may cross it.
ONLY_IMPORTERS = {
    "pytorchvideo": {"models/backbones.py"},
    "decord": {"data/readers.py"},
    "av": {"data/packets.py", "data/pictures.py", "data/encoding.py"},
    "fvcore": {"training/callbacks.py", "models/inspect/flops.py"},
    "jsonargparse": {"cli/train.py"},
    "huggingface_hub": {"models/weights/huggingface.py"},
    "safetensors": {"models/weights/source.py"},
    "onnxruntime": {"models/runtime/program_export.py"},
}


@functools.cache
def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@functools.cache
def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_one_way(path: Path) -> None:
    here = room(path)
    there = {name.split(".")[1] for name in imports(path) if name.startswith("dnl_video.")}
    rooms = {room(p) for p in sources()}
    assert (there & rooms) - {here} <= ALLOWED[here]


def test_no_module_imports_itself_through_others() -> None:
    """Imports inside functions count too."""
    modules = {
        ".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in sources()
    }
    graph = {name: (imports(path) & modules.keys()) - {name} for name, path in modules.items()}
    # `from package import module` names both; only the module is meant.
    graph = {name: {m for m in found if not any(o.startswith(f"{m}.") for o in found)} for name, found in graph.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize(("library", "files"), ONLY_IMPORTERS.items())
def test_third_party_borders_have_one_importer(library: str, files: set[str]) -> None:
    importers = {
        str(path.relative_to(PACKAGE))
        for path in sources()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    # readers.py may import decord by name, through importlib.
    assert importers <= files


@pytest.mark.parametrize(
    "statement",
    [
        "import dnl_video; dnl_video.__version__, dnl_video.list_models(), dnl_video.EvaluationConfig(num_clips=1)",
        "import dnl_video.config, dnl_video.report",
        "import dnl_video.data.decoding, dnl_video.data.manifest",
        "from dnl_video.cli.main import main; main(['--help'])",
    ],
)
def test_torch_is_not_loaded(statement: str) -> None:
    check = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_public_names_exist() -> None:
    for name in dnl_video.__all__:
        assert getattr(dnl_video, name) is not None
    assert set(dnl_video.__all__) | {"__version__"} == set(dir(dnl_video))
    project = re.search(r'^version = "(.+)"$', (PACKAGE.parent / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert project is not None
    assert dnl_video.__version__ == project[1]
    with pytest.raises(AttributeError, match="has no attribute 'create_modle'"):
        dnl_video.create_modle  # noqa: B018
