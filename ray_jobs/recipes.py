"""Whole runs, written as functions. To change a run, write another function."""

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from ray_jobs import faults
from ray_jobs.finetuning import (
    Folds,
    paper_folds,
    paper_holdout,
    parity_folds,
    small_folds,
    study_folds,
    tiny_folds,
    with_fewer_labels,
)
from ray_jobs.generators import (
    paper_generator,
    small_cpu_generator,
    small_generator,
    study_generator,
    table2,
    table3,
    tiny_generator,
)
from ray_jobs.pretraining import (
    Pretraining,
    paper_pretraining,
    sized,
    small_pretraining,
    study_pretraining,
    tiny_pretraining,
)
from synth_ct.generator import FolderName, GeneratorRecipe
from synth_ct.kit.recipe import NOTHING, Recipe, changed
from synth_ct.learners.autoencoder import AutoencoderRecipe
from synth_ct.phantom.chest_xray import Twin
from synth_ct.phantom.recipe import PhantomCohort
from synth_ct.production.order import CorpusRecipe

MADE, INGESTED = "(made)", "(ingested)"


class Ingested(Recipe):
    """A cohort of real data, which `synth-ct ingest` puts below the root before the run."""

    importer: str
    seed: int = Field(default=0, ge=0)
    """Of the division by patient, as given to `ingest`."""


def _kind(source: Any) -> str:
    """Which of the two a table or a recipe is."""
    named = "importer" in source if isinstance(source, dict) else isinstance(source, Ingested)
    return INGESTED if named else MADE


Real = Annotated[Ingested, Tag(INGESTED)]
Volumes = Annotated[Annotated[PhantomCohort, Tag(MADE)] | Real, Discriminator(_kind)]
Films = Annotated[Annotated[Twin, Tag(MADE)] | Real, Discriminator(_kind)]


class Cohorts(Recipe):
    """What everything is made from. Families differ: pretrained on A, fine-tuned on B."""

    ct: Volumes
    """CT the generator learns from."""
    radiographs: Films
    """Of other patients. Phantoms' films are made to look unlike DRRs."""
    bcv: Volumes
    """Labelled abdomens, 13 organs."""
    spleen: Volumes
    """Labelled abdomens, spleen only."""


class Run(Recipe):
    """One experiment from cohorts to report."""

    name: FolderName
    evidence: Literal["plumbing", "phantom", "real"]
    """How strong a statement the numbers of this run can carry."""
    seed: int = Field(ge=0)
    """Divides the radiographs and chooses style's films. Cohorts and trainings have their own."""
    gpus: float = Field(default=0.0, ge=0)
    """Each training needs; without them it is refused, never done on a CPU instead."""
    cohorts: Cohorts
    generator: GeneratorRecipe
    variations: Mapping[FolderName, AutoencoderRecipe] = Field(default_factory=dict)
    """Further autoencoders on the same pairs, by name: Table 2."""
    ablations: tuple[GeneratorRecipe, ...] = ()
    """Further generators on the same pairs: Table 3."""
    corpus: CorpusRecipe = CorpusRecipe()
    """How the generator is used on the radiographs."""
    pretraining: Pretraining | None = None
    """Which encoders are made."""
    folds: Folds | None = None
    """How they are fine-tuned and compared."""

    @model_validator(mode="after")
    def _fits_have_their_encoders(self) -> "Run":
        there = set(self.pretraining.networks) if self.pretraining else set()
        for name, each in (self.folds.networks if self.folds else {}).items():
            if each.network not in there:
                raise ValueError(
                    f"folds.networks.{name}.network is {each.network!r}, and pretraining has "
                    f"{', '.join(sorted(there)) or 'no networks'}; name one of these"
                )
        known = {"bcv", "spleen"}
        if self.folds and not known >= set(self.folds.datasets):
            raise ValueError(
                f"folds.datasets names {', '.join(sorted(set(self.folds.datasets) - known))}; "
                f"labelled cohorts are {', '.join(sorted(known))}"
            )
        return self

    @model_validator(mode="after")
    def _share_the_pairs(self) -> "Run":
        generators = (self.generator, *self.ablations)
        names = [*(each.name for each in generators), *self.variations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"{', '.join(twice)} names two trainings, and they would be one folder: give "
                "generator, ablations and variations names of their own"
            )
        odd = [each.name for each in generators if each.size != self.generator.size]
        if odd:
            raise ValueError(
                f"{', '.join(odd)} is of another size than generator, {self.generator.size}; "
                "all learn from the same pairs: make them equal"
            )
        for recipe in self.variations.values():
            recipe.demand_fit(self.generator.size)
        return self


def tiny() -> Run:
    """All of it at 32 voxels on two cores, in minutes: shows that everything is connected."""
    cohorts = phantom_cohorts(size=32, patients=16, radiographs=24)
    return Run(
        name="tiny",
        evidence="plumbing",
        seed=0,
        cohorts=cohorts,
        generator=tiny_generator(),
        corpus=CorpusRecipe(gate="record"),  # seconds of training satisfy no gate
        pretraining=tiny_pretraining(),
        folds=tiny_folds(),
    )


def small() -> Run:
    """64 voxels and enough phantoms to learn from: one GPU, a few hours."""
    return Run(
        name="small",
        evidence="phantom",
        seed=0,
        gpus=1,
        cohorts=phantom_cohorts(size=64, patients=1000, radiographs=400),
        generator=small_generator(),
        pretraining=small_pretraining(),
        folds=small_folds(),
    )


def small_cpu() -> Run:
    """`small`, its generator narrow enough for two cores in an hour and a half."""
    generator = small_cpu_generator()
    return changed(small(), name="small_cpu", gpus=0, generator=generator)


