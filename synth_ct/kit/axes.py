"""What the letters mean. An array's name ends with its axes; the checked types live here too.

Body axes    X patient left -> right, Y posterior -> anterior, Z inferior -> superior (RAS+).
             Voxel arrays are always XYZ, network tensors BCXYZ.
Film axes    U superior -> inferior (rows), V patient right -> left (columns): the viewer stands
             in front of the patient, so patient right is at the viewer's left.
Others       B batch   C channels

Lengths are millimetres, intensities Hounsfield units (HU) until `volume.window`, angles degrees
only where a name says `_deg`. World coordinates are RAS+ millimetres, as in NIfTI.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING or find_spec("jaxtyping"):
    from jaxtyping import Float, Int16, Shaped, UInt8

    # numpy: what lies on disk
    HuArray = Int16[np.ndarray, "x y z"] | Float[np.ndarray, "x y z"]
    LabelArray = UInt8[np.ndarray, "x y z"]
    VoxelArray = Shaped[np.ndarray, "x y z"]
    FilmArray = Float[np.ndarray, "u v"]
    Affine = Float[np.ndarray, "4 4"]
    # torch: what a network sees
    FilmBatch = Float[Tensor, "b 1 u v"]
    CtBatch = Float[Tensor, "b 1 x y z"]
else:  # a bare GPU box has no jaxtyping: the names then say what they say, unchecked
    HuArray = LabelArray = VoxelArray = FilmArray = Affine = np.ndarray
    FilmBatch = CtBatch = Tensor

Grid = tuple[int, int, int]
Millimetres3 = tuple[float, float, float]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM and ITK count to the patient's left and back; its own inverse."""
