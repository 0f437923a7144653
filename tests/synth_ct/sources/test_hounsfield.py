"""What passes for Hounsfield units: air and soft tissue in their places, whatever is around."""

import numpy as np
import pytest

from synth_ct.kit.quarantine import Refused
from synth_ct.sources.hounsfield import hu_notes


def mixture(*parts: tuple[float, float, float]) -> np.ndarray:
    """A volume of normal distributions: (share, mean, spread) each."""
    rng = np.random.default_rng(0)
    count = 20 * 20 * 25
    values = [rng.normal(mean, sd, round(share * count)) for share, mean, sd in parts]
    return np.concatenate(values).reshape(20, 20, 25).astype(np.float32)


BELIEVED = {
    "a body in air": ((0.6, -1000, 8), (0.4, 40, 30)),
    "a chest cropped to the body": ((0.01, -990, 10), (0.4, -840, 60), (0.59, 30, 40)),
    "low dose, noise far below air": ((0.5, -1000, 45), (0.5, 40, 60)),
    "an abdomen with a little bowel gas": ((0.005, -960, 20), (0.295, -100, 20), (0.7, 50, 30)),
    "a floor of -1000": ((0.5, -1000, 0), (0.5, 40, 20)),
}
DOUBTED = {
    "rescaled twice": ((0.5, -2024, 10), (0.5, -984, 30)),
    "half air, a tenth far below it": ((0.1, -1500, 100), (0.4, -1000, 10), (0.5, 40, 20)),
    "compressed to half the scale": ((0.005, -1000, 10), (0.495, -520, 8), (0.5, 20, 20)),
    "all air": ((1.0, -1000, 10),),
    "no air": ((0.5, -100, 20), (0.5, 40, 20)),
    "air at -800": ((0.5, -800, 10), (0.5, 40, 20)),
    "air at -1200": ((0.5, -1200, 10), (0.5, 40, 20)),
    "stored values": ((0.5, 24, 10), (0.5, 1064, 20)),
}


@pytest.mark.parametrize("what", BELIEVED)
def test_a_plausible_scan_is_believed(what: str) -> None:
    assert set(hu_notes(mixture(*BELIEVED[what]))) <= {"clipped"}


@pytest.mark.parametrize("what", DOUBTED)
def test_other_scales_are_not(what: str) -> None:
    with pytest.raises(Refused, match="E_HU_RANGE"):
        hu_notes(mixture(*DOUBTED[what]))


@pytest.mark.parametrize("padding", [-2000, -3024, -32768])
def test_one_value_outside_the_field_of_view_is_set_apart(padding: float) -> None:
    array = mixture((0.6, -1000, 5), (0.4, 40, 20))
    array[:4] = padding
    assert hu_notes(array) == ("padding_to_air",)


def test_metal_is_clipped_and_said() -> None:
    array = mixture((0.6, -1000, 5), (0.4, 40, 20))
    array[19, 19, 24] = 12000
    assert hu_notes(array) == ("clipped",)
