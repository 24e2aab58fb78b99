"""The low-cost radiance field: a hash grid with a small MLP, fitted to posed photos. Needs cameras, no points.

``field.py`` has the protocol and the field, ``space.py`` how the world is laid into the unit cube, ``kernels.py`` the
native kernels as differentiable functions, ``reference.py`` the same maths in plain torch, the oracle of the tests,
``occupancy.py`` what a fit remembers of densities, ``rendering.py`` rays and their samples, ``photos.py`` the pixels of
all photos, ``fitting.py`` the fit to them.
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
