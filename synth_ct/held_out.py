"""What every system makes of patients it has not seen: the volumes that Tables and Figures score.

Each system is a function from held-out pairs to one volume each. The references need no network;
the controls show how much of a score is owed to the radiograph, and how much to the diffusion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from synth_ct.evaluation.protocols import Volumes
from synth_ct.evaluation.reference import mean_volume, nearest_by_film
from synth_ct.generate import XctDiff, generate
from synth_ct.generator import Generator
from synth_ct.kit.progress import Tick
from synth_ct.kit.seeds import seed_for
from synth_ct.kit.volume import to_int16, unwindow
from synth_ct.models.autoencoder import Autoencoder
from synth_ct.models.quantizers import QuantiserSizes
from synth_ct.pairs.arrays import Pairs, in_parts

AT_ONCE = 4
"""CTs that go through an autoencoder together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The patients of one part, and how often each is sampled."""

    pairs: Pairs
    numbers: np.ndarray
    """Which pairs."""
    samples: int
    seed: int

    def case(self, number: int) -> str:
        """The name scores go by."""
        return self.pairs.rows[number].id

    def truth(self) -> Volumes:
        """The CTs themselves."""
        return {self.case(n): self.pairs.volumes_NXYZ[n] for n in self.numbers.tolist()}

    def patients(self) -> Mapping[str, str]:
        """Whose each case is."""
        return {self.case(n): self.pairs.rows[n].patient for n in self.numbers.tolist()}

    def other(self, number: int) -> int:
        """The next pair of another patient, so that every film is somebody's wrong one."""
        rows, numbers = self.pairs.rows, self.numbers.tolist()
        start = numbers.index(number)
        after = numbers[start + 1 :] + numbers[:start]
        stranger = next((n for n in after if rows[n].patient != rows[number].patient), None)
        if stranger is None:
            raise ValueError(
                "one patient is held out, so there is no other; make the cohort larger"
            )
        return int(stranger)


def references(held: HeldOut) -> Mapping[str, Volumes]:
    """The mean of the training volumes, and the training volume whose film is nearest."""
    pairs, train = held.pairs, held.pairs.of("train")
    mean = mean_volume(pairs.volumes_NXYZ[n] for n in train)
    films = pairs.films_NUV[train]
    nearest = {
        n: int(train[nearest_by_film(pairs.films_NUV[n], films)]) for n in held.numbers.tolist()
    }
    return {
        "mean_volume": {held.case(n): mean for n in held.numbers.tolist()},
        "nearest_case": {held.case(n): pairs.volumes_NXYZ[m] for n, m in nearest.items()},
    }


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """True CTs through an autoencoder."""

    volumes: Volumes
    code_usage: float | None
    """Share of the codes that the held-out CTs use; None without a codebook."""


@torch.inference_mode()
def autoencoded(
    model: Autoencoder, quantiser: QuantiserSizes, held: HeldOut, tick: Tick
) -> Rebuilt:
    """Encode and decode every held-out CT: no radiograph can do better."""
    device = next(model.parameters()).device
    volumes: dict[str, np.ndarray] = {}
    used: set[int] = set()
    for part in in_parts(held.numbers, AT_ONCE):
        rebuilt = model(held.pairs.ct(part, device))
        indices = rebuilt.latent.indices_BXYZ
        if indices is not None:
            used.update(indices.unique().tolist())
        for n, ct_XYZ in zip(part.tolist(), rebuilt.ct_B1XYZ[:, 0].cpu().numpy(), strict=True):
            volumes[held.case(n)] = to_int16(unwindow(ct_XYZ))
        tick(len(part))
    return Rebuilt(volumes, len(used) / quantiser.words if quantiser.words else None)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A radiograph's samples: the first alone, and the mean of all."""

    single: Volumes
    mean: Volumes


def sampled(models: XctDiff, held: HeldOut, tick: Tick, *, shuffled: bool = False) -> Sampled:
    """`samples` volumes from each radiograph, or from somebody else's."""
    single: dict[str, np.ndarray] = {}
    mean: dict[str, np.ndarray] = {}
    together = max(1, models.micro_batch // held.samples)
    for start in range(0, len(held.numbers), together):
        part = held.numbers[start : start + together].tolist()
        seen = [held.other(n) if shuffled else n for n in part]
        film_B1UV = held.pairs.film(seen, models.device)
        seeds = [seed for n in part for seed in _seeds(held, n, shuffled)]
        volumes = generate(models, film_B1UV.repeat_interleave(held.samples, 0), seeds)
        for k, n in enumerate(part):
            own = volumes[k * held.samples : (k + 1) * held.samples]
            single[held.case(n)] = own[0].array_XYZ
            mean[held.case(n)] = np.stack([v.array_XYZ for v in own]).mean(0, dtype=np.float32)
        tick(len(volumes))
    return Sampled(single, mean)


def _seeds(held: HeldOut, number: int, shuffled: bool) -> list[int]:
    purpose = f"held_out/{'shuffled' if shuffled else 'right'}"
    return [seed_for(held.seed, purpose, f"{held.case(number)}/{k}") for k in range(held.samples)]


def systems(generator: Generator, held: HeldOut, tick: Tick) -> dict[str, Volumes]:
    """Every row of a table about one generator, from what knows least to the ceiling."""
    models = generator.models
    made = dict(references(held))
    alone = replace(held, samples=1)
    made["prior_only"] = sampled(replace(models, denoiser=None), alone, tick).single
    wrong = sampled(models, held, tick, shuffled=True)
    right = sampled(models, held, tick)
    made["xctdiff_other_film"] = wrong.single
    made["xctdiff"] = right.single
    if held.samples > 1:
        made[f"xctdiff_other_film_mean{held.samples}"] = wrong.mean
        made[f"xctdiff_mean{held.samples}"] = right.mean
    quantiser = generator.about.recipe.autoencoder.sizes.quantiser
    ceiling = autoencoded(models.autoencoder, quantiser, held, tick)
    made["autoencoder_ceiling"] = ceiling.volumes
    return made
