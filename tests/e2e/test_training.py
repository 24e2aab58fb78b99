"""The trainer on a tiny scene in memory."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from tiny import MemoryPhoto

from splatinit import decoding, native
from splatinit.densify.adc import Adc, AdcConfig
from splatinit.densify.edit import rebuild
from splatinit.densify.none import NoDensify
from splatinit.densify.prune import Prune, PruneConfig
from splatinit.errors import ConfigError, OutOfMemory, SceneError, ShapeError, TrainingError
from splatinit.io.checkpoints import digest
from splatinit.progress import Silent
from splatinit.training import TrainConfig, train
from splatinit.types import DepthPrior, Gaussians, Pixels, Scene, View


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with tiny.threads(1):
        yield


def run(scene: Scene, model: Gaussians | None = None, *, densifier=None, seed: int = 0, steps: int = 60, **more):
    settings = {k: more.pop(k) for k in list(more) if k in TrainConfig.__dataclass_fields__}
    return train(
        scene,
        tiny.random_model(30, seed=1) if model is None else model,
        rasterizer=more.pop("rasterizer", None) or tiny.rasterizer(),
        settings=tiny.SETTINGS,
        densifier=densifier or NoDensify(),
        config=TrainConfig(steps=steps, **settings),
        seed=seed,
        **more,
    )


class Recorder:
    """A rasterizer that notes what it is asked for."""

    name = "recorder"

    def __init__(self) -> None:
        self.inner, self.calls = tiny.rasterizer(), []

    def render(self, gaussians, camera, **kwargs):
        self.calls.append({"camera": camera, **kwargs})
        return self.inner.render(gaussians, camera, **kwargs)


@pytest.mark.parametrize("alpha", [False, True])
def test_it_learns(alpha):
    rows = []
    result = run(tiny.scene(alpha=alpha), steps=150, log=rows.append)
    looks = [row for row in rows if "psnr" in row]
    assert looks[-1]["psnr"] > looks[0]["psnr"] + 2
    assert looks[-1]["loss"] < 0.75 * looks[0]["loss"]
    assert (result.steps_done, result.interrupted, result.psnr) == (150, False, looks[-1]["psnr"])
    assert looks[-1]["step"] == 150 and len(looks) == 50
    json.dumps(rows, allow_nan=False)
    assert result.peak_memory_mb > 50
    assert not result.gaussians.means.requires_grad


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    scene, model = tiny.scene(), tiny.random_model(20, seed=3)
    before = digest(model.tensors())
    hashes = [digest(run(scene, model, seed=seed, steps=20).gaussians.tensors()) for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert digest(model.tensors()) == before


def test_reports_and_caches_change_no_number():
    scene = tiny.scene()
    plain = run(scene, steps=20)
    other = run(scene, steps=20, preview=1.0, image_cache_mb=0)
    no_test = run(replace(scene, test=()), steps=20)
    assert digest(plain.gaussians.tensors()) == digest(other.gaussians.tensors())
    assert digest(plain.gaussians.tensors()) == digest(no_test.gaussians.tensors())
    assert no_test.psnr is None


def test_each_view_is_used_once_before_any_is_used_again():
    recorder, scene = Recorder(), tiny.scene()
    run(replace(scene, test=()), rasterizer=recorder, steps=15)
    names = {id(view.camera): view.name for view in scene.train}
    used = [names[id(call["camera"])] for call in recorder.calls]
    epochs = [used[i : i + 5] for i in (0, 5, 10)]
    assert all(sorted(epoch) == sorted(names.values()) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_it_asks_for_statistics_depth_and_sh_only_when_they_are_used():
    recorder, scene = Recorder(), replace(tiny.scene(), test=())
    name = scene.train[0].name
    prior = DepthPrior(name, np.full((24, 28), 4.0, np.float32), np.ones((24, 28), np.float32))
    densifier = Adc(AdcConfig(begin=0.1, end=0.5, grow_gradient=10.0))
    run(
        scene,
        densifier=densifier,
        rasterizer=recorder,
        steps=60,
        sh_interval=0.5,
        depth_until=0.5,
        depth_priors={name: prior},
    )
    calls = recorder.calls
    assert [bool(call["with_stats"]) for call in calls] == [step < 30 for step in range(1, 61)]
    assert [call["sh_degree"] for call in calls] == [0] * 30 + [1] * 30
    expected = [call["camera"] is scene.train[0].camera and done < 30 for done, call in enumerate(calls)]
    assert [call["with_depth"] for call in calls] == expected and sum(expected) == 6


@pytest.mark.parametrize(
    ("coefficients", "degrees"), [([], [0, 1, 2, 3]), ([2], [1, 1, 2, 3]), ([0, 7], [2, 2, 2, 3]), ([14], [3] * 4)]
)
def test_sh_degrees_that_the_start_brings_are_there_from_the_first_step(coefficients, degrees):
    model, recorder = tiny.random_model(30, seed=1, sh_degree=3), Recorder()
    model.shN[3, coefficients, 1] = 0.01
    run(replace(tiny.scene(), test=()), model, rasterizer=recorder, steps=4, sh_interval=0.25)
    assert [call["sh_degree"] for call in recorder.calls] == degrees


def test_sh_degrees_wait_for_the_end_of_their_hold():
    model, recorder = tiny.random_model(30, seed=1, sh_degree=3), Recorder()
    # As in RAIN-GS, where the hold is 4 intervals: the first degree after 5 of them.
    run(replace(tiny.scene(), test=()), model, rasterizer=recorder, steps=10, sh_interval=0.1, sh_hold=0.4)
    assert [call["sh_degree"] for call in recorder.calls] == [0] * 5 + [1, 2, 3, 3, 3]


def test_the_low_pass_filter_follows_the_number_of_gaussians_and_ends():
    class Halving(NoDensify):
        """Leaves half of the Gaussians after step 5."""

        def refine(self, step, adam, random, **more):
            if step == 5:
                rebuild(adam, torch.arange(15), {k: v[:0].detach() for k, v in adam.gaussians.tensors().items()})

    def filters(**settings) -> list[float]:
        recorder = Recorder()
        scene = replace(tiny.scene(), test=())
        run(scene, rasterizer=recorder, densifier=Halving(), steps=20, **settings)
        return [call["settings"].eps2d for call in recorder.calls]

    assert filters() == [0.3] * 20
    # Photos of 28 × 24 px: 672 / (9 π 30) = 0.792, twice as much for 15 Gaussians; the last half is as drawn.
    assert filters(low_pass=300) == pytest.approx([0.79224] * 5 + [1.58448] * 5 + [0.3] * 10, rel=1e-4)
    assert filters(low_pass=1.0, low_pass_until=0.3) == pytest.approx([0.79224] * 5 + [1.0] + [0.3] * 14, rel=1e-4)
    # Half of the sides, a quarter of the filter: what is left is less than 0.3.
    small = filters(low_pass=300, resolution=0.5, resolution_until=1.0)
    assert small[:3] == pytest.approx([0.3] * 3) and small[9] > 0.3
    # RAIN-GS: 10 Gaussians at 1237×822 px reach the cap, a million have none.
    config = TrainConfig(steps=30_000, low_pass=300.0)
    assert [config.eps2d_after(0, n, 1237, 822, 0.3) for n in (10, 1_000_000)] == [300.0, 0.3]
    assert config.eps2d_after(14_999, 10_000, 1237, 822, 0.3) == pytest.approx(1237 * 822 / (9 * np.pi * 10_000))
    assert config.eps2d_after(15_000, 10, 1237, 822, 0.5) == 0.5


def test_positions_keep_the_rate_of_the_end_of_their_hold_and_decay_from_there():
    def rates(**settings) -> list[float]:
        seen = []

        class Noting(NoDensify):
            def refine(self, step, adam, random, **more):
                seen.append(adam.learning_rates["means"] / scene.extent)

        run(scene, densifier=Noting(), steps=10, lr_means=1e-3, **settings)
        return seen

    scene = tiny.scene()
    decay = [1e-3 * 0.01 ** (done / 10) for done in range(10)]
    assert rates() == pytest.approx(decay)
    assert rates(lr_means_hold=0.5) == pytest.approx([1e-4] * 6 + decay[6:])  # √0.01 = 0.1 at half of the steps
    assert rates(lr_means_hold=1.0) == pytest.approx([1e-5] * 10)
    # EDGS: 1.6e-4 · 10^(−2 · 8/30) for the first 8000 of 30 000 steps.
    config = TrainConfig(steps=30_000, lr_means_hold=8 / 30)
    held = [config.lr_means * config.lr_means_factor(done) for done in (0, 8000, 8001)]
    assert held[0] == held[1] == pytest.approx(4.69e-5, rel=1e-3) and held[2] < held[1]


def test_pruning_learns_with_fewer_and_fewer_gaussians():
    rows, model = [], tiny.random_model(60, seed=1)
    model.logit_opacities[:20] = -5.5  # 0.4 %
    densifier = Prune(PruneConfig(every=0.1, min_every_steps=1, fade=0.97, min_fade_steps=5))
    result = run(tiny.scene(), model, densifier=densifier, steps=200, log=rows.append)
    looks, changes = ([row for row in rows if key in row] for key in ("psnr", "pruned"))
    assert looks[-1]["psnr"] > looks[0]["psnr"] + 2
    assert [row["step"] for row in changes] == [20, 40, 60, 80, 99]
    assert changes[0]["pruned"] >= 1 and len(result.gaussians) == 60 - sum(row["pruned"] for row in changes)
    counts = [row["n"] for row in changes]
    assert counts == sorted(counts, reverse=True) and 10 < counts[-1] < 60
    assert all(row["cloned"] == row["split"] == 0 and not row["opacities_reset"] for row in changes)


@pytest.mark.parametrize("opacity", [3.0, -9.0])
def test_a_single_gaussian_is_trained_or_said_to_be_gone(opacity):
    model = tiny.random_model(1, seed=1)
    model.logit_opacities.fill_(opacity)
    densifier = Prune(PruneConfig(every=0.1, min_every_steps=1))
    if opacity > 0:
        assert len(run(tiny.scene(), model, densifier=densifier, steps=40).gaussians) == 1
    else:
        with pytest.raises(TrainingError, match="No Gaussians are left after step 4: all were pruned"):
            run(tiny.scene(), model, densifier=densifier, steps=40)


def test_a_depth_prior_pulls_the_depth():
    scene, model = tiny.scene(), tiny.random_model(30, seed=1)
    view = scene.train[0]

    def error(result) -> float:
        with torch.no_grad():
            render = tiny.rasterizer().render(result.gaussians, view.camera, settings=tiny.SETTINGS, with_depth=True)
        covered = render.alpha > 0.5
        return float((render.depth - 3.5).abs()[covered].mean())

    # At another size than the view's, and with a hole: both are answered.
    depth = np.full((12, 14), 3.5, np.float32)
    depth[:3, :3] = 0.0
    priors = {v.name: DepthPrior(v.name, depth, np.ones_like(depth)) for v in scene.train[:1]}
    more = {"steps": 150, "lr_means": 2e-3, "depth_until": 1.0}
    without = run(scene, model, **more)
    ignored = run(scene, model, depth_priors=priors, depth_weight=0.0, **more)
    with_prior = run(scene, model, depth_priors=priors, depth_weight=20.0, **more)
    assert digest(without.gaussians.tensors()) == digest(ignored.gaussians.tensors())
    assert error(with_prior) < 0.8 * error(without)


def test_backgrounds_of_photos_with_alpha():
    recorder, scene = Recorder(), tiny.scene(alpha=True)
    run(replace(scene, test=()), rasterizer=recorder, steps=8)
    colours = torch.stack([call["background"] for call in recorder.calls])
    assert colours.std(dim=0).min() > 0.05 and colours.min() >= 0 and colours.max() <= 1
    recorder = Recorder()
    run(scene, rasterizer=recorder, steps=3, random_background=False)
    assert all(call["background"].tolist() == [1.0, 1.0, 1.0] for call in recorder.calls)
    recorder = Recorder()
    run(replace(tiny.scene(), test=()), rasterizer=recorder, steps=3)
    assert all(call["background"] is None for call in recorder.calls)


# ------------------------------------------------------------------------------------------------------------ masks
def with_masks(scene: Scene, masks: dict[int, np.ndarray], patch: int | None = None) -> Scene:
    """The scene with masks for some training views, and photos that show ``patch`` (a grey) where these are 0."""
    train = list(scene.train)
    for index, mask in masks.items():
        pixels = train[index].pixels()
        rgb = pixels.rgb if patch is None else np.where(mask[..., None] > 0, pixels.rgb, np.uint8(patch))
        photo = MemoryPhoto(train[index].name, Pixels(rgb, pixels.alpha, mask))
        train[index] = replace(train[index], photo=photo)
    return replace(scene, train=tuple(train))


def hole() -> np.ndarray:
    mask = np.full((24, 28), 255, np.uint8)
    mask[6:15, 9:22] = 0
    return mask


@pytest.mark.parametrize("alpha", [False, True])
def test_what_is_under_a_mask_changes_no_number(alpha):
    plain, masks = tiny.scene(alpha=alpha), dict.fromkeys(range(5), hole())
    adc = AdcConfig(begin=0.0, end=0.9, every=0.2, min_every_steps=1, grow_gradient=1e-5, max_count=50)
    runs = [with_masks(plain, masks), with_masks(plain, masks, 0), with_masks(plain, masks, 255), plain]
    hashes = [digest(run(scene, densifier=Adc(adc), steps=40).gaussians.tensors()) for scene in runs]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]
    whole = with_masks(plain, dict.fromkeys(range(5), np.full((24, 28), 255, np.uint8)))
    assert digest(run(whole, densifier=Adc(adc), steps=40).gaussians.tensors()) == hashes[3]


def test_a_view_that_is_masked_completely_passes_its_turns_on():
    recorder, notes = Recorder(), []
    scene = replace(tiny.scene(), test=())
    blind = with_masks(scene, {1: np.zeros((24, 28), np.uint8), 3: np.zeros((24, 28), np.uint8)})

    class Told(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    result = run(blind, rasterizer=recorder, steps=15, progress=Told())
    used = [next(view.name for view in scene.train if view.camera is call["camera"]) for call in recorder.calls]
    assert len(used) == 15 and set(used) == {"00.png", "02.png", "04.png"}
    assert sorted(result.notes) == sorted(notes) and len(notes) == 2
    assert notes[0].startswith("'0") and "masked completely" in notes[0]
    nothing = with_masks(scene, dict.fromkeys(range(5), np.zeros((24, 28), np.uint8)))
    with pytest.raises(TrainingError, match="masks of all 5 training views leave no pixel"):
        run(nothing)


def test_masked_pixels_hide_a_depth_prior_too():
    scene = with_masks(tiny.scene(), dict.fromkeys(range(5), hole()))
    depth = np.full((24, 28), 3.5, np.float32)
    wrong = np.where(hole() > 0, depth, 100.0).astype(np.float32)
    results = [
        run(scene, depth_priors={v.name: DepthPrior(v.name, d, np.ones_like(d)) for v in scene.train}, depth_weight=5.0)
        for d in (depth, wrong)
    ]
    assert len({digest(result.gaussians.tensors()) for result in results}) == 1


def test_the_look_at_a_held_out_view_is_over_what_counts():
    scene, model = tiny.scene(), tiny.random_model(12, seed=5)  # the model that the photos show
    view = scene.test[0]
    wrong = np.where(hole()[..., None] > 0, view.pixels().rgb, 255)
    masked = replace(view, photo=MemoryPhoto(view.name, Pixels(wrong, None, hole())))
    blind = replace(view, photo=MemoryPhoto(view.name, Pixels(wrong, None, hole() * 0)))
    more = {"steps": 1, "lr_means": 0.0, "lr_scales": 0.0, "lr_quats": 0.0, "lr_sh0": 0.0, "lr_opacities": 0.0}
    assert run(replace(scene, test=(masked,)), model, **more).psnr > 50
    assert run(replace(scene, test=(blind, masked)), model, **more).psnr > 50
    assert run(replace(scene, test=(blind,)), model, **more).psnr is None


def test_a_view_does_not_vote_on_gaussians_that_its_mask_hides():
    scene, seen = with_masks(tiny.scene(), dict.fromkeys(range(5), hole())), []

    class Watching(NoDensify):
        def wants_stats(self, step):
            return ("v_means2d",)

        def observe(self, step, aux, camera):
            seen.append(tuple(t.clone() for t in (aux.visible, aux.means2d.detach(), aux.v_means2d, aux.radii)))

    run(replace(scene, test=()), densifier=Watching(), steps=5)
    hidden = 0
    for visible, means2d, v_means2d, radii in seen:
        column, row = (means2d[:, i].long().clamp(0, side - 1) for i, side in ((0, 28), (1, 24)))
        masked = torch.from_numpy(hole() == 0)[row, column]
        moved = (v_means2d != 0).any(dim=1)
        assert torch.equal(visible, (radii > 0) & (moved | ~masked))
        hidden += int(((radii > 0) & ~visible).sum())
    assert hidden > 0


def test_the_profile_adds_up_to_the_time_of_the_training():
    began = time.perf_counter()
    result = run(tiny.scene(), steps=40)
    taken = time.perf_counter() - began
    profile = result.profile
    assert profile.steps == 40
    assert {"photos", "step", "densify", "report", "checkpoint"} <= profile.seconds.keys()
    assert min(profile.seconds.values()) > -1e-4  # stages lie inside their lap
    assert result.seconds <= sum(profile.seconds.values()) + 0.01 <= taken + 0.02
    if native.available():
        assert profile.seconds["blend_vjp"] > 0


# ----------------------------------------------------------------------------------------------------- photos, memory
def test_where_decoded_photos_wait_changes_no_number(tmp_path):
    scene = tiny.scene(alpha=True)
    hashes = [
        digest(run(scene, steps=30, image_cache_mb=mb, checkpoints=folder).gaussians.tensors())
        for mb, folder in ((100, None), (0, None), (0, tmp_path))
    ]
    assert len(set(hashes)) == 1


def test_a_photo_that_vanishes_costs_nothing_that_was_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "DISK_SHARE", 0.0)  # or it would not be missed
    scene = replace(tiny.scene(), test=())
    lost, loads = scene.train[2].photo, []

    def load(width, height):
        loads.append(1)
        if 3 <= len(loads) <= 5:
            raise FileNotFoundError(2, "No such file or directory")
        return lost.pixels

    object.__setattr__(lost, "load", load)
    more = {"steps": 30, "image_cache_mb": 0, "densifier": Adc(AdcConfig(begin=0.0, every=0.2, min_every_steps=1))}
    with pytest.raises(SceneError, match=r"'02.png' was there when the scene was read") as caught:
        run(scene, checkpoints=tmp_path / "c", **more)
    saved = max((tmp_path / "c").glob("step_*"))
    step = int(saved.stem.removeprefix("step_"))
    assert step >= 10
    assert caught.value.hint.endswith(f"Nothing is lost: the same command goes on after step {step}.")
    loads[:] = [1] * 10  # the disk is back
    object.__setattr__(scene.train[2].photo, "load", load)
    resumed = run(scene, checkpoints=tmp_path / "c", **more)
    assert any(f"Resumed after step {step}" in note for note in resumed.notes)
    whole = run(replace(tiny.scene(), test=()), **more)
    assert digest(resumed.gaussians.tensors()) == digest(whole.gaussians.tensors())


def test_without_checkpoints_a_photo_that_vanishes_is_named_all_the_same():
    scene = replace(tiny.scene(), test=())

    def load(width, height):
        raise OSError(5, "Input/output error")

    object.__setattr__(scene.train[0].photo, "load", load)
    with pytest.raises(SceneError, match="'00.png' .* cannot be read now: Input/output error") as caught:
        run(scene)
    assert "goes on" not in caught.value.hint


def test_an_allocation_that_fails_in_a_step_is_out_of_memory_and_saved(tmp_path):
    class Full(Recorder):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def render(self, *args, **kwargs):
            render = super().render(*args, **kwargs)
            if len(self.calls) == 7:
                raise self.error
            return render

    scene = replace(tiny.scene(), test=())
    torchs = RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried")
    for index, error in enumerate((MemoryError(), torchs)):
        with pytest.raises(OutOfMemory, match="no memory for its next step") as caught:
            run(scene, rasterizer=Full(error), checkpoints=tmp_path / str(index))
        assert "goes on after step 6" in caught.value.hint and "max-size" in caught.value.hint
    with pytest.raises(RuntimeError, match="of another kind"):
        run(scene, rasterizer=Full(RuntimeError("of another kind")), checkpoints=tmp_path / "other")
    assert not (tmp_path / "other").exists() or not list((tmp_path / "other").iterdir())


def test_empty_and_emptied_models_are_refused():
    scene = tiny.scene()
    with pytest.raises(TrainingError, match="0 Gaussians"):
        run(scene, tiny.random_model(0, seed=0))
    with pytest.raises(TrainingError, match="no training view"):
        run(replace(scene, train=()))
    faint = tiny.random_model(10, seed=0)
    faint.logit_opacities.fill_(-9.0)
    with pytest.raises(TrainingError, match="No Gaussians are left after step 10"):
        run(scene, faint, densifier=Adc(AdcConfig(begin=0.0, every=1 / 6, min_every_steps=1)))
    with pytest.raises(TrainingError, match="No Gaussians are left after step 10"):
        run(scene, faint, densifier=Prune(PruneConfig(every=1 / 6, min_every_steps=1)))


def test_a_loss_that_is_not_finite_names_step_and_view():
    class Broken(Recorder):
        def render(self, *args, **kwargs):
            render = super().render(*args, **kwargs)
            return replace(render, rgb=render.rgb * (float("nan") if len(self.calls) == 4 else 1.0))

    with pytest.raises(TrainingError, match=r"The loss at step 4 \(view '0\d.png'\) is nan"):
        run(replace(tiny.scene(), test=()), rasterizer=Broken())


def test_gaussians_that_are_not_finite_are_named():
    model = tiny.random_model(10, seed=0)
    model.sh0[3] = float("nan")
    with pytest.raises(TrainingError, match=r"1 of 10 Gaussians have non-finite sh0 before .* number 3"):
        run(tiny.scene(), model)
    with pytest.raises(TrainingError, match=r"non-finite means after step 1"):
        run(tiny.scene(), lr_means=1e38)


def test_gaussians_out_of_sight_do_no_harm():
    model = tiny.random_model(10, seed=0)
    model.means[:, 1] += 1000.0
    result = run(tiny.scene(), model, steps=5)
    assert all(torch.isfinite(t).all() for t in result.gaussians.tensors().values())


def test_a_photo_of_another_size_than_its_camera_is_refused():
    scene = tiny.scene()
    photo = MemoryPhoto("odd.png", Pixels(np.zeros((5, 5, 3), np.uint8)))
    object.__setattr__(photo, "load", lambda width, height: photo.pixels)
    odd = View("odd.png", scene.train[0].camera, photo)
    with pytest.raises(ShapeError, match="odd.png"):
        run(replace(scene, train=(odd,)))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"lr_means": -1.0}, {"ssim_weight": 1.5}, {"lr_means_end": 0.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        TrainConfig(**settings)
