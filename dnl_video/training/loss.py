"""The training loss: cross entropy with soft labels, label smoothing and class weights together."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None, label_smoothing: float) -> Tensor:
    """Return the mean over clips of ``sum_c q_c w_c CE(logits, smoothed label c)``.

    torch's own weights differ in two ways. They divide by the weights of the batch, so that the weight of a clip
    depends on its neighbours; here their mean over the training videos is 1. They also weight the uniform part of label
    smoothing by class, which raises the scores of rare classes in every clip.

    Args:
        logits: [B, K].
        target: Class ids [B], or soft labels q [B, K].
        weights: Class weights w [K]; None: all 1.
        label_smoothing: Share of the label that is spread over all classes.
    """
    if weights is None:
        return F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    weighted = weights * (target if target.ndim == 2 else F.one_hot(target, len(weights)))
    spread = weighted.sum(dim=1, keepdim=True) / len(weights)
    return F.cross_entropy(logits, weighted + label_smoothing * (spread - weighted))
