from __future__ import annotations

import pytest
import torch

from dnl_video.models.build import create_model
from dnl_video.models.inspect.pooled_features import pooled_features
from dnl_video.spec import Architecture, Head


@pytest.mark.parametrize("head", ["global", "dense_logits"])
@pytest.mark.parametrize(("architecture", "channels"), [("slow_r50", 256), ("slowfast_r50", 256 + 32)])
def test_features_times_the_classifier_are_the_logits(architecture: Architecture, channels: int, head: Head) -> None:
    torch.manual_seed(0)
    model = create_model(architecture, context="dnl", num_classes=5, head=head, stem_channels=8).eval()
    # 8 x 9 positions before the head: dense_logits averages several windows.
    clips = torch.rand(2, 3, 4, 256, 288)
    with torch.no_grad():
        features = pooled_features(model, clips)
        projection = model.blocks[-1].proj
        torch.testing.assert_close(features @ projection.weight.T + projection.bias, model(clips), atol=1e-5, rtol=1e-4)
    assert features.shape == (2, channels)
    assert features.std() > 0
    assert not projection._forward_pre_hooks
