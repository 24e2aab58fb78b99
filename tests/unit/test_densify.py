from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import camera, random_model

from splatinit.densify import DENSIFIERS
from splatinit.densify.adc import Adc, AdcConfig, logit, split_in_two, strongest
from splatinit.densify.base import Change
from splatinit.densify.edit import cap_opacities, rebuild
from splatinit.densify.prune import Prune, PruneConfig
from splatinit.errors import ConfigError, OutOfMemory
from splatinit.optim import GaussianAdam
from splatinit.types import GAUSSIAN_FIELDS, Gaussians

CAMERA = camera(0.0)  # 28 × 24 px
RATES = dict.fromkeys(GAUSSIAN_FIELDS, 1e-3)


def model(scales: list[float], opacities: list[float]) -> Gaussians:
    """Gaussians with the given largest scale and opacity."""
    gaussians = random_model(len(scales), seed=4)
    size = torch.tensor(scales)[:, None] * torch.tensor([1.0, 0.5, 0.25])
    return Gaussians(
        **{
            **gaussians.tensors(),
            "log_scales": size.log(),
            "logit_opacities": torch.tensor([logit(o) for o in opacities]),
        }
    )


def optimiser(gaussians: Gaussians) -> GaussianAdam:
    """With moments that name their row: row i holds i + 1."""
    adam = GaussianAdam(gaussians, RATES)
    for moments in (adam.exp_avg, adam.exp_avg_sq):
        for tensor in moments.values():
            tensor += torch.arange(1.0, len(tensor) + 1).reshape(-1, *[1] * (tensor.ndim - 1))
    return adam


def seen(gradients: list[float], visible: list[bool] | None = None) -> SimpleNamespace:
    """The aux of a render whose 2D gradients have the given norms in normalised device units, all along x."""
    v = torch.zeros(len(gradients), 2)
    v[:, 0] = torch.tensor(gradients) / (CAMERA.width / 2)
    mask = torch.tensor([True] * len(gradients) if visible is None else visible)
    return SimpleNamespace(v_means2d=v, v_means2d_abs=4 * v, visible=mask)


def adc(steps: int = 1000, extent: float = 1.0, **settings) -> Adc:
    densifier = Adc(
        AdcConfig(**{"begin": 0.0, "end": 1.0, "every": 0.1, "reset": 0.5, "min_reset_steps": 1, **settings})
    )
    densifier.begin(steps=steps, extent=extent)
    return densifier


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------------------------- edit
def test_rebuild_keeps_rows_with_their_moments_and_starts_new_ones_from_zero():
    gaussians, new = random_model(5, 0), random_model(2, 1)
    adam = optimiser(gaussians)
    sum(t.sum() for t in adam.gaussians.tensors().values()).backward()
    rebuild(adam, torch.tensor([0, 2, 3]), new.tensors())
    for name in GAUSSIAN_FIELDS:
        tensor = getattr(adam.gaussians, name)
        assert tensor.is_leaf and tensor.requires_grad and tensor.grad is None and tensor.is_contiguous()
        assert torch.equal(tensor, torch.cat([getattr(gaussians, name)[[0, 2, 3]], getattr(new, name)]))
        for moments in (adam.exp_avg, adam.exp_avg_sq):
            first = moments[name].reshape(5, -1)[:, :1] if moments[name].numel() else torch.zeros(5, 0)
            assert first.flatten().tolist() in ([1.0, 3.0, 4.0, 0.0, 0.0], [])
            assert moments[name].shape == tensor.shape


def test_cap_opacities_forgets_all_their_moments_and_no_others():
    adam = optimiser(model([0.1] * 3, [0.9, 0.005, 0.5]))
    cap_opacities(adam, logit(0.01))
    assert torch.allclose(adam.gaussians.opacities, torch.tensor([0.01, 0.005, 0.01]))
    assert adam.exp_avg["logit_opacities"].abs().max() == adam.exp_avg_sq["logit_opacities"].abs().max() == 0
    assert adam.exp_avg["means"][:, 0].tolist() == [1.0, 2.0, 3.0]
    assert adam.gaussians.logit_opacities.requires_grad


