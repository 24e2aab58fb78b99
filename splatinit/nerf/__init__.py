"""The low-cost radiance field: a hash grid with a small MLP, fitted to posed photos. Needs cameras, no points.

``field.py`` has the protocol and the field, ``space.py`` how the world is laid into the unit cube, ``kernels.py`` the
native kernels as differentiable functions, ``reference.py`` the same maths in plain torch, the oracle of the tests,
``occupancy.py`` what a fit remembers of densities, ``rendering.py`` rays and their samples, ``photos.py`` the pixels of
all photos, ``fitting.py`` the fit to them.

A voxel grid without MLP was tried in its place and is not here, because it lost. It held a density and colours in SH
of degree 1 at each vertex of a dense grid, 128³ after two steps of up-sampling from 32³, interpolated before the
activation (DVGO; Sun et al. 2022), and Adam touched only the vertices that a step saw. Held-out PSNR of the field's own
pictures after 20 s of one processor, with the same sampling, hash grid and voxels, each at the best of its few settings
tried: fox (135 × 240 pixels) 27.9 and 26.4 dB, horns 27.3 and 25.1, chair 29.3 and 28.3, bonsai (these 200 pixels wide)
22.2 and 21.7; fox after 80 s 30.5 and 28.1 (160³). A step of voxels took half of the time. Without total variation,
bonsai's held-out PSNR fell from 10 s on; with it, fox, horns and chair lost 0.7 to 1.8 dB.
"""

from .field import Field, HashField, HashFieldConfig, load_field
from .fitting import FitConfig, FitResult, fit
from .occupancy import Occupancy
from .photos import Batch, FitView, Photos
from .rendering import CameraRays, Picture, Rays, SamplingConfig, Seen, camera_rays, ends, picture, see
from .space import Ball, Box, Space, contract

__all__ = [
    "Ball",
    "Batch",
    "Box",
    "CameraRays",
    "Field",
    "FitConfig",
    "FitResult",
    "FitView",
    "HashField",
    "HashFieldConfig",
    "Occupancy",
    "Photos",
    "Picture",
    "Rays",
    "SamplingConfig",
    "Seen",
    "Space",
    "camera_rays",
    "contract",
    "ends",
    "fit",
    "load_field",
    "picture",
    "see",
]
