"""The poses of a sweep's scenes, found before its runs: with all cores, and once for all runs that share them.

What cannot be posed is then known at once, and no run waits, holding a core, for what another one computes.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from ..io.text import read_json
from ..progress import Progress, Silent
from .folder import SweepFolder, poses_ready
from .plan import PlannedRun
from .processes import how_it_ended, start_worker, wait_for
from .shares import whole_machine
from .worker import Exit, posing_line


def find_poses(
    folder: SweepFolder,
    wanted: Mapping[Path, PlannedRun],
    stop: Callable[[], bool],
    progress: Progress = Silent(),
    *,
    name: str = "poses",
    start: Callable[[str, Path], subprocess.Popen] | None = None,
) -> dict[Path, dict[str, str]]:
    """Have every folder of ``wanted`` filled as :meth:`SweepFolder.poses` wants it; the runs say of what.

    Returns why it failed (as :meth:`SweepFolder.failure`) for each that could not be. A process that dies is blamed on
    the scene that it was at, and another one goes on. Once ``stop`` is true, it returns with what there is.

    Args:
        name: of the log; another one for each that works at the same time.
        start: starts a worker for a job and a log; None: here, with all cores.
    """
    failed: dict[Path, dict[str, str]] = {}
    log = folder.log(name)
    failures = log.with_name(f"failures-{socket.gethostname()}-{os.getpid()}.json")
    if all(map(poses_ready, wanted)):
        return failed
    progress.start("poses", len(wanted))

    def look() -> bool:
        progress.advance(sum(map(poses_ready, wanted)))
        return stop()

    while (left := [poses for poses in wanted if poses not in failed and not poses_ready(poses)]) and not stop():
        tasks = [(wanted[poses].path, wanted[poses].config.expand(), poses) for poses in left]
        line = posing_line(folder, tasks, failures)
        process = start(line, log) if start else start_worker(line, log, whole_machine())
        wait_for(process, look)
        if failures.is_file():
            failed |= {Path(poses): why for poses, why in read_json(failures).items()}
            failures.unlink()
        if process.returncode == Exit.STOPPED:
            continue
        guilty = next((poses for poses in left if poses not in failed and not poses_ready(poses)), None)
        if guilty is not None:
            failed[guilty] = {"error": how_it_ended(process.returncode, log), "kind": "", "stage": ""}
    progress.finish(f"{sum(map(poses_ready, wanted))} of {len(wanted)} found, for all runs that share them")
    return failed
