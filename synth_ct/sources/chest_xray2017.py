"""ChestXray2017 (Kermany et al.): 5,856 chest radiographs of children, of one hospital.

Layout: `{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`, also one or two folders further down, as the
archive nests it. The official split is not ours: it puts patients in several parts, so patients are
divided anew, 80/10/10.

Whose a film is stands in its name alone. `personN_bacteria_M` and `personN_virus_M` are person N.
Normal films are called `IM-N-M` or `NORMAL2-IM-N-M`, and nothing says whether these are one
numbering or two. Taken as two, the official split leaks 170 patients; taken as one, more. The
division takes them as one: if they are two, a few strangers are kept together, which costs
nothing; if they are one and were taken as two, a child would stand in both training and test.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from synth_ct.cohort.case import SPLITS, Case, Findings, Found, Importer
from synth_ct.cohort.divide import eighty_ten_ten
from synth_ct.kit.quarantine import SetAside
from synth_ct.kit.seeds import numpy_random
from synth_ct.sources.paths import name_below, source_folder
from synth_ct.sources.radiographs import candidates, read

CLASSES = ("NORMAL", "PNEUMONIA")
PERSON = re.compile(r"person(\d+)_(bacteria|virus)_\d+(?:_\d+)?")
NORMAL = re.compile(r"(?:NORMAL2-)?IM-(\d+)-\d+(?:-\d+)?")
STYLE_IMAGES = 1000


def find(source: Path) -> Findings:
    """Every film in the official layout; what lies outside it is set aside."""
    root = source_folder(source)
    files, set_aside = candidates(root)
    found: list[Found] = []
    for file in files:
        item = _found(root, file)
        if item is None:
            set_aside.append(_stray(root, file))
        else:
            found.append(item)
    if not found:
        raise ValueError(
            f"{source} holds no {{train,val,test}}/{{NORMAL,PNEUMONIA}}/ with films named as in "
            "ChestXray2017; give that folder, or use `synth-ct ingest radiographs`"
        )
    return Findings(found=found, set_aside=set_aside)


def _found(root: Path, file: Path) -> Found | None:
    split, kind = file.parent.parent.name, file.parent.name
    patient, cause = patient_of(file.stem)
    if split not in SPLITS or kind not in CLASSES or not patient:
        return None
    return Found(
        name=name_below(root, file),
        files=(file,),
        patient=patient,
        split=SPLITS[split],
        finding=f"{kind}/{cause}" if cause else kind,
    )


def patient_of(stem: str) -> tuple[str, str]:
    """(patient, bacteria or virus) that a file name states; empty where it states none."""
    if match := PERSON.fullmatch(stem):
        return f"person {int(match[1])}", match[2]
    if match := NORMAL.fullmatch(stem):
        return f"normal {int(match[1])}", ""
    return "", ""


def _stray(root: Path, file: Path) -> SetAside:
    return SetAside(
        code="E_PAIR_MISSING",
        file=name_below(root, file),
        cause="neither folder nor name is one of ChestXray2017's, so class or patient is unknown",
        remedy="move it, or give it to `synth-ct ingest radiographs --patients`",
    )


def paper_selection(
    cases: Sequence[Case], seed: int = 0, count: int = STYLE_IMAGES
) -> tuple[Case, ...]:
    """The normal films style transfer learns from: `count` NORMAL of the train part, by seed.

    The paper uses 1,000 normal radiographs without saying which. Where there are fewer, all. Where
    nobody said what any film shows, each may be normal.
    """
    untold = not any(case.finding for case in cases)
    normal = sorted(
        (c for c in cases if c.split == "train" and (untold or c.finding == "NORMAL")),
        key=lambda case: case.id,
    )
    if not normal:
        raise ValueError(
            "no NORMAL radiograph in the train part, which style transfer learns from; say so in "
            "column `finding` of `ingest radiographs --patients`, or leave the column out for all"
        )
    chosen = numpy_random(seed, "style").permutation(len(normal))[:count]
    return tuple(normal[i] for i in sorted(chosen.tolist()))


IMPORTER = Importer(
    name="chest-xray2017",
    kind="radiographs",
    find=find,
    read=read,
    divide=eighty_ten_ten,
    about={
        "title": "ChestXray2017, chest radiographs of children",
        "licence": "CC BY 4.0",
        "citation": "Kermany, Zhang, Goldbaum, Mendeley Data rscbjbr9sj v2, 2018",
        "evidence": "real",
        "cautions": [
            "Children of one to five years, one hospital: an age gap to every adult CT.",
            "Exposed anteroposterior (AP), as films of small children are.",
            "Patients are known by file name only; IM-N and NORMAL2-IM-N are taken for one person.",
            "JPEG has no scale: what is made from these films has a nominal one.",
        ],
    },
)
