"""What a worker does with a trained generator: film -> volume -> verdict -> files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch

from synth_ct.cohort.pool import SLIPS
from synth_ct.corpus.layout import preview_file, volume_file
from synth_ct.corpus.row import Quarantined, Row, voxel_sha256
from synth_ct.generate import generate, restyled
from synth_ct.generator import Generator, open_generator
from synth_ct.kit.axes import FilmArray
from synth_ct.kit.durable import sha256_of, write_bytes
from synth_ct.kit.numerics import fingerprint_of
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.volume import Volume, nifti_bytes, spacing_mm, to_int16
from synth_ct.preview import MARK, preview
from synth_ct.production.facts import facts_of, note_numerics
from synth_ct.production.order import CorpusRecipe, Item, sampler_of
from synth_ct.quality import film_novelty, judge, usual_novelty
from synth_ct.xray.frame import frame
from synth_ct.xray.pose import read_radiograph

CHANGED = "the file is not the one that was listed when the run began"


class Seen(NamedTuple):
    """An item and its framed film."""

    item: Item
    film_UV: FilmArray


class Sampled(NamedTuple):
    """A volume, and the film as the networks saw it."""

    volume: Volume
    styled_UV: FilmArray


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadMaker:
    """Where the generator is and how it is used; called by each worker once."""

    model: Path
    device: str
    recipe: CorpusRecipe
    workspace: Path
    noted: bool = True
    """Write down what the numerics fingerprint stands for; not where a corpus is finished."""

    def __call__(self) -> "Maker":
        """Load the networks; one thread, so that threads are the same in every worker."""
        torch.set_num_threads(1)
        device = torch.device(self.device)
        generator = open_generator(self.model, device, prior_only=self.recipe.prior_only)
        maker = Maker(generator, self.recipe, self.workspace)
        if self.noted:
            note_numerics(self.workspace, maker.fingerprint, maker.numerics)
        return maker


class Sums(TypedDict):
    """What a row has of its files."""

    file_sha256: str
    preview_sha256: str
    voxel_sha256: str


NO_FILES = Sums(file_sha256="", preview_sha256="", voxel_sha256="")


class Maker:
    """A generator at work. Every result is a function of its item alone."""

    def __init__(self, generator: Generator, recipe: CorpusRecipe, workspace: Path) -> None:
        self._generator = generator
        self._recipe = recipe
        self._workspace = workspace
        self._films = generator.reference.films()
        self._usual = usual_novelty(self._films)
        self.numerics = facts_of(str(generator.models.device))
        self.fingerprint = fingerprint_of(self.numerics)
        self.together = generator.models.micro_batch

    def read(self, item: Item) -> Seen | Quarantined:
        """Decode and frame; what cannot be trusted is set aside, with its reason."""
        try:
            if sha256_of(Path(item.path).read_bytes()) != item.radiograph_sha256:
                raise Refused("E_SHA", CHANGED, "run it again with --retry-quarantined E_SHA")
            decoded = read_radiograph(Path(item.path))
        except Refused as refused:
            return _quarantined(item, refused)
        except OSError as error:
            cause = f"the file cannot be read ({error.strerror})"
            return _quarantined(item, Refused("E_UNREADABLE", cause, "check its rights"))
        except SLIPS as slip:
            cause = f"the reader failed on it ({type(slip).__name__})"
            return _quarantined(item, Refused("E_READER", cause, "look at it, and report it"))
        return Seen(item, frame(decoded.pixels_UV, self._generator.about.recipe.size).film_UV)

    def volumes(self, films: Sequence[Seen]) -> list[Sampled]:
        """Sample them together; each is what it would be alone."""
        models = self._generator.models
        film_B1UV = torch.from_numpy(np.stack([seen.film_UV for seen in films])[:, None])
        if self._recipe.restyled:
            film_B1UV = restyled(models, film_B1UV)
        volumes = generate(models, film_B1UV, [seen.item.seed for seen in films])
        return [Sampled(v, f) for v, f in zip(volumes, film_B1UV[:, 0].numpy(), strict=True)]

    def keep(self, item: Item, made: Sampled) -> Row:
        """Judge, and write volume and preview unless the gate holds them back."""
        verdict = judge(made.volume, made.styled_UV, [], self._generator.reference)
        finite = verdict.reason != "not_finite"
        kept = finite and (verdict.accepted or self._recipe.gate == "record")
        files = write_files(self._workspace, item.id, made.volume) if kept else NO_FILES
        return Row(
            id=item.id,
            radiograph_sha256=item.radiograph_sha256,
            patient=item.patient,
            finding=item.finding,
            sample=item.sample,
            seed=item.seed,
            model=self._generator.fingerprint,
            sampler=sampler_of(self._generator.about.recipe, self._recipe.prior_only),
            fingerprint=self.fingerprint,
            accepted=kept,
            reason=verdict.reason,
            **files,
            shape=made.volume.array_XYZ.shape,
            spacing_mm=spacing_mm(made.volume.affine),
            scale=self._generator.about.scale,
            out_of_distribution=film_novelty(made.styled_UV, self._films, self._usual),
            quality=dict(verdict.figures),
        )


def write_files(workspace: Path, item: str, volume: Volume, mark: str = MARK) -> Sums:
    """Volume and preview, marked as what they are."""
    hu = to_int16(volume.array_XYZ)
    files = files_of(item, Volume(hu, volume.affine), mark)
    write_bytes(workspace / preview_file(item), files.preview)
    write_bytes(workspace / volume_file(item), files.volume)
    return {
        "file_sha256": sha256_of(files.volume),
        "preview_sha256": sha256_of(files.preview),
        "voxel_sha256": voxel_sha256(hu),
    }


def described(name: str, mark: str = MARK) -> str:
    """What a NIfTI file says of itself wherever it is copied."""
    return f"{mark} synth-ct {name}"


class Files(NamedTuple):
    """What a volume looks like on disk."""

    volume: bytes
    preview: bytes


def files_of(item: str, volume: Volume, mark: str = MARK) -> Files:
    """The bytes of volume and preview: equal for equal voxels."""
    return Files(
        nifti_bytes(volume, described(item, mark)),
        preview(volume, item, mark),
    )


def _quarantined(item: Item, refused: Refused) -> Quarantined:
    return Quarantined(
        id=item.id,
        radiograph_sha256=item.radiograph_sha256,
        patient=item.patient,
        finding=item.finding,
        code=refused.code,
        cause=refused.cause,
        remedy=refused.remedy,
    )
