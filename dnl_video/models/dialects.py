"""Published variants of the non-local and disentangled non-local block, as options of ours.

Each function names its source file and the order of operations there; tests compare it with that order, written out
literally. All weights start from N(0, 0.01) and all biases from 0. Our default for video is
`blocks.DisentangledNonLocalBlock3d` without options.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.spec import Similarity

_official = partial(DisentangledNonLocalBlock3d, bias=True, value_bias=False, output="gamma")


def official_detection(channels: int, *, pool: Sequence[int] | None = None) -> DisentangledNonLocalBlock3d:
    """The DNL authors' block for object detection.

    Source: Howal/DNL-Object-Detection, mmdet/ops/nl_gc_block.py (`NonLocal2dGc`), as configured in
    configs/dnlnet/mask_rcnn_r50_r4_nlgcb_c4_fpn_syncabn_4conv1fc_1x_4nodes.py: ratio 1/4, no downsampling,
    whiten_type ['channel'], temp 0.05, with_gc, no output convolution, no batch norm. (Its 3-D class cannot be
    constructed: a required argument is missing.)

    Order: query and key to C/4 and mask to 1 channel, with bias; value to C channels, without; means over positions
    subtracted from query and key; similarities / sqrt(C/4) / 0.05; softmax; times value; times a scalar gamma that
    starts at 0; plus the softmax of the mask times the same value; plus x. The block does not start as the identity,
    because gamma scales the pairwise term only.

    Args:
        channels: Channels C of the input.
        pool: Max-pooling before key, value and mask; (1, 2, 2) is the source's ``downsample=True``.
    """
    return _official(channels, channels // 4, temperature=0.05, pool=pool)


def official_segmentation(
    channels: int, *, temperature: float = 0.05, pool: Sequence[int] | None = None
) -> DisentangledNonLocalBlock3d:
    """The DNL authors' block for semantic segmentation.

    Source: yinmh17/DNL-Semantic-Segmentation, model/seg/ops/nonlocal_block.py (`NonLocal2d_bn`) with
    ``inter_channels // 2`` from model/seg/nets/nonlocalbn.py, as in configs/seg/cityscapes/NLbn_fcn_cityscapes_seg.conf
    (whiten_type ["channel"], temp 0.05, with_gc, use_out False, out_bn False).

    Order: as `official_detection`, with query and key of C/2 channels.

    Args:
        channels: Channels C of the input.
        temperature: 0.05 to 0.1 in the configs.
        pool: Max-pooling before key, value and mask.
    """
    return _official(channels, channels // 2, temperature=temperature, pool=pool)


def official_nowd(channels: int, *, pool: Sequence[int] | None = None) -> DisentangledNonLocalBlock3d:
    """The DNL authors' segmentation block without scale and temperature, trained without weight decay on query and key.

    Source: yinmh17/DNL-Semantic-Segmentation, model/seg/ops/nonlocal_block_nowd.py (`NonLocal2d_nowd`) with its
    defaults whiten_type ['in_nostd'] and nowd ['nl'], and with_gc. Some of its configs choose "ln_nostd" instead, one
    mean over channels and positions; that is not the paper's whitening and not offered here.

    Order: as `official_segmentation`, without sqrt(D) and without temperature. Give query and key an optimiser group
    without weight decay.

    Args:
        channels: Channels C of the input.
        pool: Max-pooling before key, value and mask.
    """
    return _official(channels, channels // 2, scaled=False, temperature=1.0, pool=pool)


def mmseg(channels: int, *, norm: bool = True) -> DisentangledNonLocalBlock3d:
    """OpenMMLab's DNL block for semantic segmentation.

    Source: open-mmlab/mmsegmentation, mmseg/models/decode_heads/dnl_head.py (`DisentangledNonLocal2d`), over mmcv's
    mmcv/cnn/bricks/non_local.py.

    Order: query, key and value to C/2 and mask to 1 channel, all with bias; means over positions subtracted from query
    and key; similarities / sqrt(C/2) / 0.05; softmax; times value; softmax of the mask times the same value; the output
    convolution (and norm) on **each** of the two, so that its bias is added twice; plus x. The norm of the mask's term
    sees one position per sample, so training needs at least two samples per process.

    Args:
        channels: Channels C of the input.
        norm: An output convolution without bias and a batch norm that starts at zero, as in the published `DNLHead`,
            which passes on its norm_cfg. Otherwise the convolution has a bias and starts at zero.
    """
    return DisentangledNonLocalBlock3d(
        channels,
        pool=None,
        bias=True,
        output="conv_bn" if norm else "conv",
        output_bias=not norm,
        project_terms="each",
    )


def pyslowfast_nl(
    channels: int,
    inner_channels: int | None = None,
    *,
    attention: Similarity = "embedded_gaussian",
    pool: Sequence[int] | None = (1, 2, 2),
) -> NonLocalBlock3d:
    """PySlowFast's non-local block, which is that of video-nonlocal-net.

    Source: facebookresearch/SlowFast, slowfast/models/nonlocal_helper.py (`Nonlocal`), NONLOCAL.INSTANTIATION softmax
    or dot_product, POOL [1, 2, 2].

    Order: query of x; max-pooling; key and value of the pooled x; all to C/2 channels with bias; softmax of
    similarities / sqrt(C/2), or similarities / M; times value; output convolution with bias; batch norm that starts
    at zero; plus x.

    Args:
        channels: Channels C of the input.
        inner_channels: Channels of query, key and value; None is C // 2.
        attention: embedded_gaussian (its ``softmax``) or dot_product.
        pool: Max-pooling before key and value.

    Raises:
        ValueError: PySlowFast has no such similarity.
    """
    if attention not in ("embedded_gaussian", "dot_product"):
        raise ValueError(f"attention is {attention!r}; PySlowFast has embedded_gaussian, dot_product")
    return NonLocalBlock3d(channels, inner_channels, attention=attention, pool=pool)


def mmaction_nl(
    channels: int,
    *,
    attention: Similarity = "embedded_gaussian",
    scaled: bool = False,
    pool: Sequence[int] | None = (1, 2, 2),
) -> NonLocalBlock3d:
    """mmaction2's non-local block, which is mmcv's `NonLocal3d`.

    Source: open-mmlab/mmcv, mmcv/cnn/bricks/non_local.py, with the ``non_local_cfg`` of mmaction2's
    configs/recognition/i3d (sub_sample, use_scale False, norm_cfg BN3d); its SlowOnly configs have use_scale True.

    Order: query, key and value to C/2 channels with bias; max-pooling of key and value; similarities (/ sqrt(C/2) if
    scaled, embedded Gaussian only), softmax; or similarities / M; or ReLU of one vector times the concatenated query
    and key, / M; times value; output convolution without bias; batch norm that starts at zero; plus x. The Gaussian
    form compares x with max-pooled x.

    Args:
        channels: Channels C of the input.
        attention: embedded_gaussian, gaussian, dot_product or concatenation.
        scaled: The source's ``use_scale``.
        pool: Max-pooling after key and value; None is ``sub_sample=False``.
    """
    scaled = scaled and attention == "embedded_gaussian"
    return NonLocalBlock3d(
        channels, attention=attention, scaled=scaled, pool=pool, pool_order="after", output_bias=False
    )
