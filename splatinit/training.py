"""The one trainer that all initializers share: 3DGS's recipe, one view a step, resumable to the same numbers.

Every number of a run follows from its arguments and the count of steps: random draws are seeded by (seed, purpose,
step), so that there is no random state to carry along, and the clock decides only when to report and to save.
"""

from __future__ import annotations

import hashlib
import math
import time
import traceback
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import device as devices
from .course import Course
from .decoding import most_bytes
from .distributed import ALONE, Group
from .draws import seeded
from .errors import ConfigError, OutOfMemory, SplatinitError, TrainingError
from .late import LateLosses, Loss
from .memory import TrainingMemory, is_no_memory
from .progress import Progress, Silent
from .raster.base import Rasterizer, RasterSettings
from .stopwatch import Profile, Stopwatch
from .targets import DEVICE_SHARE, HeldOut, Priors, Targets, most_copied_bytes, unsee_masked
from .types import DepthPrior, Gaussians, Scene

# torch, and what imports it, is imported inside the functions: listing settings must not wait for it.
if TYPE_CHECKING:
    import torch

    from .densify.base import Change, Densifier
    from .io.checkpoints import Latest
    from .optim import GaussianAdam

REPORT_SECONDS = 0.25  # between two updates of the live line
# A checkpoint may take at most this share of the time, however large the model and slow the disk.
CHECKPOINT_SHARE = 0.05
# Sizes that photos have before they reach the working size. With 8 a level is 9 % of it wide for a start at 0.3, and a
# photo is reduced eight times in all.
RESOLUTION_LEVELS = 8


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. The defaults are those of 3DGS (Kerbl et al. 2023); schedules are fractions of ``steps``.

    Attributes:
        steps: optimiser updates, one view each. 3DGS reports 7000 and 30 000.
        seconds: that making the start and training have together, in place of ``steps``: the same time for every start,
            however long it took to make. Schedules are then fractions of the time that training has. The number of
            updates depends on the machine and on what else it does, and no two such runs are alike. None: ``steps``.
        lr_means: per scene extent and step; decays exponentially to ``lr_means_end`` times itself.
        lr_means_end: factor at the last step.
        lr_means_hold: fraction of the steps that have the rate of its end; the decay goes on from there. 0, 3DGS's,
            decays from the first step. EDGS: 8000 of 30 000, because points in their place need no large moves.
        lr_scales: of the log scales.        lr_opacities: of the logit opacities.
        lr_quats: of the quaternions.        lr_sh0: of the SH coefficients of degree 0.
        lr_shN: of the higher ones: they are seen from few directions each, and would overfit at the rate of sh0.
        sh_interval: fraction of the steps after which the next SH degree joins in (3DGS: 1000 of 30 000). Degrees that
            the start brings are there from the first step on.
        sh_hold: fraction of the steps before ``sh_interval`` counts for the first time.
        low_pass: px², largest value of RAIN-GS's progressive low-pass filter (arXiv:2403.09413, with 300); 0, the
            default, is none. While it is on, the screen covariances grow by H·W / (9π n) in place of raster.eps2d, but
            by no less than that and no more than this: so the discs of 3 standard deviations of n points, the
            Gaussians there are, cover the photo. Few large Gaussians learn the coarse scene first. The authors look at
            n every 1000 steps; here it is the n of each step, which needs no memory of an older one.
        low_pass_until: fraction of the steps after which raster.eps2d holds again, with which the result is drawn
            wherever it is looked at. Every n large enough gets there before.
        resolution: share of the working size (of the sides) that the photos have in the first steps; it grows to 1 in
            ``RESOLUTION_LEVELS`` equal steps. Small images cost less, and call for fewer Gaussians: of those that would
            grow, a refinement grows the share that the photos have of their pixels (DashGaussian, arXiv:2503.18402).
            1, the default, trains at the working size throughout.
        resolution_until: fraction of the steps after which the photos have their working size.
        ssim_weight: of D-SSIM in the loss, the rest is L1.
        selective_adam: Gaussians that no pixel of the view pulls at keep their numbers and their moments in that step
            (the sparse Adam of Taming-3DGS, Mallick et al. 2024). Faster where most of the scene is out of sight.
        random_background: photos with alpha are composed over a random colour each step, so that no Gaussian can
            pose as the background; otherwise over the scene's background. Opaque photos are not concerned.
        depth_weight: of the relative depth error where a view has a depth prior (see losses.relative_depth_l1).
        depth_until: fraction of the steps over which this weight falls linearly to zero: the prior guides the start
            and cannot hold back what the photos know better.
        image_cache_mb: memory of the host for decoded photos (8 bit per channel), but for those that a device keeps.
            What does not fit waits on the disk of the checkpoints, and where that has no room it is decoded at every
            use. 700 photos of 800×600 fit into the default, with which a training of any number of photos stays below
            2 GB beside its Gaussians.
        checkpoint_seconds: between two checkpoints, at least (a checkpoint takes at most 5 % of the time).
        preview: fraction of the steps between two looks at a held-out view, which are shown and logged.
    """

    steps: int = 7000
    seconds: float | None = None
    lr_means: float = 1.6e-4
    lr_means_end: float = 0.01
    lr_means_hold: float = 0.0
    lr_scales: float = 5e-3
    lr_opacities: float = 5e-2
    lr_quats: float = 1e-3
    lr_sh0: float = 2.5e-3
    lr_shN: float = 2.5e-3 / 20
    sh_interval: float = 1 / 30
    sh_hold: float = 0.0
    low_pass: float = 0.0
    low_pass_until: float = 0.5
    resolution: float = 1.0
    resolution_until: float = 0.5
    ssim_weight: float = 0.2
    selective_adam: bool = False
    random_background: bool = True
    depth_weight: float = 0.1
    depth_until: float = 0.5
    image_cache_mb: int = 1024
    checkpoint_seconds: float = 60.0
    preview: float = 0.02

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"Training needs at least 1 step, got steps = {self.steps}.")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ConfigError(f"train.seconds must be a positive number of seconds, got {self.seconds:g}.")
        for name, value in asdict(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"train.{name} must be finite and not negative, got {value:g}.")
        fractions = ("ssim_weight", "depth_until", "preview", "resolution", "resolution_until", "lr_means_hold")
        for name in (*fractions, "sh_hold", "low_pass_until"):
            if getattr(self, name) > 1:
                raise ConfigError(f"train.{name} is a fraction: expected 0 to 1, got {getattr(self, name):g}.")
        if self.lr_means_end == 0:
            raise ConfigError("train.lr_means_end must be positive: an exponential decay never reaches 0.")
        if self.resolution == 0:
            raise ConfigError("train.resolution must be positive: a photo of no size shows nothing.")

    def resolution_after(self, done: int) -> float:
        """Share of the working size (of the sides) that the photos have after ``done`` updates: in (0, 1].

        DashGaussian gives a resolution the steps that its share of the photos' spectrum deserves. The amplitudes of
        photos fall about as 1/frequency (Field 1987), of which a square of low frequencies holds a share that is
        proportional to its side: so the sides grow linearly. In levels, so that a photo is reduced once for many uses.
        """
        until = self.resolution_until * self.steps
        if done >= until:
            return 1.0
        level = math.floor(RESOLUTION_LEVELS * done / until)
        return self.resolution + (1.0 - self.resolution) * level / RESOLUTION_LEVELS

    def eps2d_after(self, done: int, count: int, width: int, height: int, least: float) -> float:
        """What the screen covariances grow by (px²) after ``done`` updates, with ``count`` Gaussians in a photo of
        ``width`` × ``height`` px; ``least`` is raster.eps2d. See ``low_pass``."""
        if self.low_pass == 0 or done >= self.low_pass_until * self.steps:
            return least
        return max(least, min(width * height / (9 * math.pi * count), self.low_pass))

    def lr_means_factor(self, done: int) -> float:
        """What ``lr_means`` is multiplied by after ``done`` updates."""
        return self.lr_means_end ** max(done / self.steps, self.lr_means_hold)

    def sh_degree_after(self, done: int) -> int:
        """The SH degree that has joined in after ``done`` updates."""
        return (done - round(self.sh_hold * self.steps)) // max(1, round(self.sh_interval * self.steps))

    def depth_weight_after(self, done: int) -> float:
        """The weight of depth priors after ``done`` updates."""
        until = self.depth_until * self.steps
        return self.depth_weight * (1 - done / until) if done < until else 0.0

    def previews(self, step: int) -> bool:
        """Whether a held-out view is looked at after the update number ``step``."""
        return step % max(1, round(self.preview * self.steps)) == 0


@dataclass(frozen=True)
class Measurement:
    """What is measured of the Gaussians while they train, beside the training: it changes nothing of it.

    Attributes:
        fractions: of the training after which it is measured: of its updates, or of its time (``TrainConfig.seconds``).
        psnr: Gaussians, detached and not to be changed → mean PSNR in dB, or None where nothing can be measured.
    """

    fractions: Collection[float]
    psnr: Callable[[Gaussians], float | None]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came out of a training.

    Attributes:
        gaussians: the trained Gaussians, detached, on the host: what comes after a training writes them, or moves them
            to the device of the rasterizer that it has.
        steps_done: updates made, over all resumptions.        interrupted: ``stop`` ended it before the last step.
        seconds: of training, over all resumptions, with what the device did of it; without those of a
            :class:`Measurement`.
        loss: exponential mean of the loss over about the last 100 steps.
        psnr: of the held-out view at the last look (dB), None without test views.
        peak_memory_mb: of the process, on the host.
        profile: where the time of this call went (a training that was resumed: since then). On a device that works
            behind the host, its time counts where the host waited for it, unless ``train`` was asked to wait often.
        notes: human-readable remarks (a damaged checkpoint that was passed over, a view that is masked completely).
    """

    gaussians: Gaussians
    steps_done: int
    interrupted: bool
    seconds: float
    loss: float | None
    psnr: float | None
    peak_memory_mb: float
    profile: Profile
    notes: tuple[str, ...] = ()


