"""`create_model`: identity at initialisation, hub state dicts, parameter counts, and options."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch import nn

from dnl_video.errors import InputError
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.build import build_model
from dnl_video.models.context_block import AttentionBlock, ContextBlock
from dnl_video.models.create import create_model
from dnl_video.models.simplified import GlobalContextBlock3d, SimplifiedNonLocalBlock3d
from dnl_video.spec import ContextOptions, ModelSpec, list_models
from tests.models.helpers import hub_network, perturb, perturb_backbone, relative_error

R50 = ("slow_r50", "i3d_r50", "c2d_r50", "slowfast_r50")
R101 = ("slow_r101", "i3d_r101", "c2d_r101", "slowfast_r101")
CONTEXTS = ("nl", "dnl", "pairwise", "unary", "snl", "gc")
ALL_CONTEXTS = pytest.mark.parametrize("context", CONTEXTS)


def make_model(architecture, stem_channels=8, num_classes=5, **options):
    return create_model(architecture, stem_channels=stem_channels, num_classes=num_classes, **options).eval()


def context_blocks(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, ContextBlock)}


def count(module):
    return sum(p.numel() for p in module.parameters())


# ---- identity at init, and the hub's weights


ALL_R50_AND_R101 = pytest.mark.parametrize(
    ("architecture", "context"), [*itertools.product(R50, CONTEXTS), *((name, "dnl") for name in R101)]
)


@pytest.mark.full
@ALL_R50_AND_R101
@torch.no_grad()
def test_new_blocks_do_not_change_the_logits(architecture, context, stem_channels, full_size):
    size = (8, 64, 64) if full_size else (4, 32, 32)
    clip = torch.randn(2, 3, *size)
    bare = make_model(architecture, stem_channels, dropout=0.0)
    perturb_backbone(bare, clip)
    model = make_model(architecture, stem_channels, context=context, dropout=0.0)
    result = model.load_state_dict(bare.state_dict(), strict=False)
    assert result.unexpected_keys == []
    logits = model(clip)
    assert logits.std() > 0.05
    assert torch.equal(logits, bare(clip))
    assert torch.equal(model.train()(clip), bare.train()(clip))

    for block in context_blocks(model).values():
        perturb(block)
    assert relative_error(model.eval()(clip), bare.eval()(clip)) > 1e-3


@pytest.mark.full
@pytest.mark.parametrize(("architecture", "context"), [*itertools.product(R50, CONTEXTS), ("slowfast_r101", "dnl")])
@torch.no_grad()
def test_a_hub_state_dict_loads_with_only_context_blocks_missing(architecture, context, stem_channels):
    state = hub_network(architecture, stem_channels).state_dict()
    model = make_model(architecture, stem_channels, context=context)
    result = model.load_state_dict(state, strict=False)
    context_keys = {key for key in model.state_dict() if "context_blocks" in key}
    # torch fills in this counter by itself for a batch norm that a state dict does not know.
    assert set(result.missing_keys) == {key for key in context_keys if not key.endswith("num_batches_tracked")}
    assert all(any(key.startswith(name + ".") for name in context_blocks(model)) for key in context_keys)
    assert len(context_blocks(model)) == 5
    assert result.unexpected_keys == []
    # And back: dropping them leaves a hub state dict.
    left = {key: value for key, value in model.state_dict().items() if key not in context_keys}
    assert list(left) == list(state)
    assert all(torch.equal(left[key], state[key]) for key in state)


# ---- parameters


@functools.cache
def on_meta(architecture, context):
    with torch.device("meta"):
        return create_model(architecture, context=context)


# Two blocks of C = 512 and three of C = 1024. nl has four biased convolutions between C and C / 2 and a batch norm; dnl
# has no biases of query and key, but a convolution to one channel. snl has a biased mask and a C x C value; gc
# has ratio 1/4.
ADDED = {"nl": 7_358_464, "dnl": 7_358_464, "pairwise": 7_354_368, "unary": 3_688_448}
ADDED |= {"snl": 3_674_117, "gc": 1_846_277}


@ALL_CONTEXTS
@pytest.mark.parametrize("architecture", ["slow_r50", "slowfast_r50", "i3d_r101"])
def test_parameters_that_five_blocks_add(architecture, context):
    model = on_meta(architecture, context)
    assert len(context_blocks(model)) == 5
    assert count(model) - count(on_meta(architecture, "none")) == ADDED[context]


@pytest.mark.parametrize(
    ("context", "attention"),
    [
        *(("nl", attention) for attention in ("gaussian", "dot_product", "concatenation")),
        *((context, "embedded_gaussian") for context in CONTEXTS),
    ],
)
@pytest.mark.parametrize("architecture", ["i3d_r50", "slowfast_r50"])
def test_every_parameter_gets_a_gradient(architecture, context, attention):
    model = make_model(architecture, context=context, attention=attention)
    clip = torch.randn(2, 3, 8, 64, 64)
    perturb_backbone(model, clip).eval()
    (model(clip) * torch.randn(2, 5)).sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-7]
    # The softmax cancels a bias of the keys or of the mask, which these blocks have because published weights do.
    cancelled = {"snl": ".mask.bias", "gc": ".mask.bias"}.get(context)
    if context == "nl" and attention == "embedded_gaussian":
        cancelled = ".key.bias"
    assert all(cancelled is not None and name.endswith(cancelled) for name in missing)
    assert all(p.grad is not None for p in model.parameters())


# ---- initial values and options


@ALL_CONTEXTS
@pytest.mark.parametrize("architecture", [*R50, "slow_r101"])
def test_initial_values_survive_building(architecture, context):
    blocks = context_blocks(make_model(architecture, context=context))
    assert len(blocks) == 5
    for block in blocks.values():
        for name, parameter in block.named_parameters():
            last = {"snl": "value.weight", "gc": "expand.weight"}.get(context, "norm.weight")
            if name == last or name.endswith("bias"):
                assert torch.count_nonzero(parameter) == 0
            elif name == "layer_norm.weight":
                assert (parameter == 1).all()
            else:
                assert parameter.std().item() == pytest.approx(0.01, rel=0.5 if parameter.numel() < 1000 else 0.1)


@pytest.mark.parametrize(
    ("context", "kind", "terms", "temperature"),
    [
        ("nl", NonLocalBlock3d, None, 1.0),
        ("dnl", DisentangledNonLocalBlock3d, (True, True), 0.05),
        ("pairwise", DisentangledNonLocalBlock3d, (True, False), 0.05),
        ("unary", DisentangledNonLocalBlock3d, (False, True), None),
        ("snl", SimplifiedNonLocalBlock3d, None, None),
        ("gc", GlobalContextBlock3d, None, None),
    ],
)
def test_contexts_and_their_defaults(context, kind, terms, temperature):
    for name, block in context_blocks(make_model("slow_r50", context=context)).items():
        channels = 64 if ".2." in name else 128
        assert type(block) is kind
        assert (block.channels, block.checkpoint) == (channels, False)
        if not isinstance(block, AttentionBlock):
            assert context == "snl" or block.reduce.out_features == channels // 4
            continue
        assert (block.inner_channels, block.value_channels, block.output) == (channels // 2, channels // 2, "conv_bn")
        assert (block.pool, block.pool_order) == ((1, 2, 2), "before")
        if terms is not None:
            assert (block.query is not None, block.unary is not None) == terms
            assert block.whiten_over == "space_time"
        else:
            assert block.attention == "embedded_gaussian"
        if temperature is not None:
            assert block.scale == pytest.approx(1 / (math.sqrt(channels // 2) * temperature))


@ALL_CONTEXTS
def test_options_reach_the_blocks(context):
    options = {"positions": {"res5": [2], "res2": [0]}, "inner_ratio": 0.25, "value_ratio": 0.75, "scaled": False}
    options |= {"attention": "dot_product", "temperature": 0.2, "pool": (1, 3, 3), "pool_order": "after"}
    options |= {"whiten_over": "frame", "bias": context != "nl", "output": "conv", "gc_ratio": 0.125}
    options |= {"zero_init": False, "checkpoint": True}
    blocks = context_blocks(make_model("i3d_r50", context=context, **options))
    assert list(blocks) == ["blocks.1.context_blocks.0", "blocks.5.context_blocks.2"]
    for block, channels in zip(blocks.values(), (32, 256), strict=True):
        assert (block.channels, block.checkpoint) == (channels, True)
        if context in ("snl", "gc"):
            assert torch.count_nonzero(block.value.weight if context == "snl" else block.expand.weight) > 0
            assert context == "snl" or block.reduce.out_features == channels // 8
            continue
        assert (block.inner_channels, block.value_channels) == (channels // 4, channels * 3 // 4)
        assert (block.scale, block.pool, block.pool_order) == (pytest.approx(5), (1, 3, 3), "after")
        assert block.norm is None
        assert torch.count_nonzero(block.out.weight) > 0
        if block.query is not None:
            assert (block.query.bias is not None) == (context != "nl")
        if context == "nl":
            assert block.attention == "dot_product"
        elif context != "unary":
            assert block.whiten_over == "frame"


@pytest.mark.parametrize("context", ["nl", "dnl", "pairwise", "unary"])
def test_gamma_and_learned_temperature_reach_the_blocks(context):
    options = {"output": "gamma", "learned_temperature": True, "temperature": 0.3}
    for block in context_blocks(make_model("slow_r50", context=context, **options)).values():
        assert block.out is None
        assert block.norm is None
        assert block.value_channels == block.channels
        # An ablation owns no parameter that it does not use.
        assert (block.gamma is not None) == (block.temperature.log is not None) == (context != "unary")
        assert torch.as_tensor(block.scale).item() == pytest.approx(1 / (math.sqrt(block.inner_channels) * 0.3))


def test_pool_none_and_context_none():
    assert {block.pool for block in context_blocks(make_model("slow_r50", context="dnl", pool=None)).values()} == {None}
    assert context_blocks(make_model("slow_r50")) == {}
    assert not any("context" in key for key in make_model("slow_r50", context="none").state_dict())


def test_arguments_are_those_of_the_spec():
    arguments = {"architecture": "slowfast_r50", "context": "pairwise", "num_classes": 7, "head": "global"}
    arguments |= {"stem_channels": 16, "dropout": 0.25, "zero_init_residual": False}
    arguments["context_options"] = ContextOptions(pool=None, temperature=0.1)
    torch.manual_seed(3)
    model = create_model(**arguments)
    torch.manual_seed(3)
    again = build_model(ModelSpec(**arguments))
    assert str(model) == str(again)
    state, state_again = model.state_dict(), again.state_dict()
    assert list(state) == list(state_again)
    assert all(torch.equal(state[key], state_again[key]) for key in state)
    assert model.blocks[-1].proj.out_features == 7
    assert model.blocks[0].multipathway_blocks[0].conv.out_channels == 16
    assert model.blocks[-1].dropout.p == 0.25
    assert isinstance(model.blocks[-2].pool[0], nn.AdaptiveAvgPool3d)
    final = [m.weight for m in model.modules() if getattr(m, "block_final_bn", False)]
    assert len(final) == 32
    assert all((scale == 1).all() for scale in final)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "slow_r52"}, "architecture is 'slow_r52'; allowed: slow_r50, .*; did you mean 'slow_r50'?"),
        ({"context": "dnl_block"}, "context is 'dnl_block'; allowed: none, nl, dnl, .*, gc$"),
        ({"head": "gap"}, "head is 'gap'; allowed: dense_logits, dense_probabilities, global"),
        ({"context": "dnl", "positions": {"res7": [0]}}, "positions: no stage 'res7'; allowed: res2, res3, res4, res5"),
        ({"context": "dnl", "positions": {"res3": [9]}}, "positions: res3 has no residual block 9; allowed: 0 to 3"),
    ],
)
def test_wrong_values_are_input_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        make_model(**{"architecture": "slow_r50", **arguments})


def test_block_options_may_be_given_by_name_and_override_those_given_together():
    named = create_model("slow_r50", context="dnl", stem_channels=8, positions={"res3": [0]}, temperature=0.1)
    assert named.spec.context_options == ContextOptions(positions={"res3": [0]}, temperature=0.1)
    both = create_model(
        "slow_r50", context="dnl", stem_channels=8, context_options=ContextOptions(pool=None), positions={"res3": [0]}
    )
    assert both.spec.context_options == ContextOptions(pool=None, positions={"res3": [0]})


def test_block_options_may_be_a_mapping():
    options = {"pool": [1, 1, 2], "temperature": 0.1}
    model = create_model("slow_r50", context="dnl", stem_channels=8, context_options=options, temperature=0.2)
    assert model.spec.context_options == ContextOptions(pool=(1, 1, 2), temperature=0.2)
    assert options == {"pool": [1, 1, 2], "temperature": 0.1}
    assert create_model("slow_r50", stem_channels=8, context_options=None).spec.context_options == ContextOptions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 1}, "^unknown key 'temprature' in ContextOptions; allowed: positions, .*; did you mean 'temp"),
        ({"pool": [1, 0, 2]}, r"^pool is \[1, 0, 2\]; give a list of 3 whole numbers in \[1, 64\], or null$"),
        ([0.1], r"^ContextOptions is \[0\.1\]; give a mapping$"),
    ],
)
def test_wrong_block_options_in_a_mapping(options, message):
    with pytest.raises(InputError, match=message):
        create_model("slow_r50", context="dnl", context_options=options)


def test_every_listed_model_can_be_built():
    listed = list_models()
    assert sorted(listed) == sorted([*R50, *R101])
    assert set(listed.values()) == {("none", *CONTEXTS)}
    with torch.device("meta"):
        for architecture, contexts in listed.items():
            assert create_model(architecture, context=contexts[2], stem_channels=8).spec.architecture == architecture


def test_a_printed_network_shows_its_spec_and_its_blocks():
    options = {"positions": {"res3": [1], "res4": [0]}, "temperature": 0.1}
    model, bare = make_model("slow_r50", context="dnl", context_options=options), make_model("i3d_r50")
    assert repr(model).splitlines() == [
        "VideoClassifier(ModelSpec(architecture='slow_r50', context='dnl', num_classes=5, stem_channels=8, "
        "context_options=ContextOptions(positions={'res3': [1], 'res4': [0]}, inner_ratio=0.5, temperature=0.1)), "
        f"{count(model) / 1e6:.2f}M parameters",
        "  blocks.2.context_blocks.1: DisentangledNonLocalBlock3d(channels=64, inner=32, "
        "pool=(1, 2, 2), temperature=0.1)",
        "  blocks.3.context_blocks.0: DisentangledNonLocalBlock3d(channels=128, inner=64, "
        "pool=(1, 2, 2), temperature=0.1))",
    ]
    assert repr(bare) == (
        "VideoClassifier(ModelSpec(architecture='i3d_r50', context='none', num_classes=5, stem_channels=8), "
        f"{count(bare) / 1e6:.2f}M parameters)"
    )


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (NonLocalBlock3d(8), "NonLocalBlock3d(channels=8, inner=4, pool=(1, 2, 2), temperature=1)"),
        (
            NonLocalBlock3d(8, attention="gaussian", learned_temperature=True, pool_order="after", output="conv"),
            "NonLocalBlock3d(channels=8, inner=4, pool=(1, 2, 2), temperature=learned from 1, attention=gaussian, "
            "pool_order=after, output=conv)",
        ),
        (
            DisentangledNonLocalBlock3d(8, unary=False, pool=None),
            "DisentangledNonLocalBlock3d(channels=8, inner=4, pool=None, temperature=0.05, terms=pairwise)",
        ),
        (
            DisentangledNonLocalBlock3d(8, 2, pairwise=False),
            "DisentangledNonLocalBlock3d(channels=8, inner=2, pool=(1, 2, 2), terms=unary)",
        ),
        (SimplifiedNonLocalBlock3d(8), "SimplifiedNonLocalBlock3d(channels=8)"),
        (GlobalContextBlock3d(8), "GlobalContextBlock3d(channels=8, bottleneck=2)"),
    ],
)
def test_a_printed_block_is_one_line(block, text):
    assert repr(block) == text


@pytest.mark.parametrize(
    ("option", "suggestion"), [("num_clases", "num_classes"), ("position", "positions"), ("pretrain", "pretrained")]
)
def test_an_unknown_option_names_the_nearest(option, suggestion):
    with pytest.raises(InputError, match=f"unknown option '{option}'; allowed: .*; did you mean '{suggestion}'"):
        create_model("slow_r50", **{option: 1})


def test_slow_alpha_slow_frames_and_fusion_kernel_of_slowfast() -> None:
    model = create_model(
        "slowfast_r50", stem_channels=8, num_classes=3, slow_alpha=8, slow_frames="strided", fusion_kernel=5
    )
    fusion = model.blocks[0].multipathway_fusion.conv_fast_to_slow
    assert (fusion.kernel_size, fusion.stride) == ((5, 1, 1), (8, 1, 1))
    seen = []
    model.blocks[0].multipathway_blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    clip = torch.arange(32.0).reshape(1, 1, 32, 1, 1).expand(1, 3, 32, 32, 32)
    assert model.eval()(clip).shape == (1, 3)
    assert seen[0][0, 0, :, 0, 0].tolist() == [0, 8, 16, 24]


def test_linear_lateral_connections() -> None:
    model = create_model("slowfast_r50", stem_channels=8, num_classes=3, fusion="conv")
    assert not [name for name in model.state_dict() if "multipathway_fusion.norm" in name]
    fusion = model.blocks[0].multipathway_fusion
    slow, fast = torch.randn(1, 8, 8, 4, 4), torch.randn(1, 1, 32, 4, 4)
    fused, passed = fusion([slow, fast])
    weight = fusion.conv_fast_to_slow.weight
    expected = torch.nn.functional.conv3d(fast, weight, stride=(4, 1, 1), padding=(3, 0, 0))
    torch.testing.assert_close(fused, torch.cat([slow, expected], 1))
    assert passed is fast
    assert (expected < 0).any()


def test_stem_strides_reduce_the_frames() -> None:
    model = create_model("i3d_r50", stem_channels=8, num_classes=3, stem_strides=(2, 2)).eval()
    seen: list[torch.Size] = []
    model.blocks[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    assert model(torch.rand(1, 3, 32, 32, 32)).shape == (1, 3)
    assert seen[0][2] == 8
    # Five frames are the fewest: the stem leaves two of them, which the pool behind res2 makes one.
    assert model(torch.rand(1, 3, 5, 32, 32)).shape == (1, 3)
    with pytest.raises(ValueError, match="T >= 5"):
        model(torch.rand(1, 3, 4, 32, 32))
