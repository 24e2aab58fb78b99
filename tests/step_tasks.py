"""Steps of training that meet everything, on any device."""

from __future__ import annotations

from dataclasses import replace

import torch
from tiny import camera

from splatinit.steps import StepTask


def tasks(count: int, *, sh_degree: int = 3, width: int = 28, height: int = 24) -> list[StepTask]:
    """Steps that meet everything: views that see only some Gaussians, masks, depth, statistics, a growing SH degree."""
    random = torch.Generator().manual_seed(7)
    made = []
    for i in range(count):
        noise = torch.rand(height, width, 3, generator=random)
        depth = 3 + torch.rand(height, width, generator=random), torch.rand(height, width, generator=random)
        made.append(
            StepTask(
                camera=camera(0.9 * i, width, height),
                rgb=noise,
                counts=(noise[..., :1] > 0.3).float().expand(-1, -1, 3).contiguous() if i % 3 == 1 else None,
                background=torch.rand(3, generator=random) if i % 2 else None,
                sh_degree=min(sh_degree, i // 2),
                depth=depth if i % 4 == 2 else None,
                depth_weight=0.1,
                stats=[(), ("v_means2d",), ("v_means2d", "v_means2d_abs")][i % 3],
            )
        )
    return made


def moved(task: StepTask, device: torch.device) -> StepTask:
    """With its tensors on a device, but for the background, which stays on the CPU."""
    depth = None if task.depth is None else tuple(each.to(device) for each in task.depth)
    counts = None if task.counts is None else task.counts.to(device)
    return replace(task, rgb=task.rgb.to(device), counts=counts, depth=depth)
