"""`dataset.json`: the lists of the Medical Segmentation Decathlon and the tables of nnU-Net v2."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth_ct.cohort.case import Findings, Found
from synth_ct.kit.quarantine import Refused, SetAside, printable
from synth_ct.sources.pairs import MISSING, matched, missing
from synth_ct.sources.paths import inside, name_below, visible_files
from synth_ct.sources.volume_files import stem_of, suffix_of

TABLE = "dataset.json"
CHANNELS = "E_PAIR_CHANNELS"
BACKGROUND = 0
LARGEST_TABLE = 64 << 20
LONGEST_NAME = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What `dataset.json` says."""

    path: Path
    content: Mapping[str, Any]
    classes: Mapping[int, str]
    channels: int
    is_nnunet: bool


def dataset_root(source: Path) -> Path:
    """The folder with `dataset.json`: the source, or the only folder in it that has one."""
    below = [p.parent for p in source.glob(f"*/{TABLE}") if not p.parent.is_symlink()]
    if not (source / TABLE).is_file() and len(below) == 1:
        return below[0]
    return source


def read_table(path: Path) -> Table:
    """Read and check `dataset.json`; what is wrong with it concerns the whole data set."""
    if not path.is_file():
        raise ValueError(f"{path} is not there; this layout needs it (images, labels, their names)")
    if path.stat().st_size > LARGEST_TABLE:
        raise ValueError(f"{path} is larger than any table of cases; is it the right file?")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); correct it by hand") from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise ValueError(f'{path} has no table "labels" (id and name of each structure); add it')
    channels = content.get("channel_names", content.get("modality", {}))
    return Table(
        path=path,
        content=content,
        classes=classes_of(content["labels"], path),
        channels=len(channels) if isinstance(channels, dict) else 1,
        is_nnunet="channel_names" in content or "file_ending" in content,
    )


def classes_of(labels: Mapping[str, Any], path: Path) -> dict[int, str]:
    """Id -> name, from {id: name} (Decathlon) or {name: id} (nnU-Net); background left out."""
    by_id = all(key.strip().isdecimal() for key in labels)
    classes: dict[int, str] = {}
    for key, value in labels.items():
        number, name = (key, value) if by_id else (value, key)
        try:
            number = int(str(number))
        except ValueError as error:
            raise ValueError(
                f"{path}: label {name!r} stands for {number!r}, which is no single id; "
                "regions of several ids must be written as plain classes"
            ) from error
        if not 0 <= number <= 255 or number in classes or not isinstance(name, str):
            raise ValueError(f"{path}: label {name!r} = {number} is twice there or not in 0..255")
        classes[number] = name
    if any(name.lower() == "ignore" for name in classes.values()):
        raise ValueError(f'{path} has an "ignore" label; only complete annotations are read')
    return {number: name for number, name in sorted(classes.items()) if number != BACKGROUND}


def find_listed(root: Path, table: Table, source: Path) -> Findings:
    """Candidates from a Decathlon list; a path that leads out of the folder is set aside."""
    entries = table.content.get("training")
    if not isinstance(entries, list):
        raise ValueError(f'{table.path} has no list "training"; add it')
    found: dict[str, Found] = {}
    set_aside: list[SetAside] = []
    listed: set[Path] = set()
    for number, entry in enumerate(entries):
        where = f"{name_below(source, table.path)}: training[{number}]"
        image, label = _names(entry, where)
        if is_file_name(image):
            listed.add(Path(os.path.realpath(root / image)))
        try:
            item = _listed(root, image, label, table, source)
        except Refused as refused:
            set_aside.append(refused.row(where))
            continue
        if item.name in found:
            cause = f"listed twice in {TABLE}; the first entry was kept"
            set_aside.append(SetAside(code="duplicate", file=where, cause=cause, kept=item.name))
        found.setdefault(item.name, item)
    set_aside += _unlisted(source, root, listed)
    set_aside += count_mismatch(table, len(entries), source)
    rows = several_channels(table, list(found.values()))
    return Findings(
        found=[] if rows else list(found.values()),
        set_aside=[*set_aside, *rows],
        classes=table.classes,
    )


