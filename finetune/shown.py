"""What a network is shown of a case: one function for training and for prediction."""

from dataclasses import replace

from pydantic import model_validator

from pretrain.encoder import Input
from synth_ct.kit.axes import HuArray, Millimetres3
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.volume import WINDOW_HU, Volume, resample, window


class Shown(Recipe):
    """The grid and the range of HU in which a network sees CT."""

    spacing_mm: Millimetres3
    window_hu: tuple[float, float] = WINDOW_HU
    """Clipped to it, then mapped to [-1, 1]."""

    @model_validator(mode="after")
    def _something_is_shown(self) -> "Shown":
        low, high = self.window_hu
        if low >= high or min(self.spacing_mm) <= 0:
            raise ValueError(
                f"a window from {low:g} to {high:g} HU at {self.spacing_mm} mm shows nothing; "
                "give a lower and a higher HU, and lengths above 0"
            )
        return self


def shown_in_pretraining(given: Input) -> Shown:
    """The same grid and window again."""
    return Shown(spacing_mm=given.spacing_mm, window_hu=given.window_hu)


def as_shown(volume: Volume, shown: Shown) -> HuArray:
    """HU on the case's own grid -> values in [-1, 1] on the network's."""
    return placed_as_shown(volume, shown).array_XYZ


def placed_as_shown(volume: Volume, shown: Shown) -> Volume:
    """The same values, and where they are."""
    resampled = resample(volume, shown.spacing_mm)
    return replace(resampled, array_XYZ=window(resampled.array_XYZ, shown.window_hu))
