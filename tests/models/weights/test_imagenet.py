"""Image weights: a video of one repeated image gives torchvision's features in every frame."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from dnl_video.errors import InputError
from dnl_video.models.build import build_model
from dnl_video.models.weights import imagenet, matching
from dnl_video.models.weights.places import block_prefixes
from dnl_video.spec import ModelSpec

from ..helpers import relative_error
from .foreign import check_bijection, loaded, shapes_of

BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}


class NarrowResNet(ResNet):
    """torchvision's network, an eighth as wide."""

    def __init__(self, depth: int = 50, classes: int = 7) -> None:
        super().__init__(Bottleneck, BLOCKS[depth], num_classes=classes)
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(256, classes)

    def _make_layer(self, block, planes, *args, **kwargs):
        if planes == 64:
            self.inplanes = 8
        return super()._make_layer(block, planes // 8, *args, **kwargs)


@torch.no_grad()
def image_network(depth: int = 50) -> NarrowResNet:
    """In evaluation mode and float64, with batch norms that differ from their initial values."""
    model = NarrowResNet(depth).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@torch.no_grad()
def features_of(model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda *args: seen.append(args[2]))
    model(x)
    handle.remove()
    return seen[0]


# Frames that a zero beyond either end of the clip reaches, counted at the last stage: one for each convolution of
# three frames. Slow: six blocks of res4 and three of res5. I3D: two by the stem's five frames and three by res2, of
# which the pool behind res2 makes three; then two in res3, three in res4, one in res5.
REACHED = {"slow_r50": 9, "c2d_r50": 0, "i3d_r50": 9, "slow_r101": 26}


@pytest.mark.parametrize(
    ("architecture", "frames"), [("slow_r50", 21), ("c2d_r50", 4), ("i3d_r50", 42), ("slow_r101", 53)]
)
def test_a_repeated_image_gives_the_image_networks_features(architecture, frames: int) -> None:
    theirs = image_network(int(architecture.rpartition("_r")[2]))
    source = imagenet.convert(theirs.state_dict(), architecture=architecture)
    ours = loaded(source, ModelSpec(architecture, "none", 5, stem_channels=8))
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    video = image.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    expected = features_of(theirs, theirs.layer4, image)
    last = ours.get_submodule(block_prefixes(architecture)["res5"])
    found = features_of(ours, last, video)
    assert found.shape[2] == (frames // 2 if architecture[:3] in ("i3d", "c2d") else frames)
    reached = REACHED[architecture]
    inner = found[:, :, reached : found.shape[2] - reached]
    assert inner.shape[2] >= 1
    for t in range(inner.shape[2]):
        assert relative_error(inner[:, :, t], expected) < 1e-12
    if reached:
        # Padding changes the frames at both ends; in R50, up to the last frame counted in REACHED.
        edge = reached if architecture.endswith("r50") else 1
        assert relative_error(found[:, :, edge - 1], expected) > 1e-9
        assert relative_error(found[:, :, -edge], expected) > 1e-9
    # With the image network's classifier, C2D gives its logits.
    if architecture == "c2d_r50":
        logits = F.linear(found.mean((2, 3, 4)), theirs.fc.weight, theirs.fc.bias)
        with torch.no_grad():
            assert relative_error(logits, theirs(image)) < 1e-12


@pytest.mark.parametrize("architecture", ["slow_r50", "c2d_r101", "i3d_r50", "i3d_r101"])
def test_full_size_names_and_shapes(architecture) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, "resnet" + architecture.rpartition("_r")[2])().state_dict()
        ours = build_model(ModelSpec(architecture, "none"))
    assert imagenet.matches(shapes_of(theirs))
    source = imagenet.convert(theirs, architecture=architecture)
    check_bijection(source, set(theirs), ours, classifier=False)
    assert source.left == dict.fromkeys(("fc.weight", "fc.bias"), "classifier of ImageNet's classes")
    expected = shapes_of(ours.state_dict())
    for name, tensor in source.state_dict.items():
        shape = expected[name]
        assert tuple(tensor.shape) == (shape[:2] + shape[3:] if len(shape) == 5 else shape)
    assert (source.spec, source.class_names) == (None, None)
    clips = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "channel_order": "rgb"}
    assert source.preprocessing == clips