def train(
    scene: Scene,
    gaussians: Gaussians,
    *,
    rasterizer: Rasterizer,
    settings: RasterSettings,
    densifier: Densifier,
    config: TrainConfig = TrainConfig(),
    seed: int = 0,
    checkpoints: Path | None = None,
    log: Callable[[dict[str, Any]], None] | None = None,
    depth_priors: Mapping[str, DepthPrior] | None = None,
    measurement: Measurement | None = None,
    spent: float = 0.0,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    profile: bool = False,
    group: Group = ALONE,
) -> TrainResult:
    """Train ``gaussians`` (which stay as they are) on the training views of ``scene``.

    The Gaussians and all that a step works with are on the rasterizer's device. Between two looks (previews,
    checkpoints, refinements) the host waits for it only so as not to be more than some steps ahead.

    Args:
        checkpoints: folder to save to, and to resume from: the newest whole checkpoint in it is taken up, and the
            result is bit for bit that of an uninterrupted run. None: nothing is saved.
        log: called with one JSON-able dict per preview ("step", "loss", "psnr", "n", "seconds") and per refinement
            ("step", "cloned", "split", "pruned", "opacities_reset", "n"), and per look of ``measurement`` ("step",
            "test_psnr", "n", "seconds" of training until then, "measured_in" seconds), after those of the same step.
        depth_priors: view name → depth that the loss pulls the expected depth to, for some or all training views.
        spent: seconds of ``config.seconds`` that making the start has taken.
        measurement: taken after its fractions, and not part of the time. A training that goes on from a checkpoint of
            such a step takes it again.
        stop: asked after every step; when it says True, a checkpoint is written and the training returns.
        profile: have the device done with each stage before the next begins, so that each has its own seconds in
            ``TrainResult.profile``. Slower on a device that works behind the host; on the host it is always so.
        group: the processes that train together, each by this call with the same arguments, but for ``log`` and
            ``progress``; ``rasterizer`` is one of ``group``'s. The first returns all Gaussians, the others theirs.

    Raises:
        TrainingError: no training view, no Gaussians (left), a loss that is not finite (names step and view), or
            Gaussians that are not (looked for at every preview and before saving: an engine need not show them).
        ConfigError: the checkpoints belong to another training (names what differs), or it is none for a group.
        OutOfMemory: it does not fit (said before anything is taken), or what a refinement adds does not, or an
            allocation failed all the same (says of what, and what would fit).
        SceneError, FormatError: a photo is gone or damaged.
    The last two save a checkpoint first, so that the same call goes on once their cause is removed.
    A loss on a device is read some steps late, but before anything that is saved or looked at was made with it.
    """
    import torch

    from .optim import BETA1, BETA2, EPS, GaussianAdam
    from .steps import StepConfig, StepTask, make_step

    device = devices.device_of(rasterizer)
    watch = Stopwatch(lambda: devices.synchronize(device)) if profile else Stopwatch()
    progress = progress or Silent()
    depth_priors = depth_priors or {}
    if not scene.train:
        raise TrainingError(f"{scene.root}: no training view; expected at least one.")
    if len(gaussians) == 0:
        raise TrainingError("Training cannot start from 0 Gaussians.", hint="Try another initializer (--init).")
    needs = memory_needs(scene, gaussians.sh_degree, config, device)
    needs.require(group.share(len(gaussians)), lambda fits: f"Start from at most {fits * group.size} Gaussians.")
    _check_finite(gaussians, "before the first step")
    densifier = group.densifier(densifier)
    densifier.begin(steps=config.steps, extent=scene.extent)
    group.check(scene, gaussians, config, densifier)
    rates = {
        "means": config.lr_means * scene.extent,
        "quats": config.lr_quats,
        "log_scales": config.lr_scales,
        "logit_opacities": config.lr_opacities,
        "sh0": config.lr_sh0,
        "shN": config.lr_shN,
    }
    rates = group.rates(rates)
    beta1, beta2, eps = group.moments(BETA1, BETA2, EPS)
    try:
        mine = devices.moved(group.part(gaussians), device)
        adam = GaussianAdam(mine, rates, beta1=beta1, beta2=beta2, eps=eps)
        del mine
    except (MemoryError, RuntimeError) as error:
        if not is_no_memory(error):
            raise
        count = group.share(len(gaussians))
        raise needs.ran_out(error, "the Gaussians and their moments", count, 0) from error
    losses = LateLosses(device)
    notes: tuple[str, ...] = ()
    saver = None
    if checkpoints is not None:
        identity = _identity(scene, gaussians, rasterizer, settings, densifier, config, seed, depth_priors)
        identity |= group.identity()
        checkpoints = group.folder(Path(checkpoints))
        every = config.checkpoint_seconds
        saver = _Saver(checkpoints, every, adam, densifier, identity, lambda: hear(losses.rest()))
        notes = saver.resume(group.latest(checkpoints))
        for note in notes:
            progress.note(note)
    passed = saver.seconds if saver else 0.0
    report = _Report(log, progress, device, done=adam.steps, seconds=passed)
    limit = None if config.seconds is None else max(0.0, config.seconds - spent)
    course = Course(config.steps, limit, done=adam.steps, passed=passed)
    schedule = replace(config, steps=course.steps)  # schedules go by the steps that there will be
    room = 0 if device.type == "cpu" else int(DEVICE_SHARE * devices.device_memory(device).free)
    priors = Priors(depth_priors, device, room=room)
    held_out = HeldOut(scene, rasterizer, settings, device) if scene.test else None
    sh_start = _degree_in_use(gaussians)
    masked = any(view.photo.has_mask for view in scene.train)
    random = torch.Generator()
    interrupted = False

    def hear(arrived: list[Loss]) -> None:
        for loss in arrived:
            if not math.isfinite(loss.value):
                raise TrainingError(
                    f"The loss at step {loss.step} (view '{loss.view}') is {loss.value}; expected a finite number.",
                    hint="Lower the learning rates (train.lr_*), or look at this photo and its pose.",
                    step=loss.step,
                    view=loss.view,
                )
            report.loss_was(loss.value)

    def saved_on_failure(doing: str, **how: bool) -> AbstractContextManager[None]:
        return _saved_on_failure(saver, report, adam, needs, doing, **how)

    def refine(step: int) -> Change | None:
        # Of the update that was just made.
        resolution = schedule.resolution_after(step - 1)
        change = densifier.refine(
            step, adam, seeded(random, seed, group.purpose("densify"), step), resolution=resolution
        )
        return group.summed(change)

    def measure() -> None:
        if measurement is None or not any(course.reached(each, adam.steps) for each in measurement.fractions):
            return
        hear(losses.rest())
        with saved_on_failure("measuring the test views"), report.paused() as paused:
            psnr = measurement.psnr(adam.gaussians.map(lambda tensor: tensor.detach()))
        report.measured(psnr, count, paused())
        watch.lap("test views")

    training_step = make_step(adam, rasterizer, settings, StepConfig(config.ssim_weight, config.selective_adam))
    progress.start("train", total=config.steps if limit is None else None)
    resumed = adam.steps
    watch.lap("begin")
    count = group.total(len(adam.gaussians))  # of all processes
    with Targets(
        scene, config, seed, device, room=room, spill=checkpoints, turn=group.turn, progress=progress
    ) as targets:

        def admit(wanted: int) -> None:
            def require() -> None:
                needs.require_growth(len(adam.gaussians), wanted, step=adam.steps, photos=targets.still_to_keep())

            try:
                require()
            except OutOfMemory:
                # Each of the two is asked.
                if not [part for part in (targets, priors) if part.give_back()]:
                    raise
                require()
                progress.note(f"From step {adam.steps} on, Gaussians take the room that photos had on {device}.")

        adam.admit = admit
        if saver is not None and saver.refinement_waits:
            with saved_on_failure("the refinement", refinement_waits=True):
                change = refine(adam.steps)
            count = group.total(len(adam.gaussians))
            report.refined(adam.steps, change, count)
        if course.steps != config.steps:  # a resumed training by time
            densifier.replan(steps=course.steps)
        last = course.over(adam.steps, passed)
        while not last:
            measure()
            done = adam.steps
            step = done + 1  # `done` updates are behind, this one is number `step`
            adam.learning_rates["means"] = rates["means"] * schedule.lr_means_factor(done)
            degree = min(gaussians.sh_degree, max(sh_start, schedule.sh_degree_after(done)))
            depth_weight = schedule.depth_weight_after(done)
            stats = densifier.wants_stats(step)

            with saved_on_failure("the photo of the next step"):
                target = targets.get(done, schedule.resolution_after(done))
                view = target.view
                height, width = target.rgb.shape[:2]
                task = StepTask(
                    camera=view.camera,
                    rgb=target.rgb,
                    counts=target.counts,
                    background=target.background,
                    sh_degree=degree,
                    depth=priors.get(view, target.counts) if depth_weight > 0 else None,
                    depth_weight=depth_weight,
                    stats=stats,
                    eps2d=schedule.eps2d_after(done, count, width, height, settings.eps2d),
                )
            watch.lap("photos")
            with saved_on_failure("drawing and comparing"):
                hear(losses.put(step, view.name, training_step.loss(task)))
                aux = training_step.update()
            watch.lap("step", training_step.seconds())
            with saved_on_failure("the statistics of the Gaussians", begun=True):
                for seen, counts in group.seen(aux, target.counts, (height, width) if stats and masked else None):
                    if stats and counts is not None:
                        unsee_masked(seen, counts)
                    densifier.observe(step, seen, view.camera)
            del target, task, aux, seen, counts  # before a refinement takes memory
            with saved_on_failure("the refinement", refinement_waits=True):
                change = refine(step)
            if len(adam.gaussians) == 0:
                raise TrainingError(
                    f"No Gaussians are left after step {step}: all were pruned.",
                    hint="Nothing of the start explains the photos: check the poses, or try another initializer "
                    "(--init).",
                    step=step,
                )

            watch.lap("densify")
            if change is not None or group.size == 1:  # to ask the others takes time
                count = group.total(len(adam.gaussians))
            report.refined(step, change, count)
            if course.advance(step, report.seconds()):
                schedule = replace(config, steps=course.steps)
                densifier.replan(steps=course.steps)
            last = course.over(step, report.seconds())
            looks = schedule.previews(step) or last
            if looks:
                hear(losses.rest())
            report.step(step, count, total=course.steps, last=last)
            if looks:
                _check_finite(adam.gaussians, f"after step {step}")
                with saved_on_failure("the look at a held-out view"):
                    psnr = held_out.psnr(adam.gaussians, degree) if held_out else None
                report.preview(psnr)
            watch.lap("report")
            stops, saves = group.agreed(step, not last and stop(), saver is not None and saver.is_due())
            if stops and not last:
                interrupted = True
                break
            if saver is not None and saves:
                saver.save(report.seconds())
            watch.lap("checkpoint")

    hear(losses.rest())
    devices.synchronize(device)
    if device.type != "cpu":
        watch.lap("device")  # what it had still to do
    seconds = report.seconds()
    if saver is not None and adam.steps > saver.saved_step:
        saver.save(seconds)
    watch.lap("checkpoint")
    if not interrupted:
        measure()
    result = group.whole(adam.gaussians.map(lambda tensor: tensor.detach().cpu()))
    report.finish(len(result))
    return TrainResult(
        gaussians=result,
        steps_done=adam.steps,
        interrupted=interrupted,
        seconds=seconds,
        loss=report.loss,
        psnr=report.psnr,
        peak_memory_mb=_peak_memory_mb(),
        profile=Profile(steps=adam.steps - resumed, seconds=watch.seconds),
        notes=(*notes, *targets.notes),
    )


