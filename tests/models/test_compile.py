"""`torch.compile` without graph breaks and `torch.export`, against eager: outputs, gradients, statistics."""

from __future__ import annotations

import copy
import io
import shutil
from functools import partial

import pytest
import torch

from dnl_video.models import dialects
from dnl_video.models.backbones import create_backbone
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.build import insert_context_blocks, make_context_block
from dnl_video.models.simplified import GlobalContextBlock3d, SimplifiedNonLocalBlock3d
from dnl_video.spec import ContextOptions, ModelSpec
from tests.models.helpers import BLOCKS, make_input, perturb, perturb_backbone, shallow, train_pass

pytestmark = pytest.mark.filterwarnings("ignore")
EVERY = BLOCKS | {
    "snl": SimplifiedNonLocalBlock3d,
    "gc": GlobalContextBlock3d,
    "official_detection": dialects.official_detection,
    "mmseg": dialects.mmseg,
    "learned": lambda c, **o: DisentangledNonLocalBlock3d(c, learned_temperature=True, whiten_over="frame", **o),
    "checkpointed": lambda c: DisentangledNonLocalBlock3d(c, checkpoint=True),
    "checkpointed_nl": lambda c: NonLocalBlock3d(c, checkpoint=True),
}
EVERY_BLOCK = pytest.mark.parametrize("kind", EVERY)
SHAPE = (2, 8, 2, 5, 4)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def make_network(architecture, stem_channels, context, full_size):
    """A narrow network, and a shallow one at the small size."""
    spec = ModelSpec(architecture, num_classes=5, stem_channels=stem_channels, dropout=0.0)
    model = create_backbone(spec).eval()
    positions = {"res3": [1, 3], "res4": [1, 3, 5]}
    if not full_size:
        shallow(model)
        positions = {"res3": [0], "res4": [0]}
    insert_context_blocks(model, partial(make_context_block, context=context, options=ContextOptions()), positions)
    clip = torch.randn(2, 3, 8, 32, 32)
    return perturb_backbone(model, clip), clip


@EVERY_BLOCK
def test_compiled_blocks_equal_eager_ones_without_a_graph_break(kind):
    block, x = perturb(EVERY[kind](8).double()).train(), make_input(*SHAPE)
    twin, weight = copy.deepcopy(block), torch.randn(SHAPE).double()
    # aot_eager traces forward and backward as inductor does, and leaves out its C++.
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(train_pass(compiled, x, weight), train_pass(block, x, weight), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(list(twin.buffers()), list(block.buffers()))


@pytest.mark.parametrize(
    ("kind", "strict"),
    [*((kind, False) for kind in EVERY), *((kind, True) for kind in ("nl", "dnl", "concatenation", "gc"))],
)
@torch.no_grad()
def test_exported_blocks_equal_eager_ones(kind, strict):
    block, x = perturb(EVERY[kind](8).double()).eval(), make_input(*SHAPE)
    exported = torch.export.export(block, (x,), strict=strict).module()
    for clip in (x, make_input(*SHAPE, seed=2)):
        torch.testing.assert_close(exported(clip), block(clip), rtol=0, atol=1e-12)


@pytest.mark.full
@pytest.mark.parametrize(
    ("architecture", "context"), [("slow_r50", "dnl"), ("slow_r50", "nl"), ("slowfast_r50", "dnl")]
)
def test_a_compiled_network_equals_eager(architecture, context, stem_channels, full_size):
    model, clip = make_network(architecture, stem_channels, context, full_size)
    weight = torch.randn(2, 5)
    expected = train_pass(model, clip, weight)
    # Forward and backward traced for one network, at full size for all; tracing takes long enough.
    trained = full_size or (architecture, context) == ("slow_r50", "dnl")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager" if trained else "eager")
    torch.testing.assert_close(train_pass(compiled, clip, weight), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.full
@pytest.mark.parametrize("architecture", ["slow_r50", "slowfast_r50"])
@torch.no_grad()
def test_an_exported_network_equals_eager_after_saving_and_loading(architecture, stem_channels, full_size):
    model, clip = make_network(architecture, stem_channels, "dnl", full_size)
    # Either way for both at full size; tracing is slow.
    ways = (True, False) if full_size else (architecture == "slow_r50",)
    for strict in ways:
        program = torch.export.export(model, (clip,), strict=strict)
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        loaded = torch.export.load(file).module()
        for x in (clip, torch.randn(clip.shape)):
            # Other kernels than eager's without gradients: the same up to float32's rounding.
            torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.full
@pytest.mark.parametrize("context", ["dnl", "gc"])
def test_inductor_equals_eager(context, full_size):
    """At full size by inductor, whose C++ takes minutes; else the graph alone is captured whole."""
    if full_size and shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    model, clip = make_network("slow_r50", 8, context, False)
    compiled = torch.compile(model, fullgraph=True, backend="inductor" if full_size else "eager")
    weight = torch.randn(2, 5)
    torch.testing.assert_close(
        train_pass(compiled, clip, weight), train_pass(model, clip, weight), rtol=1e-3, atol=1e-3
    )