# ----------------------------------------------------------------------------------------------------------------- adc
def test_small_ones_are_cloned_large_ones_split_calm_ones_stay():
    gaussians = model([0.005, 0.05, 0.005, 0.05], [0.5] * 4)
    adam, densifier = optimiser(gaussians), adc()
    densifier.observe(100, seen([3e-4, 3e-4, 1e-4, 1e-4]), CAMERA)
    change = densifier.refine(100, adam, generator())
    assert (change.cloned, change.split, change.pruned, change.opacities_reset) == (1, 1, 0, False)
    # Kept rows 0, 2, 3 in order, then the clone of 0, then the two halves of 1.
    result = adam.gaussians
    assert len(result) == 6
    assert torch.equal(result.means[:4], gaussians.means[[0, 2, 3, 0]])
    assert adam.exp_avg["means"][:, 0].tolist() == [1.0, 3.0, 4.0, 0.0, 0.0, 0.0]
    halves = result.map(lambda t: t[4:])
    assert torch.allclose(halves.scales, gaussians.scales[1] / 1.6)
    assert torch.equal(halves.logit_opacities, gaussians.logit_opacities[[1, 1]])
    assert torch.equal(halves.quats, gaussians.quats[[1, 1]])
    assert not torch.equal(halves.means[0], halves.means[1])


def test_gradients_are_averaged_over_the_steps_that_saw_the_gaussian():
    adam, densifier = optimiser(model([0.005] * 3, [0.5] * 3)), adc()
    densifier.observe(98, seen([3e-4, 3e-4, 0.0], [True, True, False]), CAMERA)
    densifier.observe(99, seen([0.0, 0.0, 0.0], [True, False, False]), CAMERA)  # row 0: 1.5e-4, row 1: 3e-4
    change = densifier.refine(100, adam, generator())
    assert change.cloned == 1
    assert torch.equal(adam.gaussians.means[3], adam.gaussians.means[1])


def test_both_axes_are_scaled_to_device_units():
    densifier = adc()
    aux = seen([0.0])
    aux.v_means2d = torch.tensor([[3e-4, -4e-4]])
    densifier.observe(1, aux, CAMERA)
    expected = math.hypot(3e-4 * CAMERA.width / 2, 4e-4 * CAMERA.height / 2)
    assert densifier.state()["gradient_sum"].item() == pytest.approx(expected, rel=1e-5)


def test_absgrad_reads_the_absolute_gradient():
    adam, densifier = optimiser(model([0.005] * 2, [0.5] * 2)), adc(absgrad=True, grow_gradient=8e-4)
    densifier.observe(99, seen([3e-4, 1e-4]), CAMERA)  # times 4 in the fake: 1.2e-3 and 4e-4
    assert densifier.refine(100, adam, generator()).cloned == 1


def test_faint_ones_are_pruned_and_do_not_grow():
    adam, densifier = optimiser(model([0.005] * 3, [0.004, 0.006, 0.5])), adc()
    densifier.observe(99, seen([1.0, 0.0, 0.0]), CAMERA)
    change = densifier.refine(100, adam, generator())
    assert (change.cloned, change.pruned, len(adam.gaussians)) == (0, 1, 2)
    assert adam.exp_avg["quats"][:, 0].tolist() == [2.0, 3.0]


def test_huge_ones_are_pruned_only_after_the_first_reset():
    for step, scale, pruned in ((500, 0.1, 0), (600, 0.1, 1), (600, None, 0)):
        adam, densifier = optimiser(model([0.15, 0.09], [0.5, 0.5])), adc(prune_scale=scale)
        densifier.observe(step - 1, seen([0.0, 0.0]), CAMERA)
        assert densifier.refine(step, adam, generator()).pruned == pruned


def test_halves_that_fit_survive_a_parent_that_does_not():
    # 0.15 / 1.6 < 0.1 < 0.2 / 1.6: the first is split into two that fit, of the second nothing is left.
    adam, densifier = optimiser(model([0.15, 0.2], [0.5, 0.5])), adc(prune_scale=0.1)
    densifier.observe(599, seen([1.0, 1.0]), CAMERA)
    change = densifier.refine(600, adam, generator())
    assert (change.split, change.pruned, len(adam.gaussians)) == (2, 2, 2)
    assert torch.allclose(adam.gaussians.scales.amax(dim=1), torch.tensor(0.15 / 1.6))


