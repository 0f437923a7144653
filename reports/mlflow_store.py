"""Where a study is logged: a tracking server, a database beside the results, or nowhere yet."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

URI = "MLFLOW_TRACKING_URI"
SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SHARED = (
    "nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "panfs",
    "pvfs", "orangefs", "weka", "fuse.",
)  # fmt: skip
"""How the names of file systems begin on which sqlite's locks cannot be relied on."""
OVERLAY = "fuse.fuse-overlayfs"
"""Of a container: on a disk of this machine all the same."""
MOUNTS = Path("/proc/self/mounts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where, and why there."""

    uri: str | None
    """None: nowhere; the rows are kept with the report."""
    artifacts: str | None = None
    """None: the server decides."""
    folder: Path | None = None
    """Of a store on this machine: of its lock, too."""
    why: str

    @property
    def shown(self) -> str:
        """The address without the password that may stand in it."""
        return re.sub(r"//[^/@]*@", "//", self.uri or "nowhere")


def store_for(root: Path, environ: Mapping[str, str], mounts: Path = MOUNTS) -> Store:
    """Decide from the environment and from what `root` lies on."""
    folder = root.resolve() / "mlflow"
    if uri := environ.get(URI, ""):
        return _named(uri, folder)
    if environ.get("RAY_ADDRESS"):
        return _kept("RAY_ADDRESS is set: on a cluster several machines may report")
    if (kind := file_system(folder, mounts)).startswith(SHARED) and kind != OVERLAY:
        return _kept(f"the root lies on {kind}, where sqlite loses rows")
    return Store(
        uri=f"sqlite:///{folder / 'mlflow.db'}",
        artifacts=(folder / "artifacts").as_uri(),
        folder=folder,
        why=f"{URI} is not set: a database beside the results",
    )


def _kept(cause: str) -> Store:
    return Store(uri=None, why=f"{cause}, and {URI} names no server to log to")


def _named(uri: str, folder: Path) -> Store:
    """The store that a person named."""
    scheme = urlsplit(uri).scheme.partition("+")[0]
    why = f"{URI} names it"
    if scheme in SERVERS:
        return Store(uri=uri.rstrip("/"), why=why)
    if scheme in DATABASES:
        artifacts = (folder / "artifacts").as_uri()
        return Store(uri=uri, artifacts=artifacts, folder=folder, why=why)
    raise ValueError(
        f"{URI} is {uri!r}: MLflow does not write to plain folders any more, and other kinds of "
        f"store are not tested; give http://..., https://... or one of {', '.join(DATABASES)}, or "
        "unset it for a database beside the results"
    )


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """The kind of file system a path lies on; empty where the system keeps no list of them."""
    if not mounts.exists():
        return ""
    entries = [line.split() for line in mounts.read_text().splitlines()]
    places = {_plain(entry[1]): entry[2] for entry in entries}
    holding = [place for place in places if path.is_relative_to(place)]
    return places[max(holding, key=len)] if holding else ""


def _plain(mount_point: str) -> str:
    """Spaces and the like stand as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), mount_point)
