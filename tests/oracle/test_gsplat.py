"""The backends of gsplat on the CPU: gsplat's own Python over kernels in plain torch (tests/gsplat_kernels.py).

The cases and the comparison are those of every other backend (test_raster.py), where they run on a GPU if there is one.
"""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import test_raster
import torch
from compare import assert_matches
from hypothesis import HealthCheck, given, settings
from strategies import RasterCase, raster_cases

from splatinit.errors import BackendError, MissingExtra, NotBuilt, ShapeError
from splatinit.raster import make_rasterizer
from splatinit.raster.base import RasterSettings

gsplat = pytest.importorskip("gsplat", reason="gsplat is not installed")
import gsplat_kernels  # noqa: E402  (imports nothing of gsplat, but is of no use without it)

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("gsplat", "gsplat-packed")
CASE = RasterCase(seed=3, n=60)


@pytest.fixture(params=NAMES)
def rasterizer(request, monkeypatch: pytest.MonkeyPatch):
    gsplat_kernels.install(monkeypatch)
    return make_rasterizer(request.param)


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The arguments of every call of gsplat.rasterization."""
    calls, real = [], gsplat.rasterization
    monkeypatch.setattr(gsplat, "rasterization", lambda **given: (calls.append(given), real(**given))[1])
    return calls


def drawn(rasterizer, case: RasterCase = CASE, **more):
    gaussians = case.gaussians.map(lambda tensor: tensor.requires_grad_())
    return gaussians, rasterizer.render(gaussians, case.camera, settings=case.settings, **more)


# ------------------------------------------------------------------------------------------------ the oracle's cases
@pytest.mark.parametrize("case", test_raster.CASES, ids=str)
def test_gsplat_equals_the_reference(rasterizer, case: RasterCase) -> None:
    test_raster.check(rasterizer, case)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=raster_cases())
def test_gsplat_equals_the_reference_on_any_case(rasterizer, case: RasterCase) -> None:
    test_raster.check(rasterizer, case)


def test_optional_outputs_do_not_change_the_picture(rasterizer) -> None:
    test_raster.test_optional_outputs_do_not_change_the_picture(rasterizer)


def test_without_a_background_it_is_black(rasterizer) -> None:
    test_raster.test_without_a_background_it_is_black(rasterizer)


@pytest.mark.parametrize("n", [0, 30])
def test_nothing_in_view_is_the_background(rasterizer, n: int) -> None:
    test_raster.test_nothing_in_view_is_the_background(rasterizer, n)


def test_the_given_pose_replaces_the_cameras(rasterizer) -> None:
    test_raster.test_the_given_pose_replaces_the_cameras(rasterizer)


def test_only_what_requires_a_gradient_gets_one(rasterizer) -> None:
    test_raster.test_only_what_requires_a_gradient_gets_one(rasterizer)


def test_wrong_requests_are_refused(rasterizer) -> None:
    test_raster.test_wrong_requests_are_refused(rasterizer)


def test_there_are_statistics_when_only_colours_are_trained(rasterizer) -> None:
    """gsplat's means2d have no gradient of their own then."""
    everywhere = torch.ones(CASE.height, CASE.width, dtype=torch.bool)
    all_trained = test_raster.run(rasterizer, CASE, torch.float32, everywhere).render.aux
    gaussians = CASE.gaussians
    gaussians.sh0.requires_grad_()
    render = rasterizer.render(
        gaussians, CASE.camera, background=CASE.background, with_depth=True, with_stats=True, settings=CASE.settings
    )
    images = (render.rgb, render.alpha, render.depth)
    sum((image * given.float()).sum() for image, given in zip(images, CASE.cotangents(), strict=True)).backward()
    assert render.aux.v_means2d.any()
    for field in ("v_means2d", "v_means2d_abs", "blend_weight"):
        assert_matches(field, getattr(render.aux, field), getattr(all_trained, field), 1e-6)
    assert gaussians.means.grad is None


# --------------------------------------------------------------------------------------------- what gsplat is told
def test_every_argument_is_one_of_gsplats(rasterizer, spied: list[dict]) -> None:
    case = replace(CASE, settings=RasterSettings(antialiased=True, eps2d=0.1))
    _, render = drawn(rasterizer, case, background=case.background, with_depth=True, with_stats=True, sh_degree=1)
    assert render.aux.blend_weight.any()
    known = inspect.signature(gsplat.rendering.rasterization).parameters
    for call in spied:
        assert call.keys() <= known.keys()
    picture, weights = spied
    assert picture["packed"] is weights["packed"] is (rasterizer.name == "gsplat-packed")
    assert picture["rasterize_mode"] == weights["rasterize_mode"] == "antialiased"
    assert picture["eps2d"] == weights["eps2d"] == 0.1
    assert picture["near_plane"] == weights["near_plane"] == 0.01
    assert picture["render_mode"] == "RGB+ED" and picture["absgrad"] is True and picture["distributed"] is False
    # Of the spherical harmonics only those that are evaluated.
    assert picture["sh_degree"] == 1 and picture["colors"].shape == (60, 4, 3)


