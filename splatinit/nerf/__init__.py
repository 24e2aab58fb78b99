"""The low-cost radiance field: a hash grid with a small MLP, fitted to posed photos. Needs cameras, no points.

``field.py`` has the protocol and the field, ``space.py`` how the world is laid into the unit cube, ``kernels.py`` the
native kernels as differentiable functions, ``reference.py`` the same maths in plain torch, the oracle of the tests,
``rendering.py`` rays and their samples, ``fitting.py`` the fit to photos.
"""

from .field import Field, HashField, HashFieldConfig, load_field
from .fitting import FitConfig, FitView, fit
from .rendering import Rays, SamplingConfig, Seen, camera_rays, see
from .space import Ball, Box, Space, contract

__all__ = [
    "Ball",
    "Box",
    "Field",
    "FitConfig",
    "FitView",
    "HashField",
    "HashFieldConfig",
    "Rays",
    "SamplingConfig",
    "Seen",
    "Space",
    "camera_rays",
    "contract",
    "fit",
    "load_field",
    "see",
]
