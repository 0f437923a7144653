"""What a network is fine-tuned on: crop k of the training cases, half of them around an organ."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from finetune.augment import Augmentation, augmented
from finetune.cases import Prepared
from synth_ct.kit.axes import Grid
from synth_ct.kit.loop import Training
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.seeds import seed_for, torch_random

AIR = -1.0
"""What surrounds a case smaller than the crop: the window's lower end."""


class CropRecipe(Recipe):
    """Where crops are taken."""

    sides: Grid
    of_a_case: int = 4
    """Crops in a row from one case, before the next has its turn."""
    around_organs: float = 0.5
    """Share of the crops whose middle is a labelled voxel; the others lie anywhere."""
    organ_by: Literal["voxels", "classes"] = "voxels"
    """Large organs more often, as the public code does; or every class of the case alike."""


class Batch(NamedTuple):
    """Crops and their labels, on one device."""

    ct_B1XYZ: Tensor
    label_BXYZ: Tensor


class Crops:
    """Batches as the loop asks for them: a pure function of seed, step and slot."""

    def __init__(
        self,
        cases: Sequence[Prepared],
        recipe: CropRecipe,
        augmentation: Augmentation,
        training: Training,
        device: torch.device,
    ) -> None:
        if not cases:
            raise ValueError("no training cases are left; raise the share of labels")
        self._cases, self._recipe, self._augmentation = cases, recipe, augmentation
        self._training, self._device = training, device

    def __call__(self, step: int, slot: int) -> Batch:
        """The micro-batch of a slot, augmented."""
        training = self._training
        first = step * training.global_batch + slot * training.micro_batch
        numbers = range(first, first + training.micro_batch)
        crops = [self.crop(k) for k in numbers]
        ct_B1XYZ = torch.stack([image for image, _ in crops])[:, None].to(self._device)
        label_BXYZ = torch.stack([label for _, label in crops]).to(self._device)
        items = [torch_random(training.seed, "augmentation", k) for k in numbers]
        return Batch(*augmented(ct_B1XYZ, label_BXYZ, self._augmentation, items))

    def crop(self, k: int) -> tuple[Tensor, Tensor]:
        """Image and label of crop k; cases take turns in an order drawn anew for each round."""
        case = self._cases[self._case_of(k)]
        random = torch_random(self._training.seed, "crop", k)
        middle = self._middle(case, random)
        sides = self._recipe.sides
        return cut(case.image_XYZ, middle, sides, AIR), cut(case.label_XYZ, middle, sides, 0.0)

    def _case_of(self, k: int) -> int:
        turn = k // self._recipe.of_a_case
        lap, place = divmod(turn, len(self._cases))
        order = torch.Generator().manual_seed(seed_for(self._training.seed, "turns", lap))
        return int(torch.randperm(len(self._cases), generator=order)[place])

    def _middle(self, case: Prepared, random: torch.Generator) -> Grid:
        shape = case.image_XYZ.shape
        aimed = float(torch.rand(1, generator=random)) < self._recipe.around_organs
        if not (aimed and case.inside):
            x, y, z = (int(torch.randint(side, (1,), generator=random)) for side in shape)
            return x, y, z
        places_N = self._organ(case, random)
        flat = int(places_N[torch.randint(len(places_N), (1,), generator=random)])
        x, rest = divmod(flat, shape[1] * shape[2])
        y, z = divmod(rest, shape[2])
        return x, y, z

    def _organ(self, case: Prepared, random: torch.Generator) -> Tensor:
        organs = list(case.inside.values())
        weights = torch.tensor([float(len(places)) for places in organs])
        if self._recipe.organ_by == "classes":
            weights = torch.ones(len(organs))
        return organs[int(torch.multinomial(weights, 1, generator=random))]


def cut(array_XYZ: Tensor, middle: Grid, sides: Grid, fill: float) -> Tensor:
    """A box around the middle, pushed inside; what a small case lacks is filled, evenly around."""
    for axis, (centre, side) in enumerate(zip(middle, sides, strict=True)):
        start = min(max(0, centre - side // 2), max(0, array_XYZ.shape[axis] - side))
        array_XYZ = array_XYZ.narrow(axis, start, min(side, array_XYZ.shape[axis]))
    lack = [side - have for side, have in zip(sides, array_XYZ.shape, strict=True)]
    if any(lack):
        margins = [m for side in reversed(lack) for m in (side // 2, side - side // 2)]
        array_XYZ = F.pad(array_XYZ, margins, value=fill)
    return array_XYZ
