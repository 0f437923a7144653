"""The structure of picture files, before any decoder sees them."""

import pytest

from synth_ct.kit.quarantine import Refused
from synth_ct.xray.containers import check_jpeg


def test_a_jpeg_cut_anywhere_in_a_frame_header_is_called_truncated() -> None:
    frame = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x11\x00"
    for length in range(2, len(frame)):
        with pytest.raises(Refused) as refused:
            check_jpeg(frame[:length])
        assert refused.value.code == "E_IMG_TRUNCATED"
