"""What the letters mean. An array's name ends with its axes; the checked types live here too.

Body axes    X patient left -> right, Y posterior -> anterior, Z inferior -> superior (RAS+).
             Voxel arrays are always XYZ, network tensors BCXYZ.
Film axes    U superior -> inferior (rows), V patient right -> left (columns): the viewer stands
             in front of the patient, so patient right is at the viewer's left.
Others       B batch   C channels

Lengths are millimetres, intensities Hounsfield units (HU) until `volume.window`, angles degrees
only where a name says `_deg`. World coordinates are RAS+ millimetres, as in NIfTI.
"""

import numpy as np
from jaxtyping import Float, Int16, Shaped, UInt8
from torch import Tensor

# numpy: what lies on disk
HuArray = Int16[np.ndarray, "x y z"] | Float[np.ndarray, "x y z"]
LabelArray = UInt8[np.ndarray, "x y z"]
VoxelArray = Shaped[np.ndarray, "x y z"]
FilmArray = Float[np.ndarray, "u v"]
Affine = Float[np.ndarray, "4 4"]
Grid = tuple[int, int, int]
Millimetres3 = tuple[float, float, float]

# torch: what a network sees
FilmBatch = Float[Tensor, "b 1 u v"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM and ITK count to the patient's left and back; its own inverse."""