def _degree_in_use(gaussians: Gaussians) -> int:
    """The highest SH degree of which a coefficient is not 0."""
    used = gaussians.shN.any(dim=2).any(dim=0).nonzero()
    return math.isqrt(int(used.max()) + 1) if len(used) else 0


def memory_needs(
    scene: Scene, sh_degree: int, config: TrainConfig, device: torch.device | None = None
) -> TrainingMemory:
    """What a training of Gaussians of this degree on ``scene`` takes, of the host's memory or of ``device``."""
    sizes = [(view.camera.width, view.camera.height) for view in scene.views]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    cache = config.image_cache_mb * 2**20
    photos = most_bytes(scene.train, cache) + most_copied_bytes(scene.train, cache, config.resolution)
    return TrainingMemory(sh_degree=sh_degree, width=width, height=height, photos=photos, device=device)


@contextmanager
def _saved_on_failure(
    saver: _Saver | None,
    report: _Report,
    adam: GaussianAdam,
    needs: TrainingMemory,
    doing: str,
    *,
    begun: bool = False,
    refinement_waits: bool = False,
) -> Iterator[None]:
    """Save a checkpoint before an error of the block goes up, and say in its hint that the same call goes on from it.

    Nothing is saved where the block has begun to change the training's state: an update that was counted, or Gaussians
    that were exchanged. Of a refinement that has done neither, the checkpoint says that it waits. A TrainingError goes
    up as it is: what would be saved would only fail again.

    Args:
        doing: what the block does, for the error of an allocation that failed in it.
        begun: the block goes on with a change: what was saved before stands.
    """
    count, step, before = len(adam.gaussians), adam.steps, weakref.ref(adam.gaussians)
    try:
        yield
    except TrainingError:
        raise
    except (SplatinitError, OSError, MemoryError, RuntimeError) as error:
        problem = error
        if not isinstance(error, SplatinitError | OSError):
            if not is_no_memory(error):
                raise
            problem = needs.ran_out(error, doing, count, step)
        if isinstance(problem, OutOfMemory):
            # What the block had made until then is held by the frames in which it failed, and saving takes some memory.
            traceback.clear_frames(error.__traceback__)
            if needs.device is not None:
                devices.give_back(needs.device)
        unchanged = (
            not begun and adam.steps == step and before() is not None and before() is getattr(adam, "gaussians", None)
        )
        # Of other errors in a refinement it is not known what they have left undone.
        unchanged = unchanged and (not refinement_waits or isinstance(problem, OutOfMemory))
        saved = 0
        if saver is not None:
            saved = saver.save_before_error(report.seconds(), refinement_waits) if unchanged else saver.saved_step
        if isinstance(problem, SplatinitError) and saved > 0:
            ends = "." if problem.hint and not problem.hint.endswith((".", "!", "?")) else ""
            goes_on = f"Nothing is lost: the same command goes on after step {saved}."
            problem.hint = f"{problem.hint}{ends} {goes_on}" if problem.hint else goes_on
        if problem is error:
            raise
        raise problem from error


