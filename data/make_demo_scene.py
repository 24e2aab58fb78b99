"""Draw the demo scene: ``python data/make_demo_scene.py [FOLDER]`` (default: data/scenes/demo)."""

from __future__ import annotations

import sys
from pathlib import Path

from splatinit.demo import make_demo_scene

if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "scenes" / "demo"
    print(make_demo_scene(target))
