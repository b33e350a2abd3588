"""The exponential moving average of the weights, by Lightning's callback."""

from __future__ import annotations

from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


def weight_average(decay: float) -> WeightAveraging:
    """Return the callback that keeps average = decay * average + (1 - decay) * weights after each optimiser step.

    The average starts as the weights after the first step. Batch-norm statistics are averaged as well, for where
    precise ones do not replace them. The averaged weights are what validation sees and what a checkpoint's
    `state_dict` holds; those that are trained lie beside it.

    Args:
        decay: Share of the average that a step leaves.
    """
    return WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(decay))
