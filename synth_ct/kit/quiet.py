"""Around pydicom: what it would write into logs, and what it raises on malformed files."""

import logging
import struct
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager

import pydicom

BROKEN_DICOM = (
    pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, ValueError, TypeError,
    LookupError, AttributeError, EOFError, RuntimeError, OverflowError, struct.error, zlib.error,
)  # fmt: skip
"""What pydicom and its decoders raise on malformed bytes, depending on where they are.

A value is parsed when it is first asked for: any access to a header may raise these."""


@contextmanager
def quiet_pydicom() -> Generator[None, None, None]:
    """No warnings of pydicom, shown or logged: they quote header values, which name people."""
    log = logging.getLogger("pydicom")
    was_disabled, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = was_disabled