def test_rows_that_are_not_numbers_are_pruned():
    gaussians = model([0.005] * 3, [0.5] * 3)
    gaussians.logit_opacities[0] = math.nan
    gaussians.log_scales[1, 2] = math.nan
    adam, densifier = optimiser(gaussians), adc()
    densifier.observe(99, seen([0.0] * 3), CAMERA)
    densifier.refine(100, adam, generator())
    assert adam.exp_avg["quats"][:, 0].tolist() == [3.0]


def test_opacities_are_reset_at_the_interval_and_never_after_the_end():
    densifier = adc(reset=0.2, end=0.5)
    for step, expected in ((200, True), (300, False), (400, True), (500, False), (600, False)):
        adam = optimiser(model([0.005], [0.5]))
        if densifier.wants_stats(step):
            densifier.observe(step, seen([0.0]), CAMERA)
        change = densifier.refine(step, adam, generator())
        assert (change is not None and change.opacities_reset) == expected, step
        assert adam.gaussians.opacities.item() == pytest.approx(0.01 if expected else 0.5)


def test_intervals_are_fractions_of_the_steps_but_not_shorter_than_their_minima():
    for steps, refined, reset in ((30_000, 100, 3000), (60_000, 200, 6000), (7000, 100, 1000), (2000, 100, None)):
        densifier = Adc()
        densifier.begin(steps=steps, extent=1.0)
        adam, refinements, resets = optimiser(model([0.005], [0.5])), [], []
        for step in range(1, steps + 1):
            if densifier.wants_stats(step) and not densifier.state():
                densifier.observe(step, seen([0.0]), CAMERA)
            change = densifier.refine(step, adam, generator())
            if change is not None:
                refinements.append(step)
                resets += [step] * change.opacities_reset
        assert set(np.diff(refinements).tolist()) == {refined}
        assert steps / 60 < refinements[0] <= steps / 60 + refined and refinements[-1] < steps / 2
        assert resets == ([] if reset is None else list(range(reset, steps // 2, reset))), steps


def test_outside_its_time_nothing_happens_and_nothing_is_asked_for():
    densifier = adc(begin=0.3, end=0.6)
    adam = optimiser(model([0.005], [0.5]))
    assert densifier.wants_stats(1) and densifier.wants_stats(599) and not densifier.wants_stats(600)
    densifier.observe(99, seen([1.0]), CAMERA)
    assert densifier.refine(100, adam, generator()) is None and len(adam.gaussians) == 1
    assert densifier.refine(601, adam, generator()) is None and densifier.state() == {}


def test_the_cap_takes_the_strongest_first_and_is_never_exceeded():
    adam, densifier = optimiser(model([0.005, 0.05, 0.005, 0.05], [0.5] * 4)), adc(max_count=6)
    densifier.observe(99, seen([3e-4, 9e-4, 8e-4, 4e-4]), CAMERA)
    change = densifier.refine(100, adam, generator())
    assert (change.cloned, change.split, len(adam.gaussians)) == (1, 1, 6)
    densifier.observe(199, seen([1.0] * 6), CAMERA)
    change = densifier.refine(200, adam, generator())
    assert (change.cloned, change.split, len(adam.gaussians)) == (0, 0, 6)


@pytest.mark.parametrize(("resolution", "cloned"), [(1.0, 4), (0.99, 4), (0.5, 1), (0.8, 3), (0.1, 0)])
def test_small_photos_grow_their_share_of_pixels_the_strongest_first(resolution, cloned):
    adam, densifier = optimiser(model([0.005] * 5, [0.5] * 5)), adc()
    densifier.observe(99, seen([3e-4, 9e-4, 1e-4, 5e-4, 4e-4]), CAMERA)  # four are above the threshold
    change = densifier.refine(100, adam, generator(), resolution=resolution)
    assert (change.cloned, change.split, change.pruned) == (cloned, 0, 0)
    if cloned == 1:
        assert torch.equal(adam.gaussians.means[5], adam.gaussians.means[1])


def test_strongest_breaks_ties_by_index():
    chosen = strongest(torch.tensor([1.0, 2.0, 2.0, 2.0]), torch.tensor([True, False, True, True]), 1)
    assert chosen.tolist() == [False, False, True, False]


def test_split_draws_from_the_parent_in_its_own_frame():
    m = 20_000
    # 90° about z: the long first axis points along y.
    parents = {
        "means": torch.tensor([[1.0, 2.0, 3.0]]).repeat(m, 1),
        "quats": 3 * torch.tensor([[math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)]]).repeat(m, 1),
        "log_scales": torch.tensor([[0.5, 0.1, 0.02]]).log().repeat(m, 1),
    }
    halves = split_in_two(parents, generator())
    assert torch.allclose(halves["means"].mean(dim=0), torch.tensor([1.0, 2.0, 3.0]), atol=0.02)
    assert torch.allclose(halves["means"].std(dim=0), torch.tensor([0.1, 0.5, 0.02]), rtol=0.03)


def test_the_state_carries_a_refinement_over():
    results = []
    for interrupt in (False, True):
        adam, densifier = optimiser(model([0.005, 0.05], [0.5, 0.5])), adc()
        densifier.observe(98, seen([5e-4, 1e-4]), CAMERA)
        if interrupt:
            state = {k: v.clone() for k, v in densifier.state().items()}
            densifier = adc()
            densifier.load_state(state)
        densifier.observe(99, seen([0.0, 5e-4]), CAMERA)
        densifier.refine(100, adam, generator())
        results.append(adam.gaussians.means)
    assert torch.equal(*results)


@pytest.mark.parametrize(
    "settings", [{"begin": 0.6, "end": 0.5}, {"every": 0.0}, {"prune_opacity": 1.0}, {"max_count": 0}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        AdcConfig(**settings)


# --------------------------------------------------------------------------------------------------------------- prune
def prune(steps: int = 1000, **settings) -> Prune:
    """Removes after every 100th step and fades after every 10th, up to the last."""
    densifier = Prune(PruneConfig(**{"end": 1.0, "every": 0.1, "fade_every": 0.01, **settings}))
    densifier.begin(steps=steps, extent=1.0)
    return densifier


def test_prune_removes_faint_ones_with_their_moments_and_leaves_the_others():
    gaussians = model([0.1] * 5, [0.5, 0.0049, 0.0051, 0.001, 0.9])
    adam = optimiser(gaussians)
    assert prune(fade=1.0).refine(100, adam, generator()) == Change(pruned=2)
    for name in GAUSSIAN_FIELDS:
        tensor = getattr(adam.gaussians, name)
        assert torch.equal(tensor, getattr(gaussians, name)[[0, 2, 4]]) and tensor.is_leaf and tensor.requires_grad
    for moments in (adam.exp_avg, adam.exp_avg_sq):
        assert moments["quats"][:, 0].tolist() == [1.0, 3.0, 5.0]
        assert moments["logit_opacities"].tolist() == [1.0, 3.0, 5.0]


def test_prune_removes_an_opacity_that_is_no_number_and_keeps_one_at_the_limit():
    gaussians = model([0.1] * 3, [0.5, 0.5, 0.5])
    gaussians.logit_opacities[0] = math.nan
    gaussians.logit_opacities[1] = logit(0.25)
    adam = optimiser(gaussians)
    assert prune(fade=1.0, prune_opacity=0.25).refine(100, adam, generator()).pruned == 1
    assert adam.exp_avg["quats"][:, 0].tolist() == [2.0, 3.0]


def test_fading_multiplies_the_odds_of_all_and_keeps_their_moments():
    gaussians = model([0.1] * 3, [0.5, 0.9, 0.1])
    adam, densifier = optimiser(gaussians), prune()
    assert densifier.refine(10, adam, generator()) is None
    opacity = adam.gaussians.opacities.detach().double()
    # 0.5: odds 1 → 0.99, o = 0.99 / 1.99. 0.9: odds 9 → 8.91. 0.1: odds 1/9 → 0.11.
    assert opacity.tolist() == pytest.approx([0.99 / 1.99, 8.91 / 9.91, 0.11 / 1.11], rel=1e-6)
    assert adam.exp_avg["logit_opacities"].tolist() == adam.exp_avg_sq["logit_opacities"].tolist() == [1.0, 2.0, 3.0]
    for name in set(GAUSSIAN_FIELDS) - {"logit_opacities"}:
        assert torch.equal(getattr(adam.gaussians, name), getattr(gaussians, name))
    assert adam.gaussians.logit_opacities.is_leaf and adam.gaussians.logit_opacities.requires_grad


def test_what_falls_below_the_limit_by_fading_goes_at_the_next_removal():
    adam, densifier = optimiser(model([0.1], [0.00502])), prune()
    assert densifier.refine(100, adam, generator()) == Change(pruned=0)  # and fades, to 0.00497
    assert adam.gaussians.opacities.item() == pytest.approx(0.00497, abs=5e-6)
    assert densifier.refine(110, adam, generator()) is None and len(adam.gaussians) == 1
    assert densifier.refine(200, adam, generator()) == Change(pruned=1) and len(adam.gaussians) == 0


def test_when_nothing_is_faint_the_tensors_are_the_same_objects():
    adam = optimiser(model([0.1] * 2, [0.5, 0.6]))
    before = adam.gaussians.tensors()
    assert prune(fade=1.0).refine(100, adam, generator()) == Change()
    assert all(tensor is before[name] for name, tensor in adam.gaussians.tensors().items())


def test_all_may_be_removed():
    for count in (1, 7):
        adam = optimiser(model([0.1] * count, [0.001] * count))
        assert prune().refine(100, adam, generator()) == Change(pruned=count)
        assert len(adam.gaussians) == 0 and all(len(v) == 0 for v in adam.exp_avg.values())


@pytest.mark.parametrize(
    ("steps", "removal", "fading"),
    [(30_000, 100, 10), (60_000, 200, 20), (7000, 100, 10), (1500, 100, 10), (60, None, 10), (15, None, None)],
)
def test_removals_and_fadings_keep_their_intervals_over_the_first_half(steps, removal, fading):
    densifier, adam = Prune(), optimiser(model([0.1], [0.999]))
    densifier.begin(steps=steps, extent=1.0)
    removals, fadings = [], []
    for step in range(1, steps + 1):
        before = adam.gaussians.logit_opacities.item()
        adam.gaussians.logit_opacities.detach().fill_(7.0)  # or the last ones would be so faint that it is removed
        change = densifier.refine(step, adam, generator())
        removals += [step] * (change is not None)
        fadings += [step] * (adam.gaussians.logit_opacities.item() < 7.0)
        assert before > 6.9
    half = (steps - 1) // 2 + 1  # the first step that is not before the half
    regular = set() if removal is None else set(range(removal, half, removal))
    assert removals == sorted(regular | {half - 1})  # and a last one, so that no faint one is left
    assert fadings == ([] if fading is None else list(range(fading, half, fading)))


def test_prune_asks_for_no_statistics_and_has_no_state():
    densifier = prune()
    assert not any(densifier.wants_stats(step) for step in (1, 100, 1000))
    densifier.observe(1, seen([1.0]), CAMERA)
    assert densifier.state() == {}


def test_a_removal_that_is_refused_changes_nothing_and_can_be_made_again():
    def refuse(count):
        raise OutOfMemory("no room")

    gaussians = model([0.1] * 2, [0.5, 0.001])
    adam, densifier = optimiser(gaussians), prune()
    adam.admit = refuse
    with pytest.raises(OutOfMemory, match="no room"):
        densifier.refine(100, adam, generator())
    assert all(torch.equal(tensor, getattr(gaussians, name)) for name, tensor in adam.gaussians.tensors().items())
    adam.admit = lambda count: None
    assert densifier.refine(100, adam, generator()) == Change(pruned=1)
    assert adam.gaussians.opacities.item() == pytest.approx(0.99 / 1.99)


def test_every_registered_densifier_can_be_built_and_names_itself():
    for spec in DENSIFIERS:
        config = DENSIFIERS.config_class(spec.name)
        densifier = DENSIFIERS.load(spec.name)(*([config()] if config else []))
        assert densifier.name == spec.name
        densifier.begin(steps=100, extent=2.0)
        assert densifier.state() == {}