def _check_finite(gaussians: Gaussians, when: str) -> None:
    for name, tensor in gaussians.tensors().items():
        if math.isfinite(tensor.detach().sum().item()):  # a hundred times faster than to ask each number
            continue
        rows = (~tensor.isfinite()).reshape(len(tensor), -1).any(dim=1)
        if rows.any():
            raise TrainingError(
                f"{int(rows.sum())} of {len(tensor)} Gaussians have non-finite {name} {when} "
                f"(the first is number {int(rows.nonzero()[0])}).",
                hint="Lower the learning rates (train.lr_*), or look at the start that was given.",
                field=name,
            )


# ------------------------------------------------------------------------------------------------------------ outputs
class _Report:
    """Tells how it goes: live line, log rows, and the numbers of the result."""

    def __init__(
        self,
        log: Callable[[dict[str, Any]], None] | None,
        progress: Progress,
        device: torch.device,
        *,
        done: int,
        seconds: float,
    ) -> None:
        self.loss: float | None = None
        self.psnr: float | None = None
        self._log, self._progress, self._device = log, progress, device
        self._first = self._step = done
        self._n = 0
        self._before = seconds
        self._began = self._shown = time.perf_counter()
        self._measuring = 0.0  # s since _began

    def seconds(self) -> float:
        return self._before + self._here()

    def _here(self) -> float:
        """Seconds of training since this process took it up."""
        return time.perf_counter() - self._began - self._measuring

    @contextmanager
    def paused(self) -> Iterator[Callable[[], float]]:
        """The block does not count as training; yields how many seconds it has taken, for after it."""
        devices.synchronize(self._device)  # what it still has to do of the training counts as such
        began = time.perf_counter()
        taken = 0.0
        try:
            yield lambda: taken
        finally:
            taken = time.perf_counter() - began
            self._measuring += taken

    def measured(self, psnr: float | None, n: int, seconds: float) -> None:
        """``psnr`` over the test views, that took ``seconds`` to measure."""
        if self._log is not None:
            row = {"step": self._step, "test_psnr": psnr, "n": n}
            self._log({**row, "seconds": round(self.seconds(), 3), "measured_in": round(seconds, 3)})

    def refined(self, step: int, change: Change | None, n: int) -> None:
        if change is not None and self._log is not None:
            self._log({"step": step, **asdict(change), "n": n})

    def loss_was(self, loss: float) -> None:
        """Of the next step; they come in order, but maybe late."""
        self.loss = loss if self.loss is None else self.loss + 0.01 * (loss - self.loss)

    def step(self, step: int, n: int, *, total: int, last: bool) -> None:
        self._step, self._n = step, n
        now = time.perf_counter()
        if now - self._shown > REPORT_SECONDS or last:
            self._shown = now
            rate = (step - self._first) / max(1e-9, self._here())
            fields: dict[str, float | int | str] = {"it/s": round(rate, 1)}
            if self.loss is not None:
                fields["loss"] = round(self.loss, 4)
            if self.psnr is not None:
                fields["psnr"] = round(self.psnr, 2)
            eta = time.strftime("%H:%M:%S", time.gmtime((total - step) / max(1e-9, rate)))
            self._progress.advance(step, **fields, n=n, eta=eta)

    def preview(self, psnr: float | None) -> None:
        self.psnr = psnr
        if self._log is not None:
            row = {"step": self._step, "loss": self.loss, "psnr": psnr, "n": self._n}
            self._log({**row, "seconds": round(self.seconds(), 3)})

    def finish(self, n: int) -> None:
        rate = (self._step - self._first) / max(1e-9, self._here())
        psnr = "" if self.psnr is None else f", held-out PSNR {self.psnr:.2f} dB"
        beside = f"; {self._measuring:.1f} s beside for the test views" if self._measuring else ""
        self._progress.finish(f"{n} Gaussians after {self._step} steps at {rate:.1f} it/s{psnr}{beside}")


