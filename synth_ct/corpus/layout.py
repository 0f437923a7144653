"""Where things lie in a corpus. Two digits of the id spread files: no folder grows large."""

from pathlib import Path

MANIFEST = "manifest.parquet"
ABOUT = "corpus.json"
CARD = "README.md"
SOURCES = "sources.csv"
RECEIPTS = "receipts"


def volume_file(item: str) -> str:
    """The volume of an id, below the corpus."""
    return f"volumes/{item[:2]}/{item}.nii.gz"


def preview_file(item: str) -> str:
    """Three planes of the volume, for people."""
    return f"previews/{item[:2]}/{item}.png"


def quarantine_file(item: str) -> str:
    """Why there is no volume, without a path or a name."""
    return f"quarantine/{item[:2]}/{item}.json"


def make_folders(corpus: Path) -> None:
    """All that volumes and receipts are written into, made once."""
    for kind in ("volumes", "previews", "quarantine"):
        for high in range(256):
            (corpus / kind / f"{high:02x}").mkdir(parents=True, exist_ok=True)
    (corpus / RECEIPTS).mkdir(exist_ok=True)
