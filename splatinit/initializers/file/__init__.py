"""``file``: points or a mesh that the user brings: a laser scan, dense stereo, another tool's cloud, a saved start.

From the outside in: ``initializer`` is the line; ``reading`` opens the file, ``placing`` brings its points into the
scene's coordinates, and ``aligning`` onto the scene's sparse points.
"""

from .config import FileConfig
from .initializer import File

__all__ = ["File", "FileConfig"]