def test_mean_and_std_are_torchvisions() -> None:
    preset = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    assert (tuple(preset.mean), tuple(preset.std)) == (imagenet.MEAN, imagenet.STD)


def test_old_files_without_counters_load() -> None:
    # resnet50-19c8e357.pth is older than num_batches_tracked.
    theirs = {n: t for n, t in image_network().state_dict().items() if not n.endswith("num_batches_tracked")}
    loaded(imagenet.convert(theirs, architecture="slow_r50"), ModelSpec("slow_r50", "none", 5, stem_channels=8))


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_inflation_divides_by_the_frames(frames: int) -> None:
    kernel = torch.randn(4, 3, 7, 7, dtype=torch.float64)
    inflated = matching.inflate(kernel, frames)
    assert inflated.shape == (4, 3, frames, 7, 7)
    torch.testing.assert_close(inflated.sum(2), kernel)
    assert all(torch.equal(inflated[:, :, t], inflated[:, :, 0]) for t in range(frames))


def with_tensor(name: str, *shape: int, without: str = ""):
    tensors = {n: t for n, t in image_network().state_dict().items() if n != without}
    return tensors | {name: torch.zeros(shape)}


def named(name: str):
    with torch.device("meta"):
        return getattr(torchvision.models, name)().state_dict()


PLAIN = "only plain Slow, C2D, I3D and SlowFast R50 and R101 can be loaded"
STEM = "the stem is not one 7 x 7 convolution (a deep stem, or ResNetV2); use plain resnet50 or resnet101 weights"
KERNELS = f"block 0 of res2 has kernels {{}} and {{}}, which is no plain bottleneck of width 64; {PLAIN}"
# timm's resnetv2_50.
RESNET_V2 = {
    "stem.conv.weight": torch.zeros(64, 3, 7, 7),
    "stages.0.blocks.0.conv1.weight": torch.zeros(64, 64, 1, 1),
}


@pytest.mark.parametrize(
    ("make", "architecture", "message"),
    [
        (
            image_network().state_dict,
            None,
            "image weights fit slow, c2d and i3d networks; name the architecture they are to fill",
        ),
        (
            image_network().state_dict,
            "slowfast_r50",
            "image weights cannot fill slowfast_r50, whose layers have other shapes; use slow, c2d or i3d",
        ),
        (image_network().state_dict, "slow_r101", "these are ResNet-50's weights; they do not fill slow_r101"),
        # timm's resnet50d: three convolutions in the stem, by these names.
        (partial(with_tensor, "conv1.0.weight", 32, 3, 3, 3, without="conv1.weight"), "slow_r50", STEM),
        (RESNET_V2.copy, "slow_r50", STEM),
        (
            partial(with_tensor, "layer1.0.se.fc1.weight", 2, 32, 1, 1),
            "slow_r50",
            "layer1.0.se.fc1.weight has no place in a plain ResNet; use plain resnet50 or resnet101 weights",
        ),
        (partial(named, "wide_resnet50_2"), "slow_r50", KERNELS.format("128x64x1x1", "128x128x3x3")),
        (partial(named, "resnext50_32x4d"), "slow_r50", KERNELS.format("128x64x1x1", "128x4x3x3")),
        (partial(named, "resnet34"), "slow_r50", KERNELS.format("64x64x3x3", "64x64x3x3")),
        (partial(named, "resnet152"), "slow_r50", f"[3, 8, 36, 3] residual blocks in res2 to res5; {PLAIN}"),
    ],
)
def test_other_image_networks_are_refused(make, architecture, message: str) -> None:
    tensors = make()
    assert imagenet.matches(shapes_of(tensors))
    with pytest.raises(InputError) as error:
        imagenet.convert(tensors, architecture=architecture)
    assert str(error.value) == f"ImageNet ResNet: {message}"
