from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dnl_video
from dnl_video.errors import InputError
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.create import create_model
from dnl_video.models.weights.load import load_weights
from dnl_video.models.weights.places import TranslatedWeights
from dnl_video.spec import ContextOptions
from tests.models.helpers import perturb

WIDTH = 8


def net(context: Any = "none", architecture: Any = "slow_r50", **options: Any) -> VideoClassifier:
    """A small network in evaluation mode; all its numbers differ from their initial values."""
    options.setdefault("num_classes", 5)
    torch.manual_seed(0)
    model = create_model(architecture, context=context, stem_channels=WIDTH, **options)
    seed = sum(map(ord, f"{architecture}{context}"))
    perturb(model, seed)
    return model.eval()


def given(model: VideoClassifier, change: Callable[[dict[str, Tensor]], Any] | None = None) -> TranslatedWeights:
    """The network's weights as translated from another origin."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    if change is not None:
        change(state)
    names = {key: f"their.{key}" for key in state}
    return TranslatedWeights("elsewhere", state, names, spec=model.spec)


def clip(frames: int = 4, size: int = 32) -> Tensor:
    return torch.rand(2, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if name.rpartition(".")[0].endswith("context_blocks")}


@torch.no_grad()
def test_the_same_network_gives_the_same_logits() -> None:
    for context in ("none", "nl", "dnl", "snl", "gc"):
        source, target = net(context), create_model("slow_r50", context=context, stem_channels=WIDTH, num_classes=5)
        report = load_weights(target, given(source))
        assert torch.equal(target.eval()(clip()), source(clip()))
        assert set(report.matched) == set(source.state_dict())
        assert not report.new
        assert not report.left
        assert report.loaded_parameters == sum(p.numel() for p in source.parameters())


@torch.no_grad()
def test_new_blocks_leave_a_bare_networks_logits_as_they_are() -> None:
    source = net("none")
    target = create_model("slow_r50", context="dnl", stem_channels=WIDTH, num_classes=5)
    report = load_weights(target, given(source))
    assert torch.equal(target.eval()(clip()), source(clip()))
    assert set(report.new.values()) == {"context blocks"}
    assert set(report.matched) == set(source.state_dict())
    assert report.new_parameters == sum(p.numel() for m in blocks(target).values() for p in m.parameters())


@torch.no_grad()
def test_a_non_local_network_starts_a_disentangled_one() -> None:
    source = net("nl")
    target = net("dnl", context_options=ContextOptions(temperature=1.0))
    before = {name: block.unary.weight.clone() for name, block in blocks(target).items()}
    report = load_weights(target, given(source))
    for name, block in blocks(target).items():
        old = source.get_submodule(name)
        for part in ("query", "key", "value", "out"):
            assert torch.equal(block.get_submodule(part).weight, old.get_submodule(part).weight)
        for key, value in old.norm.state_dict().items():
            assert torch.equal(block.norm.state_dict()[key], value)
        assert torch.equal(block.value.bias, old.value.bias)
        assert torch.equal(block.out.bias, old.out.bias)
        assert torch.equal(block.unary.weight, before[name])
        # Its pairwise map is the softmax of the whitened products of the non-local block's queries and keys.
        x = torch.rand(1, old.channels, 2, 4, 4, generator=torch.Generator().manual_seed(2))
        query, key = old.query_key(x)
        query, key = query - query.mean(1, keepdim=True), key - key.mean(1, keepdim=True)
        expected = (query @ key.transpose(1, 2) * old.scale).softmax(-1)
        torch.testing.assert_close(block.attention_maps(x).pairwise, expected, rtol=1e-4, atol=1e-6)
    assert set(report.new.values()) == {"unary term of context blocks"}
    assert set(report.left.values()) == {"biases of query and key: whitening cancels them"}
    assert len(report.left) == 10
    assert all(name.startswith("their.") for name in report.left)
    assert not report.notes


SHARPNESS = "their products are sharper or flatter here"


@pytest.mark.parametrize(
    ("there", "here", "there_options", "here_options", "note"),
    [
        (
            "nl",
            "dnl",
            {},
            {},
            "non-local blocks of temperature 1, the softmax here has 0.05; {}1 keeps their sharpness",
        ),
        (
            *("nl", "dnl", {"attention": "dot_product"}, {}),
            f"non-local blocks, and dot_product there is without a softmax; {SHARPNESS}",
        ),
        (
            *("nl", "dnl", {"scaled": False}, {}),
            f"non-local blocks, and embedded_gaussian there is not scaled; {SHARPNESS}",
        ),
        *(
            (context, "nl", {}, options, note)
            for context in ("dnl", "pairwise")
            for options, note in (
                ({}, "whitened blocks of temperature 0.05, the softmax here has 1; {}0.05 keeps their sharpness"),
                (
                    {"attention": "dot_product"},
                    f"whitened blocks, and dot_product here is without a softmax; {SHARPNESS}",
                ),
                ({"temperature": 0.05}, None),
            )
        ),
    ],
)
def test_note_about_another_softmax(there: Any, here: Any, there_options: Any, here_options: Any, note: Any) -> None:
    source = net(there, context_options=ContextOptions(**there_options))
    report = load_weights(net(here, context_options=ContextOptions(**here_options)), given(source))
    expected = note and "queries and keys come from " + note.format("context_options.temperature: ")
    assert report.notes == ((expected,) if expected else ())


@torch.no_grad()
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_in_memory(wrapped: bool) -> None:
    source, target = net("dnl"), net("dnl")
    state: dict[str, Any] = {f"module.{k}": v for k, v in source.state_dict().items()}
    report = load_weights(target, {"model_state": state, "epoch": 3} if wrapped else state)
    assert (report.source, report.origin) == (None, "pytorchvideo hub")
    assert torch.equal(target(clip()), source(clip()))
    with pytest.raises(InputError, match=r"^the state dict: 0 tensors of an unknown layout, such as none; known: "):
        load_weights(target, {"epoch": 3})


@torch.no_grad()
@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ("pairwise", "unary term, which is not of this block"),
        ("unary", "pairwise term, which is not of this block"),
    ],
)
def test_a_disentangled_network_starts_one_of_its_terms(context: str, reason: str) -> None:
    source, target = net("dnl"), net(context)
    report = load_weights(target, given(source))
    assert not report.new
    assert set(report.left.values()) == {reason}
    for name, block in blocks(target).items():
        x = torch.rand(1, block.channels, 2, 4, 4, generator=torch.Generator().manual_seed(2))
        assert torch.equal(
            getattr(block.attention_maps(x), context), getattr(source.get_submodule(name).attention_maps(x), context)
        )


def test_one_term_starts_both() -> None:
    report = load_weights(net("dnl"), given(net("unary")))
    assert set(report.new.values()) == {"pairwise term of context blocks"}
    report = load_weights(net("dnl"), given(net("pairwise")))
    assert set(report.new.values()) == {"unary term of context blocks"}


@torch.no_grad()
def test_another_number_of_classes_keeps_all_but_the_classifier() -> None:
    source, target = net("dnl", num_classes=5), net("dnl", num_classes=3)
    classifier = target.blocks[-1].proj.weight.clone()
    report = load_weights(target, given(source))
    assert report.new == {
        "blocks.5.proj.weight": "classifier (5 classes there, 3 here)",
        "blocks.5.proj.bias": "classifier (5 classes there, 3 here)",
    }
    assert set(report.left) == {"their.blocks.5.proj.weight", "their.blocks.5.proj.bias"}
    assert torch.equal(target.blocks[-1].proj.weight, classifier)
    assert "new: classifier (5 classes there, 3 here)" in report.text()

    def features(model: VideoClassifier) -> Tensor:
        x = clip()
        for block in model.blocks[:-1]:
            x = block(x)
        return x

    assert torch.equal(features(target), features(source))


def without(*starts: str) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        for key in [k for k in state if k.startswith(starts)]:
            del state[key]

    return change


def refused(target: VideoClassifier, source: TranslatedWeights, **options: Any) -> str:
    """Check that loading fails and changes nothing; return the message."""
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_weights(target, source, **options)
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())
    return str(error.value)


LAST_BN = "blocks.4.res_blocks.2.branch2.norm_c."


def test_a_partial_source_is_refused_and_changes_nothing() -> None:
    source = given(net(), without(LAST_BN + "running"))
    assert refused(net("dnl"), source) == (
        "the weights of elsewhere: 2 of 380 tensors of slow_r50 with context dnl, stem_channels 8 are not in it, first "
        f"{LAST_BN}running_mean (it is slow_r50 with context none, elsewhere); build the network that it belongs to, "
        "or name them in allow_missing"
    )


@pytest.mark.parametrize("name", [LAST_BN + "running_mean", "blocks.4.res_blocks.2", "blocks.4.*.running_mean"])
def test_allow_missing_names_tensors_modules_and_patterns(name: str) -> None:
    target, key = net(), LAST_BN + "running_mean"
    before = target.state_dict()[key].clone()
    report = load_weights(target, given(net("none", zero_init_residual=False), without(key)), allow_missing=[name])
    assert report.new == {key: "may be missing (allow_missing)"}
    assert torch.equal(target.state_dict()[key], before)


def test_allow_missing_must_name_something() -> None:
    message = refused(net(), given(net()), allow_missing=["blocks.4.res_blocks.2.branch2.norm_c.running_men"])
    assert message == (
        "allow_missing: the network has no 'blocks.4.res_blocks.2.branch2.norm_c.running_men'; "
        "did you mean 'blocks.4.res_blocks.2.branch2.norm_c.running_mean'?"
    )


def test_allow_missing_of_a_module_does_not_cover_longer_names() -> None:
    source = given(net("none", "slow_r101"), without("blocks.3.res_blocks.10.branch2.conv_a"))
    message = refused(net("none", "slow_r101"), source, allow_missing=["blocks.3.res_blocks.1"])
    assert "are not in it, first blocks.3.res_blocks.10.branch2.conv_a.weight" in message


def test_another_shape_is_refused() -> None:
    message = refused(net("none"), given(net("none", "i3d_r50")))
    assert "tensors of slow_r50 with context none, stem_channels 8 have another shape, first" in message
    assert "blocks.0.conv.weight is [8, 3, 5, 7, 7] there and [8, 3, 1, 7, 7] here" in message
    assert "(it is i3d_r50 with context none, elsewhere)" in message


def test_a_deeper_source_is_refused() -> None:
    # A ResNet-50's tensors all have namesakes of the same shape in a ResNet-101.
    message = refused(net("none"), given(net("none", "slow_r101")))
    assert "tensors have no place in slow_r50 with context none, stem_channels 8, first their.blocks.3.res_b" in message


def test_trained_blocks_are_dropped_only_with_drop_blocks() -> None:
    message = refused(net("none"), given(net("nl")))
    assert message == (
        "the weights of elsewhere: its context blocks (5, first blocks.2.context_blocks.1) do not fit slow_r50 with "
        "context none, stem_channels 8, and without them the weights compute something else; build a matching network, "
        "or set drop_blocks"
    )
    report = load_weights(net("none"), given(net("nl")), drop_blocks=True)
    assert set(report.left.values()) == {"context blocks without a place here (drop_blocks)"}
    assert not report.new


@pytest.mark.parametrize(("there", "here"), [("nl", "snl"), ("snl", "gc"), ("gc", "dnl")])
def test_blocks_of_another_kind_are_not_mixed(there: str, here: str) -> None:
    assert "context blocks (5, first" in refused(net(here), given(net(there)))
    target = net(here)
    before = {name: block.state_dict() for name, block in blocks(target).items()}
    report = load_weights(target, given(net(there)), drop_blocks=True)
    assert set(report.new.values()) == {"context blocks"}
    assert all(
        torch.equal(block.state_dict()[key], value)
        for name, block in blocks(target).items()
        for key, value in before[name].items()
    )


def test_blocks_at_other_positions_are_refused() -> None:
    moved = net("nl", context_options=ContextOptions(positions={"res4": [0, 2]}))
    assert "context blocks (2, first blocks.3.context_blocks.0)" in refused(net("nl"), given(moved))


def test_block_without_values_is_refused() -> None:
    source = given(net("nl"), without("blocks.2.context_blocks.1.value"))
    assert "2 of 385 tensors" in refused(net("nl"), source)
    assert "first blocks.2.context_blocks.1.value.weight" in refused(net("dnl"), source)


def test_a_block_of_another_width_is_refused() -> None:
    wide = net("nl", context_options=ContextOptions(inner_ratio=1.0))
    assert "blocks.2.context_blocks.1.value.weight is [64, 64] there and [32, 64] here" in refused(
        net("nl"), given(wide)
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", ["blocks.0.conv.weight", LAST_BN + "running_var"])
def test_infinite_weights_are_refused(name: str, value: str) -> None:
    def damage(state: dict[str, Tensor]) -> None:
        state[name].view(-1)[-1] = float(value)

    message = refused(net(), given(net(), damage))
    assert message == f"the weights of elsewhere: their.{name} has NaN or infinite values"


@torch.no_grad()
def test_kernels_of_convolutions_become_matrices() -> None:
    source = net("nl")

    def as_convolutions(state: dict[str, Tensor]) -> None:
        for key in state:
            if key.endswith(("query.weight", "key.weight", "value.weight", "out.weight")):
                state[key] = state[key][:, :, None, None, None]

    target = create_model("slow_r50", context="nl", stem_channels=WIDTH, num_classes=5)
    report = load_weights(target, given(source, as_convolutions))
    assert len(report.reshaped) == 20
    assert report.reshaped["blocks.2.context_blocks.1.query.weight"] == "[32, 64, 1, 1, 1] -> [32, 64]"
    assert torch.equal(target.eval()(clip()), source(clip()))


def test_kernels_that_span_frames_are_no_matrices() -> None:
    def span(state: dict[str, Tensor]) -> None:
        key = "blocks.2.context_blocks.1.query.weight"
        state[key] = state[key][:, :, None, None, None].repeat(1, 1, 3, 1, 1)

    message = refused(net("nl"), given(net("nl"), span))
    assert "first blocks.2.context_blocks.1.query.weight is [32, 64, 3, 1, 1] there and [32, 64] here" in message


@torch.no_grad()
def test_image_kernels_are_repeated_over_time_and_divided() -> None:
    flat = net("none", "c2d_r50")

    def to_image(state: dict[str, Tensor]) -> None:
        for key, value in list(state.items()):
            if value.dim() == 5:
                state[key] = value[:, :, 0]
        without("blocks.6.")(state)

    source = dataclasses.replace(given(flat, to_image), spec=None)
    target = create_model("i3d_r50", stem_channels=WIDTH, num_classes=5)
    report = load_weights(target, source)
    kernel, stem = flat.blocks[0].conv.weight, target.blocks[0].conv.weight
    assert stem.shape == (8, 3, 5, 7, 7)
    torch.testing.assert_close(stem.sum(2), kernel[:, :, 0])
    assert torch.equal(stem[:, :, 0], stem[:, :, 4])
    assert len(report.inflated) == sum(isinstance(m, nn.Conv3d) for m in target.modules())
    assert set(report.new.values()) == {"classifier (the source has none)"}


def test_batch_counters_may_be_missing() -> None:
    counters = [key for key in net("nl").state_dict() if key.endswith("num_batches_tracked")]
    assert not load_weights(net("nl"), given(net("nl"), without(*counters))).new


def test_notes_name_options_that_change_the_result() -> None:
    there = net("nl", head="global", context_options=ContextOptions(scaled=False, pool_order="after"))
    report = load_weights(net("nl"), given(there))
    assert report.notes == (
        "head is dense_logits here and global in the source",
        "context_options.scaled is True here and False in the source",
        "context_options.pool_order is before here and after in the source",
    )


def test_text_of_the_report() -> None:
    report = load_weights(net("dnl", num_classes=3), given(net("nl")))
    loaded, new = report.loaded_parameters, report.new_parameters
    assert report.text().splitlines() == [
        "weights: given (elsewhere)",
        f"   373 tensors loaded, {loaded / 1e6:.2f}M parameters",
        "     5 tensors new: unary term of context blocks",
        "     2 tensors new: classifier (5 classes there, 3 here)",
        "     2 tensors left: classifier of other classes",
        "    10 tensors left: biases of query and key: whitening cancels them",
        f"  {new:,} parameters are new",
        f"  note: {report.notes[0]}",
    ]
    target = create_model("slow_r50", context="dnl", stem_channels=WIDTH, num_classes=3)
    assert loaded + new == sum(p.numel() for p in target.parameters())


def test_unknown_name_and_path_are_refused(tmp_path: Any) -> None:
    with pytest.raises(InputError, match=r"nowhere\.pth: no such file of weights"):
        dnl_video.load_weights(net(), "nowhere.pth")
    with pytest.raises(InputError, match="runs/nowhere: no such file of weights"):
        dnl_video.load_weights(net(), "runs/nowhere")
