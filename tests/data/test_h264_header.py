"""Field coding in H.264 headers: files of x264 with every kind of parameter set."""

import random

import av
import pytest

from dnl_video.data.h264_header import may_have_fields
from tests.data.odd_videos import encode


@pytest.mark.parametrize("fields", [0, 1])
@pytest.mark.parametrize(
    ("params", "pix_fmt"),
    [
        ("", "yuv420p"),
        ("bframes=0", "yuv420p"),  # pic_order_cnt_type 2
        ("cqm=jvt", "yuv420p"),  # scaling lists
        ("cqm=jvt", "yuv444p"),  # 12 scaling lists
        ("qp=0", "yuv420p"),  # High 4:4:4 Predictive
        ("bframes=0:no-8x8dct=1:cabac=0:weightp=0", "yuv420p"),  # Main or Baseline: no chroma format
        ("ref=16:keyint=300", "yuv422p10le"),
    ],
)
def test_headers_of_x264(tmp_path, params, pix_fmt, fields):
    options = {"preset": "ultrafast", "x264-params": f"{params}:interlaced={fields}".lstrip(":")}
    path = encode(tmp_path / "a.mp4", "libx264", options, 2, pix_fmt=pix_fmt)
    with av.open(str(path)) as container:
        header = bytes(container.streams.video[0].codec_context.extradata)
    assert may_have_fields(header) is bool(fields)


def test_an_unreadable_header_counts_as_interlaced():
    generator = random.Random(0)
    headers = [b"", b"\0\0\0\1\x67", b"\1abcd\xe0\0\0\0\0", b"\1abcd\xe1\0\x04gd\0\x1f"]
    assert all(may_have_fields(header) for header in headers)
    for _ in range(200):
        assert may_have_fields(b"\1abcd\xe1\0\x20" + generator.randbytes(32)) in (False, True)