def _names(entry: Any, where: str) -> tuple[str, str]:
    names = [entry.get(key) if isinstance(entry, dict) else None for key in ("image", "label")]
    image, label = names
    if not isinstance(image, str) or not isinstance(label, str):
        raise ValueError(f'{where} must name one "image" and one "label"; correct it')
    return image, label


def _listed(root: Path, image: str, label: str, table: Table, source: Path) -> Found:
    file, mask = _file_named(root, "image", image), _file_named(root, "label", label)
    return Found(
        name=name_below(source, file) if file.is_relative_to(source) else printable(file),
        files=(file,),
        labels=(mask, table.path),
        patient=printable(stem_of(file)),
    )


def _file_named(root: Path, key: str, text: str) -> Path:
    path = root / text
    if not is_file_name(text):
        cause = f"its {key} {printable(text[:60])!r} is no file name"
        raise Refused(MISSING, cause, "correct the entry")
    if not inside(root, path).is_file():
        cause = f"its {key} {printable(text)} is not there"
        raise Refused(MISSING, cause, "add the file or remove the entry")
    return path


def is_file_name(text: str) -> bool:
    """Whether the system can look for a file of that name at all."""
    try:
        parts = [os.fsencode(part) for part in Path(text).parts]
    except UnicodeEncodeError:
        return False
    return "\0" not in text and all(len(part) <= LONGEST_NAME for part in parts)


def _unlisted(source: Path, root: Path, listed: set[Path]) -> list[SetAside]:
    """Images that lie where listed images lie but stand in no list."""
    folders = {path.parent for path in listed}
    files, _ = visible_files(root)
    return [
        missing(name_below(source, file), f"entry in {TABLE}")
        for file in files
        if suffix_of(file) and file.resolve().parent in folders and file.resolve() not in listed
    ]


def find_nnunet(root: Path, table: Table, source: Path) -> Findings:
    """Candidates from nnU-Net v2 raw folders: imagesTr/<case>_0000.<ending>, labelsTr/<case>."""
    ending = str(table.content.get("file_ending", ".nii.gz"))
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    others: set[str] = set()
    files, set_aside = visible_files(root)
    for file in files:
        folder = file.relative_to(root).parts[0]
        if not file.name.endswith(ending) or folder not in ("imagesTr", "labelsTr"):
            continue
        stem = file.name.removesuffix(ending)
        if folder == "labelsTr":
            labels[stem] = file
        elif stem.endswith("_0000"):
            images[stem.removesuffix("_0000")] = file
        else:
            others.add(stem.rpartition("_")[0])
    found, alone = matched(source, images, labels, (table.path,))
    set_aside += alone + count_mismatch(table, len(images), source)
    rows = several_channels(table, found, others)
    kept = {row.file for row in rows}
    return Findings(
        found=[item for item in found if item.name not in kept],
        set_aside=[*set_aside, *rows],
        classes=table.classes,
    )


def several_channels(
    table: Table, found: list[Found], cases: set[str] | None = None
) -> list[SetAside]:
    """A CT has one channel; which of several is the CT is not ours to guess."""
    return [
        SetAside(
            code=CHANNELS,
            file=item.name,
            cause=f"the data set has {max(2, table.channels)} channels a case; a CT has one",
            remedy=f"keep the CT channel only, and only it in {TABLE}",
        )
        for item in found
        if table.channels > 1 or item.patient in (cases or ())
    ]


def count_mismatch(table: Table, count: int, source: Path) -> list[SetAside]:
    """`numTraining` must agree with what is there: a partial download looks like a data set."""
    said = table.content.get("numTraining", count)
    if said == count:
        return []
    cause = f"it speaks of {said} training cases, {count} are there"
    remedy = "complete the download, or correct numTraining"
    return [SetAside(code=MISSING, file=name_below(source, table.path), cause=cause, remedy=remedy)]