def test_nothing_is_paid_for_what_is_not_asked_for(rasterizer, spied: list[dict]) -> None:
    drawn(rasterizer)
    drawn(rasterizer, with_stats=True)
    _, render = drawn(rasterizer, with_stats=("v_means2d",))
    render.rgb.sum().backward()
    assert render.aux.v_means2d.any() and render.aux.v_means2d_abs is None and render.aux.blend_weight is None
    _, render = drawn(rasterizer, with_stats=("v_means2d_abs",))
    render.rgb.sum().backward()
    assert render.aux.v_means2d_abs.any()
    assert len(spied) == 4, "the blend weight is drawn only where it is read"
    assert [call["absgrad"] for call in spied] == [False, True, False, True] and spied[0]["render_mode"] == "RGB"


def test_kernels_can_be_had_before_the_first_picture(rasterizer, spied: list[dict]) -> None:
    rasterizer.prepare()
    assert len(spied) == 1 and spied[0]["packed"] is rasterizer.packed


def test_the_weights_of_gaussians_that_have_moved_are_refused(rasterizer) -> None:
    gaussians, render = drawn(rasterizer, with_stats=True)
    with torch.no_grad():
        gaussians.means += 1
    with pytest.raises(RuntimeError, match="after the Gaussians had changed"):
        _ = render.aux.blend_weight


@pytest.mark.parametrize("kernel", sorted(name for name in vars(gsplat_kernels.Kernels) if name[0].islower()))
def test_the_kernels_take_what_gsplats_own_take(kernel: str) -> None:
    double = getattr(gsplat_kernels.Kernels, kernel)
    assert list(inspect.signature(double).parameters) == gsplat_kernels.declared(kernel)


@pytest.mark.parametrize("absgrad", [False, True])
def test_densification_counts_as_gsplats_own_strategy(rasterizer, spied, absgrad: bool, monkeypatch) -> None:
    """The statistics of Adc over three views are those of gsplat.DefaultStrategy."""
    from splatinit.densify.adc import Adc, AdcConfig

    metas = []
    monkeypatch.setattr(rasterizer, "_draw", lambda **given: keep(type(rasterizer)._draw(rasterizer, **given)))

    def keep(result):
        metas.append(result[2])
        return result

    adc = Adc(AdcConfig(absgrad=absgrad))
    adc.begin(steps=1000, extent=1.0)
    strategy = gsplat.DefaultStrategy(absgrad=absgrad)
    state = strategy.initialize_state()
    for seed in range(3):
        case = replace(CASE, seed=seed, kind="outside")
        gaussians, render = drawn(rasterizer, case, with_stats=True)
        (render.rgb * case.cotangents()[0].float()).sum().backward()
        adc.observe(seed + 1, render.aux, case.camera)
        strategy._update_state({"means": gaussians.means}, state, metas[-1], packed=rasterizer.packed)
    assert 0 < adc._seen.max() <= 3 and (adc._seen < 3).any()
    assert torch.equal(adc._seen, state["count"])
    assert_matches("gradients", adc._gradient_sum, state["grad2d"], 1e-6 * float(state["grad2d"].max()))


def test_a_training_step_is_that_of_the_native_engine(rasterizer) -> None:
    from splatinit import native
    from splatinit.optim import GaussianAdam
    from splatinit.steps import AutogradStep, StepConfig, StepTask

    if not native.available():
        pytest.skip("splat_cpu is not built in this installation")
    case = RasterCase(seed=5, n=80)
    rates = dict.fromkeys(case.gaussians.tensors(), 1e-3)
    trained = []
    for engine in (rasterizer, make_rasterizer("cpu")):
        adam = GaussianAdam(case.gaussians, rates)
        step = AutogradStep(adam, engine, RasterSettings(), StepConfig())
        photo = torch.full((case.height, case.width, 3), 0.5)
        for _ in range(4):
            task = StepTask(
                camera=case.camera, rgb=photo, background=case.background, sh_degree=3, stats=("v_means2d",)
            )
            loss = step.loss(task)
            aux = step.update()
        trained.append((float(loss), aux, adam.gaussians))
    (loss, aux, ours), (expected_loss, expected_aux, theirs) = trained
    assert abs(loss - expected_loss) < 1e-5
    assert_matches("statistics", aux.v_means2d, expected_aux.v_means2d, 1e-3, by_norm=True)
    for name, tensor in ours.tensors().items():
        # Adam makes a full step of the rate of whatever gradient there is, also of one that is but rounding.
        moved = tensor.detach() - case.gaussians.tensors()[name]
        expected = theirs.tensors()[name].detach() - case.gaussians.tensors()[name]
        assert_matches(f"moves of {name}", moved, expected, 0.05, by_norm=True)


