"""What may be opened below a source folder, and what a person must unpack or correct first."""

import os
from pathlib import Path

from synth_ct.kit.quarantine import Refused, SetAside, printable
from synth_ct.sources.dicom_series import files_below

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
ESCAPE = "E_PATH_ESCAPE"


def source_folder(source: Path) -> Path:
    """Return the folder itself; an archive or a lone file is answered with what to do.

    Archives are not unpacked here: they can hold names that lead out of the folder, links, or far
    more than they weigh. The system's own tools guard against that and let a person look first.
    """
    if source.is_dir():
        return source
    if not source.exists():
        raise ValueError(f"{source} does not exist; give the folder that holds the images")
    if source.name.lower().endswith(ARCHIVES):
        raise ValueError(f"{source} is an archive; unpack it and give the folder it makes")
    raise ValueError(f"{source} is a file; give the folder that holds it")


def inside(root: Path, path: Path) -> Path:
    """Return `path` if it, links resolved, lies below `root`; else refuse it."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise Refused(
            ESCAPE,
            f"{printable(path)} leads out of its folder, to files nobody meant to import",
            "copy the file into the folder and name it from there",
        )
    return path


def visible_files(root: Path) -> tuple[list[Path], list[SetAside]]:
    """Every file below a folder in name order, and the links that lead out of it.

    Names that begin with a dot are the system's own: macOS puts a "._" twin beside every file.
    """
    escapes: list[SetAside] = []
    files = [
        path
        for path in files_below(root, escapes)
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    return files, escapes


def name_below(root: Path, path: Path) -> str:
    """How a file is called in every report: below its source folder, printable."""
    return printable(path.relative_to(root))
