"""What a library would say about header values is said to nobody, and only while we read."""

import warnings

import pytest
from pydicom.charset import convert_encodings

from synth_ct.kit.quiet import quiet_pydicom

PERSONAL = "DOE_JANE"


def test_pydicom_is_silent_inside_and_itself_again_outside(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with quiet_pydicom():
            convert_encodings(PERSONAL)
        assert not caplog.records
        assert not recwarn.list
        convert_encodings(PERSONAL)
    assert PERSONAL in caplog.text