class _Saver:
    """Checkpoints of one training, and the way back from them."""

    def __init__(
        self,
        folder: Path,
        every_seconds: float,
        adam: GaussianAdam,
        densifier: Densifier,
        identity: dict[str, Any],
        check: Callable[[], None],
    ) -> None:
        """``check`` raises a TrainingError where what has been trained is of no use."""
        self.seconds = 0.0  # of training before this process
        self.saved_step = 0
        self.refinement_waits = False  # of the checkpoint that was taken up: it was saved between update and refinement
        self._folder, self._every = folder, every_seconds
        self._adam, self._densifier, self._identity, self._check = adam, densifier, identity, check
        self._last = time.perf_counter()
        self._cost = 0.0  # s, of the last save

    def resume(self, latest: Latest) -> tuple[str, ...]:
        """Take up a checkpoint, if there is one. Returns notes for the user."""
        found = latest.checkpoint
        if found is None:
            return latest.notes
        there, here = _flat(found.meta["training"]), _flat(self._identity)
        changed = [
            f"{key} ({there.get(key)} → {here.get(key)})"
            for key in sorted(there.keys() | here.keys())
            if there.get(key) != here.get(key)
        ]
        if changed:
            raise ConfigError(
                f"{found.path} belongs to another training. Different now: {', '.join(changed)}.",
                hint="Use another output folder, or remove these checkpoints.",
                changed=changed,
            )
        device = self._adam.gaussians.means.device
        self._adam.load_state(found.tensors, found.step)
        self._densifier.load_state(
            {k.removeprefix("densify."): v.to(device) for k, v in found.tensors.items() if k.startswith("densify.")}
        )
        self.saved_step, self.seconds = found.step, found.meta["seconds"]
        self.refinement_waits = found.meta.get("refinement_waits", False)
        return (*latest.notes, f"Resumed after step {found.step}.")

    def is_due(self) -> bool:
        return time.perf_counter() - self._last >= max(self._every, self._cost / CHECKPOINT_SHARE)

    def save_before_error(self, seconds: float, refinement_waits: bool) -> int:
        """Save what is not saved yet, if that can be done. Returns the step of the newest checkpoint, 0 for none."""
        if self._adam.steps > self.saved_step:
            import torch

            # The error that is on its way says what is wrong, and the checkpoint before is still there.
            with suppress(SplatinitError, OSError, MemoryError, torch.OutOfMemoryError):
                self.save(seconds, refinement_waits)
        return self.saved_step

    def save(self, seconds: float, refinement_waits: bool = False) -> None:
        from .io.checkpoints import save_checkpoint

        began = time.perf_counter()
        # A checkpoint that cannot be continued must not push out one that can.
        self._check()
        _check_finite(self._adam.gaussians, f"after step {self._adam.steps}")
        state = {f"densify.{k}": v for k, v in self._densifier.state().items()}
        meta = {"training": self._identity, "seconds": seconds}
        if refinement_waits:
            meta["refinement_waits"] = True
        save_checkpoint(self._folder, self._adam.steps, {**self._adam.state(), **state}, meta)
        self.saved_step = self._adam.steps
        self._last = time.perf_counter()
        self._cost = self._last - began


