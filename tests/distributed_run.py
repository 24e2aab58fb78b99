"""One process of a run that tests/e2e/test_distributed_run.py starts with torchrun: ``distributed_run.py STOP ARG…``.

The arguments are those of the command line. STOP: the step after which the second process wishes to stop; 0 for none.
gsplat draws with the kernels of tests/gsplat_kernels.py, and the processes talk by gloo: no GPU is needed.
"""

from __future__ import annotations

import sys

import gsplat_kernels
import pytest
import torch

from splatinit import distributed, training


def main(stop_after: int, arguments: list[str]) -> None:
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    gsplat_kernels.install(patch)
    gsplat_kernels.install_distributed(patch)
    patch.setattr(distributed, "AGREE_EVERY", 4)
    if stop_after:
        optimise = training.train

        def train(*given, group: distributed.Group, **more):
            more["stop"] = iter_stop(stop_after if group.rank == 1 else None)
            return optimise(*given, group=group, **more)

        patch.setattr(training, "train", train)
    from splatinit.cli import main as command_line

    sys.argv = ["splatinit", *arguments]
    command_line()


def iter_stop(after: int | None):
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return after is not None and asked >= after

    return stop


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
