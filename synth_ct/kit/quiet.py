"""Silence around a library that would write what it reads into logs."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import pydicom


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