def _identity(
    scene: Scene,
    gaussians: Gaussians,
    rasterizer: Rasterizer,
    settings: RasterSettings,
    densifier: Densifier,
    config: TrainConfig,
    seed: int,
    depth_priors: Mapping[str, DepthPrior],
) -> dict[str, Any]:
    """Everything that a training's numbers follow from, as plain values: checkpoints of another are not taken up."""
    from .io.checkpoints import digest

    views = hashlib.sha256()
    for view in scene.train:
        views.update(f"{view.name}\0{view.camera.width}\0{view.camera.height}\0".encode())
        views.update(view.camera.K.tobytes() + view.camera.cam_from_world.tobytes())
    priors = hashlib.sha256()
    for name in sorted(depth_priors):
        priors.update(name.encode())
        for array in (depth_priors[name].depth, depth_priors[name].confidence):
            priors.update(np.ascontiguousarray(array).tobytes())
    silent = ("image_cache_mb", "checkpoint_seconds", "preview")  # change cost and reports, not numbers
    return {
        "seed": seed,
        "train": {k: v for k, v in asdict(config).items() if k not in silent},
        "raster": {"backend": rasterizer.name, **asdict(settings)},
        "densify": {"name": densifier.name, **(asdict(densifier.config) if densifier.config else {})},
        "training views": views.hexdigest()[:16],
        "background": list(scene.background) if scene.background else None,
        "depth priors": priors.hexdigest()[:16] if depth_priors else None,
        "initial Gaussians": digest({k: v.cpu() for k, v in gaussians.tensors().items()})[:16],
    }


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item})
    return flat


def _peak_memory_mb() -> float:
    """Largest resident size of this process so far."""
    import resource
    import sys

    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