# ------------------------------------------------------------------------------------------------------ can it run?
@pytest.mark.parametrize("found", ["1.5.2", "1.4.0", "1.6.0", "1.6.0rc1", "2.0", "unknown"])
def test_other_versions_are_refused(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    gsplat_kernels.install(monkeypatch)
    monkeypatch.setattr("splatinit.raster.gsplat.version", lambda package: found)
    with pytest.raises(MissingExtra, match=rf"gsplat>=1.5.3,<1.6, but gsplat {found} is installed") as caught:
        make_rasterizer("gsplat")
    assert 'pip install "splatinit[gsplat]"' in caught.value.hint


def test_a_version_that_cannot_be_told_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def no_metadata(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("splatinit.raster.gsplat.version", no_metadata)
    with pytest.raises(MissingExtra, match="gsplat of an unknown version is installed"):
        make_rasterizer("gsplat")


@pytest.mark.parametrize("found", ["1.5.3", "1.5.3+pt24cu124", "1.5.10"])
def test_versions_in_the_range_are_taken(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    gsplat_kernels.install(monkeypatch)
    monkeypatch.setattr("splatinit.raster.gsplat.version", lambda package: found)
    assert f"gsplat {found} compiles its kernels" in make_rasterizer("gsplat").note


def test_the_range_is_that_of_the_package() -> None:
    from pathlib import Path

    from splatinit.raster.gsplat import VERSIONS

    project = Path(__file__).parents[2] / "pyproject.toml"
    assert f'gsplat = ["gsplat{VERSIONS}"]' in project.read_text(encoding="utf-8")


def test_a_torch_without_cuda_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(NotBuilt, match="was built without CUDA") as caught:
        make_rasterizer("gsplat")
    assert "torch with CUDA" in caught.value.hint and "--backend cpu" in caught.value.hint


def test_no_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotBuilt, match="finds none") as caught:
        make_rasterizer("gsplat-packed")
    assert "nvidia-smi" in caught.value.hint


def test_no_kernels_and_no_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("splatinit.raster.gsplat._has_kernels", lambda: False)
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(NotBuilt, match="there is no nvcc") as caught:
        make_rasterizer("gsplat")
    assert "CUDA 13.0" in caught.value.hint


def test_kernels_that_came_with_the_package_need_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    gsplat_kernels.install(monkeypatch)
    monkeypatch.setattr("splatinit.raster.gsplat._has_kernels", lambda: True)
    assert make_rasterizer("gsplat").note is None


def test_kernels_that_do_not_compile_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gsplat_kernels.install(monkeypatch)
    engine = make_rasterizer("gsplat")

    def fail(**arguments):
        raise RuntimeError("Error building extension 'gsplat_cuda'\nline 2 of hundreds")

    monkeypatch.setattr(gsplat, "rasterization", fail)
    with pytest.raises(BackendError, match=r"at its first picture: Error building extension 'gsplat_cuda'\n") as caught:
        drawn(engine)
    assert "nvcc" in caught.value.hint


def test_an_error_of_a_later_picture_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gsplat_kernels.install(monkeypatch)
    engine = make_rasterizer("gsplat")
    drawn(engine)

    def fail(**arguments):
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(gsplat, "rasterization", fail)
    with pytest.raises(RuntimeError, match="^an illegal memory access$"):
        drawn(engine)


def test_more_pairs_than_gsplat_can_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gsplat_kernels.install(monkeypatch)
    engine, real = make_rasterizer("gsplat"), gsplat.rasterization

    def many(**arguments):
        image, alpha, meta = real(**arguments)
        return image, alpha, meta | {"flatten_ids": torch.zeros(1, dtype=torch.int32).expand(2**31)}

    monkeypatch.setattr(gsplat, "rasterization", many)
    with pytest.raises(BackendError, match="2,147,483,648 pairs") as caught:
        drawn(engine)
    assert caught.value.pairs == 2**31


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"background": torch.zeros(4)}, r"background must be \[3\], got \[4\]"),
        ({"cam_from_world": torch.eye(3)}, r"cam_from_world must be \[4, 4\], got \[3, 3\]"),
    ],
)
def test_wrong_shapes_are_told(rasterizer, given: dict, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        rasterizer.render(CASE.gaussians, CASE.camera, **given)


def test_gaussians_elsewhere_are_refused(rasterizer) -> None:
    with pytest.raises(ShapeError, match="means must be float32 on cpu, got float64 on cpu"):
        rasterizer.render(CASE.gaussians.map(lambda tensor: tensor.double()), CASE.camera)


def test_a_process_without_gaussians_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from splatinit.raster.gsplat import GsplatRasterizer

    gsplat_kernels.install(monkeypatch)
    with pytest.raises(BackendError, match="holds no Gaussians"):
        GsplatRasterizer(distributed=True).render(replace(CASE, n=0).gaussians, CASE.camera)
