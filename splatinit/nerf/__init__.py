"""The low-cost radiance field: a hash grid with a small MLP, fitted to posed photos. Needs cameras, no points.

``field.py`` has the protocol and the field, ``space.py`` how the world is laid into the unit cube, ``kernels.py`` the
native kernels as differentiable functions, ``reference.py`` the same maths in plain torch, the oracle of the tests.
"""

from .field import Field, HashField, HashFieldConfig, load_field
from .space import Ball, Box, Space, contract

__all__ = ["Ball", "Box", "Field", "HashField", "HashFieldConfig", "Space", "contract", "load_field"]