def phantom_study() -> Run:
    """Does pretraining help? 32 voxels, three seeds, 150 fits that learn: two cores, an hour."""
    return Run(
        name="phantom_study",
        evidence="phantom",
        seed=0,
        cohorts=phantom_cohorts(size=32, patients=400, radiographs=400, labelled=40),
        generator=study_generator(),
        pretraining=study_pretraining(),
        folds=study_folds(),
    )


def preprocess_parity() -> Run:
    """`phantom_study`, fine-tuned in pretraining's window and in another: the cost of that."""
    return changed(phantom_study(), name="preprocess_parity", folds=parity_folds())


def paper() -> Run:
    """The papers' data, sizes, steps and rates: LIDC-IDRI, ChestXray2017, BCV, MSD Spleen; GPUs."""
    cohorts = Cohorts(
        ct=Ingested(importer="lidc"),
        radiographs=Ingested(importer="chest-xray2017"),
        bcv=Ingested(importer="bcv"),
        spleen=Ingested(importer="msd-spleen"),
    )
    return Run(
        name="paper",
        evidence="real",
        seed=0,
        gpus=1,
        cohorts=cohorts,
        generator=paper_generator(),
        pretraining=paper_pretraining(),
        folds=paper_folds(),
    )


def paper_table2() -> Run:
    """`paper`, and every autoencoder of the paper's Table 2."""
    return changed(paper(), name="paper_table2", variations=table2(paper_generator()))


def paper_table3() -> Run:
    """`paper`, and every framework of the paper's Table 3."""
    both, *others = table3(paper_generator())
    return changed(paper(), name="paper_table3", generator=both, ablations=tuple(others))


def paper_fig4() -> Run:
    """`paper` with its folds as the text seems to mean them: 25 cases in 5, 5 and 7 held out."""
    held = changed(paper_folds(), datasets=paper_holdout())
    return changed(paper(), name="paper_fig4", folds=held)


def scaling() -> Run:
    """`paper`'s U-Net on 100, 316, 1,000 and all volumes, with 10 to 100 % of the labels."""
    base = paper()
    sizes = {"unet_n100": 100, "unet_n316": 316, "unet_n1000": 1000, "unet_all": None}
    assert base.pretraining is not None, "paper has both"
    arms = changed(base.pretraining, arms=("scratch", "synthetic"))
    return changed(
        base,
        name="scaling",
        pretraining=sized(arms, "unet", sizes),
        folds=with_fewer_labels(paper_folds(), "unet", sizes),
    )


def phantom_cohorts(
    *, size: int, patients: int, radiographs: int, labelled: int | None = None
) -> Cohorts:
    """Everything made from phantoms."""
    labelled = labelled or max(10, patients // 25)
    return Cohorts(
        ct=PhantomCohort(kind="chest", family="A", count=patients, size=size, seed=1),
        radiographs=Twin(count=radiographs, size=size, seed=2),
        bcv=PhantomCohort(kind="abdomen", family="B", count=labelled, size=size, seed=3),
        spleen=PhantomCohort(kind="spleen", family="B", count=labelled, size=size, seed=4),
    )


RECIPES: dict[str, Callable[[], Run]] = {
    f.__name__: f
    for f in (
        tiny,
        small,
        small_cpu,
        phantom_study,
        preprocess_parity,
        paper,
        paper_table2,
        paper_table3,
        paper_fig4,
        scaling,
    )
}


# ---- recipes as text ---------------------------------------------------------------------------


def find_recipe(name: str) -> Run:
    """A named recipe, or the TOML file of that name."""
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.suffix == ".toml":
        return read_toml(path)
    close = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"no recipe {name!r}; {hint}there are {', '.join(RECIPES)}, or give a .toml file "
        "(start from `synth-ct show tiny > mine.toml`)"
    )


def to_toml(run: Run) -> str:
    """The recipe as text that `read_toml` takes back."""
    return tomli_w.dumps(_spelled_out(run.model_dump(mode="json")))


def _spelled_out(value: Any) -> Any:
    """`none` for None, at any depth."""
    if isinstance(value, dict):
        return {name: _spelled_out(below) for name, below in value.items()}
    if isinstance(value, list):
        return [_spelled_out(each) for each in value]
    return NOTHING if value is None else value


def read_toml(path: Path) -> Run:
    """A recipe written by hand or by `synth-ct show`; unknown and missing fields are named."""
    try:
        fields = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"no such recipe file: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    return checked(fields, str(path))


def with_settings(run: Run, settings: list[str]) -> Run:
    """Apply `a.b=1` overrides, each to one existing field."""
    fields = run.model_dump(mode="json")
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set wants FIELD=VALUE, not {setting!r}; e.g. --set seed=1")
        *parents, leaf = path.strip().split(".")
        place = fields
        for depth, parent in enumerate(parents):
            place = _existing(place, parent, parents[:depth])
        _existing(place, leaf, parents)
        place[leaf] = _value(text.strip())
    return checked(fields, "--set")


def _existing(place: Any, name: str, where: list[str]) -> Any:
    if isinstance(place, dict) and name in place:
        return place[name]
    if not isinstance(place, dict):
        is_now = NOTHING if place is None else "no table"
        raise ValueError(f"--set: {'.'.join([*where, name])}: {'.'.join(where)} is {is_now} here")
    raise ValueError(f"--set: {faults.unknown(where, name, place, ())}")


def _value(text: str) -> Any:
    """A TOML value (1, 1e-4, true, [1, 2], "a"), or else the bare word itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def checked(fields: dict[str, Any], origin: str) -> Run:
    """Validate, turning pydantic's report into one line that names every bad field."""
    try:
        return Run.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{origin}: {faults.told(error, Run)}") from error
