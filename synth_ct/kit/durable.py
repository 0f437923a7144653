"""Bytes that survive a crash: whole under their final name, or not there at all."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)
"""Another file system, or one without hard links, or a file with too many of them."""


def sha256_of(data: bytes) -> str:
    """The sha256 of bytes in memory, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file, read once in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename is only safe once its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> str:
    """Write a file atomically and durably; return its sha256."""
    temporary = path.with_name(f".{path.name}.tmp.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return sha256_of(data)


def write_text(path: Path, text: str) -> str:
    """Write UTF-8 text atomically and durably; return its sha256."""
    return write_bytes(path, text.encode())


def link_or_copy(file: Path, to: Path) -> None:
    """The same bytes under a second name; a copy only where the file system has no hard links."""
    to.unlink(missing_ok=True)  # from a run that was stopped
    try:
        os.link(file, to)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(file, to)
