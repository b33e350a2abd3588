"""Activation checkpointing gives exactly the results of the plain network and stores less."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorchvideo.models.csn import create_csn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dnl_video.errors import InputError
from dnl_video.models.backbones import ResStage
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.build import insert_context_blocks
from dnl_video.models.create import create_model
from dnl_video.models.runtime.activation_checkpointing import CheckpointedStage, checkpoint_stages


def network(architecture: Any = "slow_r50", **options: object) -> Any:
    torch.manual_seed(0)
    sizes = {"num_classes": 3, "stem_channels": 8}
    return create_model(architecture, context="dnl", zero_init=False, zero_init_residual=False, **sizes, **options)


def csn() -> nn.Module:
    torch.manual_seed(0)
    model = create_csn(model_depth=50, model_num_class=3, stem_dim_out=16, head_pool_kernel_size=(1, 2, 2))
    insert_context_blocks(model, NonLocalBlock3d, {"res4": [1, 3]})
    return model


def checkpointed(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    checkpoint_stages(twin)
    return twin


def trained(model: nn.Module, x: Tensor, precision: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Loss, gradients, statistics and random state after a forward and a backward pass."""
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = model(x).float().square().mean()
    loss.backward()
    gradients = {f"grad {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return {"loss": loss.detach(), "random": torch.get_rng_state(), **gradients, **statistics}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def pass_of(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Tensors stored between the passes, without parameters."""
    kept: list[Tensor] = []
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own and tensor.numel():
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x)
    return kept


CLIP = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
NETWORKS = {
    "slow": network,
    "slowfast": lambda: network("slowfast_r50"),
    "blocks that recompute as well": lambda: network(checkpoint=True),
    "csn": csn,
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_loss_gradients_statistics_and_random_state_are_equal(make: object) -> None:
    model = make()
    twin = checkpointed(model)
    assert list(twin.state_dict()) == list(model.state_dict())
    assert not [m for m in twin.modules() if isinstance(m, ResStage) and not isinstance(m, CheckpointedStage)]
    x = CLIP.repeat(1, 1, 1, 4, 4)[..., :64, :64] if make is csn else CLIP
    expected = trained(model, x)
    assert_equal(trained(twin, x), expected)
    # Every batch norm counted the batch once, and a second call changes nothing more.
    assert {int(v) for name, v in expected.items() if name.endswith("num_batches_tracked")} == {1}
    checkpoint_stages(twin)
    assert_equal(trained(twin, x), trained(model, x))


def test_bf16_channels_last_and_frozen_parts() -> None:
    model = network()
    model.to(memory_format=torch.channels_last_3d)
    for part in (model.blocks[0], model.blocks[1]):
        part.requires_grad_(False).eval()
    for norm in (m for m in model.blocks[3].modules() if isinstance(m, nn.BatchNorm3d)):
        norm.eval()
    twin = checkpointed(model)
    assert_equal(trained(twin, CLIP, torch.bfloat16), trained(model, CLIP, torch.bfloat16))
    assert twin.blocks[2].res_blocks[0].branch2.conv_b.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not twin.blocks[1].training


def test_dropout_is_the_same_in_the_recomputation() -> None:
    model = network()
    for block in model.blocks[2].res_blocks:
        block.activation = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))
    assert_equal(trained(checkpointed(model), CLIP), trained(model, CLIP))


def test_only_the_input_of_each_block_is_stored() -> None:
    stage = network().blocks[2]
    twin = checkpointed(nn.Sequential(stage))
    x = torch.randn(2, 32, 8, 16, 16, requires_grad=True)
    inputs: list[Tensor] = []
    for block in twin[0].in_order():
        block.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    kept = pass_of(twin, x)
    assert len(inputs) == 4 + 2
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in inputs}
    assert sum(t.nbytes for t in pass_of(stage, x)) > 4 * sum(t.nbytes for t in kept)


def test_no_grad_passes_are_equal() -> None:
    model = network()
    twin = checkpointed(model)
    with torch.no_grad():
        assert torch.equal(twin.eval()(CLIP), model.eval()(CLIP))
        x = torch.ones(2, 8, 4, 8, 8)  # precise batch norm runs in training mode
        assert torch.equal(twin.train().blocks[1](x), model.train().blocks[1](x))
    assert_equal(dict(twin.named_buffers()), dict(model.named_buffers()))


def test_compiled_without_a_graph_break() -> None:
    torch._dynamo.reset()
    stage = network().blocks[2]
    stage.res_blocks = stage.res_blocks[:2]
    plain = nn.Sequential(stage)
    twin = checkpointed(plain)
    # aot_eager traces forward and backward as inductor does, and leaves out its C++.
    twin.compile(fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 32, 4, 8, 8, requires_grad=True)
    stored = sum(t.nbytes for t in pass_of(plain, x)), sum(t.nbytes for t in pass_of(twin, x))
    assert stored[1] < stored[0] / 2
    found, expected = trained(twin, x), trained(plain, x)
    for name in ("loss", *(n for n in expected if n not in ("loss", "random"))):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_under_ddp(tmp_path: Path) -> None:
    model = network()
    twin = checkpointed(model)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(twin)
        for _ in range(2):
            model.zero_grad()
            parallel.zero_grad()
            expected = trained(model, CLIP)
            assert_equal({n.replace("module.", "", 1): v for n, v in trained(parallel, CLIP).items()}, expected)
    finally:
        torch.distributed.destroy_process_group()


def test_a_network_without_stages() -> None:
    with pytest.raises(InputError, match="Linear has no ResStage; give a pytorchvideo network made of them"):
        checkpoint_stages(nn.Linear(2, 2))
    bare = nn.Sequential(DisentangledNonLocalBlock3d(8))
    with pytest.raises(InputError, match="Sequential has no ResStage"):
        checkpoint_stages(bare)
