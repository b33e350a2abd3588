"""Reads H.264 headers: whether pictures may consist of two fields (ITU-T H.264, 7.3.2.1.1), recovery points (D.2.8)."""

from __future__ import annotations

import contextlib

_WITH_CHROMA_FORMAT = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
"""Values of profile_idc with chroma format, bit depths and scaling lists."""


def may_have_fields(header: bytes) -> bool:
    """Return whether pictures may be interlaced: frame_mbs_only_flag is 0, or the header has no readable set.

    Args:
        header: The decoder configuration of an .mp4 or .mkv file (avcC, ISO/IEC 14496-15, 5.3.3.1).
    """
    if len(header) < 8 or header[0] != 1 or not header[5] & 31:
        return True
    sets = header[8 : 8 + int.from_bytes(header[6:8], "big")]
    try:
        return not _frame_mbs_only(_Bits(sets.replace(b"\0\0\3", b"\0\0")))
    except ValueError:  # the set is cut off
        return True


def recovers_at_once(sei: bytes) -> bool:
    """Return whether an SEI unit has a recovery point with recovery_frame_cnt 0 (coded as one bit: 1)."""
    place = 0

    def number() -> int:  # coded as bytes of 255 and a last one
        nonlocal place
        start = place
        while sei[place] == 255:
            place += 1
        place += 1
        return sum(sei[start:place])

    with contextlib.suppress(IndexError):  # a unit that is cut off
        while sei[place] != 0x80:
            kind, size = number(), number()
            if kind == 6:
                return bool(sei[place] & 0x80)
            place += size
    return False


class _Bits:
    """Bits of a parameter set, first to last."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._place = 0

    def take(self, count: int) -> int:
        """Return the next bits as a number; ValueError at the end."""
        self._place += count
        return int(self._bits[self._place - count : self._place], 2)

    def golomb(self) -> int:
        """Return the next ue(v): n zeros, a one and n bits (9.1)."""
        zeros = self._bits.index("1", self._place) - self._place
        return self.take(2 * zeros + 1) - 1

    def signed_golomb(self) -> int:
        """Return the next se(v) (9.1.1)."""
        code = self.golomb()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _frame_mbs_only(bits: _Bits) -> bool:
    bits.take(8)  # the header of the NAL unit
    profile = bits.take(8)
    bits.take(16)  # constraints and level
    bits.golomb()  # seq_parameter_set_id
    if profile in _WITH_CHROMA_FORMAT:
        chroma_format = bits.golomb()
        if chroma_format == 3:
            bits.take(1)  # separate_colour_plane_flag
        bits.golomb()  # bit_depth_luma_minus8
        bits.golomb()  # bit_depth_chroma_minus8
        bits.take(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.take(1):  # seq_scaling_matrix_present_flag
            for number in range(12 if chroma_format == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if number < 6 else 64)
    bits.golomb()  # log2_max_frame_num_minus4
    order = bits.golomb()  # pic_order_cnt_type
    if order == 0:
        bits.golomb()  # log2_max_pic_order_cnt_lsb_minus4
    elif order == 1:
        bits.take(1)  # delta_pic_order_always_zero_flag
        bits.golomb()  # offset_for_non_ref_pic
        bits.golomb()  # offset_for_top_to_bottom_field
        for _ in range(bits.golomb()):
            bits.golomb()  # offset_for_ref_frame
    bits.golomb()  # max_num_ref_frames
    bits.take(1)  # gaps_in_frame_num_value_allowed_flag
    bits.golomb()  # pic_width_in_mbs_minus1
    bits.golomb()  # pic_height_in_map_units_minus1
    return bool(bits.take(1))


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    """Read scaling_list (7.3.2.1.1.1): a next scale of 0 ends the changes."""
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed_golomb()) % 256
        last = following or last
