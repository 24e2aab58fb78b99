"""The embedded scene: a yard drawn by arithmetic, with exact poses and known geometry, and the demo that runs on it.

    make_demo_scene(folder)   writes the scene: photos, poses, depth maps, true surface points
    run_demo(out)             the whole line from several starts, scored against the truth

Nothing is downloaded, and the same code draws the same scene.
"""

from .dataset import make_demo_scene, read_truth
from .flow import DemoResult, run_demo

__all__ = ["DemoResult", "make_demo_scene", "read_truth", "run_demo"]
