"""Training on a device with memory of its own, which is pretended (see pretend.py): nothing is mixed, nothing waits."""

from __future__ import annotations

import math
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pretend
import pytest
import tiny
import torch
import torch.nn.functional as F
from pretend import DEVICE, Pretend, There
from tiny import MemoryPhoto

import splatinit
from splatinit import device as devices
from splatinit import environment, metrics, native, optim, pipeline, steps, targets, training
from splatinit.densify import adc as adc_module
from splatinit.densify import edit, prune
from splatinit.densify.adc import Adc, AdcConfig
from splatinit.densify.none import NoDensify
from splatinit.densify.prune import Prune, PruneConfig
from splatinit.device import DeviceMemory
from splatinit.errors import BackendError, OutOfMemory, SceneError, TrainingError
from splatinit.evaluation import EvalConfig, evaluate, mean_psnr
from splatinit.frames import draw
from splatinit.io.checkpoints import digest, load_latest
from splatinit.late import AHEAD
from splatinit.memory import TrainingMemory
from splatinit.progress import Silent
from splatinit.raster import BACKENDS
from splatinit.targets import Targets
from splatinit.training import Measurement, TrainConfig, train
from splatinit.types import DepthPrior, Gaussians, Pixels, Scene

GB = 10**9


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with tiny.threads(1):
        yield


@pytest.fixture
def memory() -> DeviceMemory:
    return DeviceMemory("a pretended card", 24 * GB, 20 * GB, 2 * GB)


@pytest.fixture
def there(monkeypatch, memory):
    """The pretended device, with steps that leave their loss there."""
    pretend.take_place(monkeypatch, memory)
    with Pretend() as mode:
        monkeypatch.setitem(steps.STEPS, "pretend", pretend.step_with(mode))
        yield mode


def masked_scene(alpha: bool = True) -> Scene:
    scene = tiny.scene(alpha=alpha)
    mask = np.full((24, 28), 255, np.uint8)
    mask[6:15, 9:22] = 0
    views = [
        replace(view, photo=MemoryPhoto(view.name, replace(view.pixels(), mask=mask if index % 2 else None)))
        for index, view in enumerate(scene.train)
    ]
    return replace(scene, train=tuple(views))


def priors(scene: Scene) -> dict[str, DepthPrior]:
    depth = np.full((12, 14), 3.5, np.float32)
    depth[:3, :3] = 0.0
    return {view.name: DepthPrior(view.name, depth, np.full_like(depth, 0.7)) for view in scene.train[:3]}


def run(scene: Scene, rasterizer, *, steps: int = 40, densifier=None, model: Gaussians | None = None, **more):
    settings = {k: more.pop(k) for k in list(more) if k in TrainConfig.__dataclass_fields__}
    return train(
        scene,
        tiny.random_model(30, seed=1) if model is None else model,
        rasterizer=rasterizer,
        settings=tiny.SETTINGS,
        densifier=densifier or NoDensify(),
        config=TrainConfig(steps=steps, **settings),
        **more,
    )


def adc() -> Adc:
    return Adc(AdcConfig(begin=0.0, end=0.9, every=0.25, min_every_steps=1, grow_gradient=1e-5, max_count=60))


class AutogradRecorder:
    """The engine of the host, stepped by autograd."""

    name = "recorder"

    def __init__(self) -> None:
        self.inner = tiny.rasterizer()

    def render(self, *arguments, **named):
        return self.inner.render(*arguments, **named)


def only_waits_where_it_may(monkeypatch, mode: Pretend) -> None:
    """From the first photo to the end of the loop, waiting is an error but in looks, refinements and checkpoints."""

    def allowed(owner, name: str) -> None:
        inner = getattr(owner, name)

        def outer(*arguments, **named):
            with mode.waiting_allowed():
                return inner(*arguments, **named)

        monkeypatch.setattr(owner, name, outer)

    allowed(targets.HeldOut, "psnr")
    allowed(training, "_check_finite")
    allowed(Adc, "_grow_and_prune")
    allowed(prune, "remove_faint")
    get = Targets.get

    def first(self, *arguments):
        mode.strict = True
        return get(self, *arguments)

    monkeypatch.setattr(Targets, "get", first)
    monkeypatch.setattr(devices, "synchronize", lambda device: setattr(mode, "strict", False))


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def on_device() -> pretend.Rasterizer:
    return pretend.Rasterizer()


@pytest.mark.parametrize("densifier", [adc, NoDensify, lambda: Prune(PruneConfig(every=0.25, min_every_steps=1))])
@pytest.mark.parametrize("share", [0.125, 0.0])
def test_the_numbers_are_those_of_the_host_and_no_step_waits(monkeypatch, there, densifier, share):
    scene, rows = masked_scene(), {"host": [], "there": []}
    more = {"resolution": 0.5, "resolution_until": 0.3, "low_pass": 50.0, "depth_priors": priors(scene)}
    monkeypatch.setattr(training, "DEVICE_SHARE", share)
    host = AutogradRecorder()
    with monkeypatch.context() as plain:
        plain.setattr(native, "engine_for", lambda device: None)  # the same sums in torch
        expected = run(scene, host, densifier=densifier(), log=rows["host"].append, **more)
    only_waits_where_it_may(monkeypatch, there)
    result = run(scene, on_device(), densifier=densifier(), log=rows["there"].append, **more)
    assert all(type(tensor) is torch.Tensor for tensor in result.gaussians.tensors().values())  # on the host
    assert digest(result.gaussians.tensors()) == digest(expected.gaussians.tensors())
    assert (result.loss, result.psnr) == (expected.loss, expected.psnr)
    for row in (*rows["host"], *rows["there"]):
        row.pop("seconds", None)
    assert rows["there"] == rows["host"]


def test_the_pretended_device_sees_what_would_wait_and_what_is_mixed(there):
    tensor = torch.arange(6.0).view(2, 3).to(DEVICE)
    assert tensor.device == DEVICE and isinstance(tensor, There)
    there.strict = True
    for wrong in (
        lambda: tensor.sum().item(),
        lambda: bool((tensor > 0).all()),
        lambda: tensor[tensor > 0],
        lambda: (tensor > 0).nonzero(),
        lambda: tensor.cpu(),
        lambda: torch.zeros(3).to(DEVICE),
        lambda: tensor.copy_(torch.zeros(2, 3)),
    ):
        with pytest.raises(pretend.Waits):
            wrong()
    with pytest.raises(RuntimeError, match="of the host"):
        tensor + torch.zeros(2, 3)
    with pytest.raises(RuntimeError, match="of the host"):
        torch.cat([tensor, torch.zeros(2, 3)])
    assert torch.equal((tensor[1] * 2).raw, torch.tensor([6.0, 8.0, 10.0]))


# --------------------------------------------------------------------------------------------------------- late losses
class Spoilt(pretend.Rasterizer):
    """Draws something that is no number in call number ``call``, and notes what it has drawn."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.call, self.calls = call, 0

    def render(self, gaussians, camera, *, with_stats=False, **how):
        self.calls += 1
        render = super().render(gaussians, camera, with_stats=with_stats, **how)
        return replace(render, rgb=render.rgb * math.nan) if self.calls == self.call else render


@pytest.mark.parametrize("call", [1, 5, 38])
def test_a_loss_that_is_not_finite_is_told_late_but_never_saved(there, tmp_path, call):
    scene, rows, rasterizer = replace(tiny.scene(), test=()), [], Spoilt(call)
    with pytest.raises(TrainingError, match=rf"The loss at step {call} \(view '0\d.png'\) is nan") as caught:
        run(scene, rasterizer, checkpoints=tmp_path, checkpoint_seconds=0.0, log=rows.append, preview=0.2)
    assert caught.value.step == call
    assert call <= rasterizer.calls <= call + AHEAD
    assert all(row["step"] < call for row in rows)
    latest = load_latest(tmp_path).checkpoint
    assert latest is None or latest.step < call


def test_the_host_is_never_more_than_some_steps_ahead(there, monkeypatch):
    monkeypatch.setattr(pretend.Mark, "lag", 10**9)  # the device never says by itself that it is done
    waited, spoilt = pretend.Mark.waited, Spoilt(7)
    with pytest.raises(TrainingError, match="The loss at step 7"):
        run(replace(tiny.scene(), test=()), spoilt, preview=1.0)
    assert spoilt.calls == 7 + AHEAD and waited == list(range(7))


# ---------------------------------------------------------------------------------------------------------- the photos
def counted(scene: Scene) -> list[str]:
    """Names of the training photos, one for each time that one is decoded from now on."""
    loads: list[str] = []

    def load_of(name: str, pixels: Pixels):
        def load(width, height):
            loads.append(name)
            return pixels

        return load

    for view in scene.train:
        object.__setattr__(view.photo, "load", load_of(view.name, view.pixels()))
    return loads


def same(there: torch.Tensor | None, host: torch.Tensor | None) -> bool:
    return there is host is None or torch.equal(there.raw, host)


@pytest.mark.parametrize(("share", "fewest", "most"), [(1.0, 5, 5), (0.4, 5 + 3 * 5, 60), (0.0, 30, 60)])
def test_photos_stay_on_the_device_as_far_as_there_is_room_and_then_not_on_the_host(there, share, fewest, most):
    scene, config = masked_scene(), TrainConfig(steps=100, image_cache_mb=0)
    every = 24 * 28 * (3 + 1) * 5 + 24 * 28 * 2
    loads = counted(scene)
    with (
        Targets(scene, config, 0, DEVICE, room=int(share * every)) as targets,
        Targets(masked_scene(), config, 0, torch.device("cpu")) as host,
    ):
        assert targets.still_to_keep() == int(share * every)
        there.strict = True
        for done in range(30):
            target, expected = targets.get(done), host.get(done)
            assert target.view.name == expected.view.name
            assert same(target.rgb, expected.rgb) and same(target.counts, expected.counts)
            assert torch.equal(target.background, expected.background)
        if share == 1.0:
            assert targets.still_to_keep() == 0
    assert fewest <= len(loads) <= most and set(loads) == {view.name for view in scene.train}


def test_a_photo_on_the_device_takes_no_memory_of_the_host(there):
    scene = tiny.scene()
    with Targets(scene, TrainConfig(steps=100), 0, DEVICE, room=GB) as targets:
        decoder = targets._photos.decoder
        for done in range(5):
            targets.get(done)
        targets._sender._thread.submit(int).result()  # behind its last words, about the last photo
        assert decoder.still_to_keep() == sum(view.pixels().nbytes for view in scene.train)
        assert targets.still_to_keep() == 0


def test_small_copies_stay_on_the_device_and_go_with_their_size(there):
    scene = masked_scene()
    loads = counted(scene)
    config = TrainConfig(steps=100, resolution=0.5, resolution_until=0.5)
    with (
        Targets(scene, config, 0, DEVICE, room=GB) as targets,
        Targets(masked_scene(), config, 0, torch.device("cpu")) as host,
    ):
        for done in range(70):
            size = config.resolution_after(done)
            target, expected = targets.get(done, size), host.get(done, size)
            assert same(target.rgb, expected.rgb) and same(target.counts, expected.counts)
            assert target.view.camera.width == expected.view.camera.width
    assert sorted(loads) == sorted(view.name for view in scene.train)  # each once: the host keeps what it will need


def test_a_view_that_is_masked_completely_passes_its_turns_on_there_too(there):
    scene = tiny.scene()
    nothing = np.zeros((24, 28), np.uint8)
    views = list(scene.train)
    for index in (1, 3):
        pixels = Pixels(views[index].pixels().rgb, None, nothing)
        views[index] = replace(views[index], photo=MemoryPhoto(views[index].name, pixels))
    scene = replace(scene, train=tuple(views))
    with (
        Targets(scene, TrainConfig(), 0, DEVICE) as targets,
        Targets(scene, TrainConfig(), 0, torch.device("cpu")) as host,
    ):
        names = [(targets.get(done).view.name, host.get(done).view.name) for done in range(15)]
        assert sorted(targets.notes) == sorted(host.notes) and len(host.notes) == 2
    assert all(one == other for one, other in names) and {one for one, _ in names} == {"00.png", "02.png", "04.png"}


def test_a_photo_that_cannot_be_read_is_told_at_its_turn(there, tmp_path):
    scene = replace(tiny.scene(), test=())

    def load(width, height):
        raise FileNotFoundError(2, "No such file or directory")

    object.__setattr__(scene.train[2].photo, "load", load)
    with pytest.raises(SceneError, match="'02.png' was there when the scene was read") as caught:
        run(scene, on_device(), checkpoints=tmp_path)
    order = targets.Order(5, 0)
    turn = next(done for done in range(5) if order(done) == 2)
    assert turn == 0 or caught.value.hint.endswith(f"goes on after step {turn}.")


# ---------------------------------------------------------------------------------------------------------- the memory
def ran_out(asked: str) -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError(
        f"CUDA out of memory. Tried to allocate {asked}. GPU 0 has a total capacity of 23.6 GiB of which 1.2 GiB is "
        "free."
    )


class Full(pretend.Rasterizer):
    """Finds no memory in call number ``call``, and says so by ``error``."""

    def __init__(self, call: int = 7, error: Exception | None = None) -> None:
        super().__init__()
        self.left, self.error = call, error or ran_out("2.50 GiB")

    def render(self, *arguments, **how):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return super().render(*arguments, **how)


def test_a_device_without_memory_is_named_and_leaves_a_checkpoint(there, tmp_path, monkeypatch):
    scene, freed = replace(tiny.scene(), test=()), []
    monkeypatch.setattr(devices, "give_back", freed.append)
    expected = run(scene, on_device(), densifier=adc())
    with pytest.raises(OutOfMemory) as caught:
        run(scene, Full(), densifier=adc(), checkpoints=tmp_path)
    assert caught.value.message == (
        "After step 6, meta (a pretended card) had no room of 2.7 GB for drawing and comparing, with 30 Gaussians at "
        "28×24: 2.0 GB of 24.0 GB are taken by this process, 20.0 GB are free; about 27 Gaussians would fit."
    )
    assert caught.value.hint == (
        "Train again with densify.max_count=27 or a smaller --max-size, or let other programs leave the device. "
        "Nothing is lost: the same command goes on after step 6."
    )
    assert freed == [DEVICE] and load_latest(tmp_path).checkpoint.step == 6
    resumed = run(scene, on_device(), densifier=adc(), checkpoints=tmp_path)
    assert digest(resumed.gaussians.tensors()) == digest(expected.gaussians.tensors())


@pytest.mark.parametrize("error", [ran_out("2.50 GiB"), OutOfMemory("render: out of memory.", hint="Use less")])
def test_what_a_failed_step_held_is_given_back_before_saving(there, tmp_path, monkeypatch, error):
    held = []

    class Holding(Full):
        def render(self, *arguments, **how):
            if self.left == 1:
                large = torch.zeros(10)
                held.append(weakref.ref(large))
            return super().render(*arguments, **how)

    seen = []
    monkeypatch.setattr(devices, "give_back", lambda device: seen.append(held[0]()))
    with pytest.raises(OutOfMemory, match="out of memory|had no room"):
        run(replace(tiny.scene(), test=()), Holding(error=error), checkpoints=tmp_path)
    assert seen == [None] and load_latest(tmp_path).checkpoint.step == 6


def test_a_refinement_without_memory_waits_in_the_checkpoint_if_it_has_changed_nothing(there, tmp_path, monkeypatch):
    scene = replace(tiny.scene(), test=())
    expected = run(scene, on_device(), densifier=adc())

    def fails(*arguments):
        raise ran_out("512.00 MiB")

    with monkeypatch.context() as early:
        early.setattr(adc_module, "split_in_two", fails)
        with pytest.raises(OutOfMemory, match="After step 10, .* had no room of 0.5 GB for the refinement") as caught:
            run(scene, on_device(), densifier=adc(), checkpoints=tmp_path / "early")
    assert "goes on after step 10" in caught.value.hint
    assert load_latest(tmp_path / "early").checkpoint.meta["refinement_waits"]
    resumed = run(scene, on_device(), densifier=adc(), checkpoints=tmp_path / "early")
    assert digest(resumed.gaussians.tensors()) == digest(expected.gaussians.tensors())
    # In the midst of the exchange nothing whole is left to be saved: what was saved before stands.
    calls = []

    def second_fails(*arguments):
        calls.append(1)
        return fails() if len(calls) == 2 else joined(*arguments)

    joined = edit._joined
    monkeypatch.setattr(edit, "_joined", second_fails)
    with pytest.raises(OutOfMemory, match="for the refinement") as caught:
        run(scene, on_device(), densifier=adc(), checkpoints=tmp_path / "late")
    assert "Nothing is lost" not in caught.value.hint and load_latest(tmp_path / "late").checkpoint is None


def test_other_places_that_find_no_memory_are_named(there, tmp_path, monkeypatch):
    scene = tiny.scene()

    def fails(*arguments, **named):
        raise ran_out("1.00 GiB")

    for owner, name, doing, saved in (
        (optim, "GaussianAdam", "the Gaussians and their moments", False),
        (Adc, "observe", "the statistics of the Gaussians", False),
        (targets.HeldOut, "psnr", "the look at a held-out view", True),
        (Targets, "get", "the photo of the next step", False),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, fails)
            with pytest.raises(OutOfMemory, match=f"had no room of 1.1 GB for {doing}, with 30 Gaussians") as caught:
                run(scene, on_device(), densifier=adc(), checkpoints=tmp_path / name)
        assert ("Nothing is lost" in caught.value.hint) == saved


@pytest.mark.parametrize("enough", [True, False])
def test_photos_give_their_room_to_gaussians(there, tmp_path, monkeypatch, enough):
    scene, told = replace(tiny.scene(), test=()), Told()
    more = {"densifier": adc(), "depth_priors": priors(scene)}
    expected = run(scene, on_device(), **more)
    given_back, asked = [], []
    give_back, require_growth = Targets.give_back, TrainingMemory.require_growth

    def gives_back(self):
        given_back.append(self._sender.still_to_keep())
        return give_back(self)

    def requires(self, *arguments, **named):
        asked.append(arguments)
        return require_growth(self, *arguments, **named)

    def room(device=None):
        """Enough for the start, and for growth once the photos are gone, if ever."""
        return 20 * GB if device is None or not asked or (enough and given_back) else 0

    monkeypatch.setattr(Targets, "give_back", gives_back)
    monkeypatch.setattr(TrainingMemory, "require_growth", requires)
    monkeypatch.setattr("splatinit.memory.room", room)

    more["densifier"] = adc()
    if enough:
        result = run(scene, on_device(), progress=told, **more)
        assert digest(result.gaussians.tensors()) == digest(expected.gaussians.tensors())
        assert told.notes == ["From step 10 on, Gaussians take the room that photos had on meta."] and given_back == [0]
    else:
        with pytest.raises(
            OutOfMemory, match=r"After step 10, .* more; 0 MB are available on meta \(a pretended card\)"
        ):
            run(scene, on_device(), checkpoints=tmp_path, **more)
        assert load_latest(tmp_path).checkpoint.meta["refinement_waits"]


# ------------------------------------------------------------------------------------------------------ what comes back
def test_a_training_on_a_device_goes_on_from_its_checkpoint(there, tmp_path):
    scene = masked_scene()
    expected = run(scene, on_device(), densifier=adc())
    stops = iter([False] * 16 + [True] * 9)
    half = run(scene, on_device(), densifier=adc(), checkpoints=tmp_path, stop=lambda: next(stops))
    assert half.interrupted and half.steps_done == 17
    rest = run(scene, on_device(), densifier=adc(), checkpoints=tmp_path)
    assert digest(rest.gaussians.tensors()) == digest(expected.gaussians.tensors())


def test_scores_and_pictures_are_those_of_the_host(there, tmp_path):
    scene, model = masked_scene(), tiny.random_model(12, seed=5)
    how = {"settings": tiny.SETTINGS}
    host, device = tiny.rasterizer(), on_device()
    config = EvalConfig(lpips=())
    scene = replace(scene, test=scene.train[:2])
    expected = evaluate(scene, model, rasterizer=host, config=config, out_dir=tmp_path / "host", **how)
    report = evaluate(scene, model, rasterizer=device, config=config, out_dir=tmp_path / "there", **how)
    for one, other in zip(report.images, expected.images, strict=True):
        assert one.psnr == other.psnr and one.ssim == pytest.approx(other.ssim, abs=1e-12)
        assert (tmp_path / "there" / one.render).read_bytes() == (tmp_path / "host" / other.render).read_bytes()
    assert mean_psnr(scene, model, rasterizer=device, **how) == expected.psnr
    camera = scene.test[0].camera
    pictures = [draw(model, camera, rasterizer=each, background=(1.0, 0.5, 0.0), **how) for each in (host, device)]
    assert np.array_equal(*pictures)
    for look in (
        lambda: draw(model, camera, rasterizer=Spoilt(1), background=None, **how),
        lambda: mean_psnr(scene, model, rasterizer=Spoilt(1), **how),
    ):
        with pytest.raises(BackendError, match="Backend 'pretend' drew .*finite"):
            look()


def test_lpips_is_measured_where_the_images_are_in_whole_floats(there, monkeypatch):
    weights = metrics.find_weights("alex")
    if weights is None:
        pytest.skip("no weights of LPIPS here (set SPLATINIT_WEIGHTS)")
    a, b = (torch.rand(40, 50, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    mask = torch.arange(2000).view(40, 50) % 7 > 0
    rounds, convolve = [], F.conv2d

    def noting(*arguments):
        rounds.append(torch.backends.cudnn.allow_tf32)
        return convolve(*arguments)

    monkeypatch.setattr(F, "conv2d", noting)
    expected = metrics.Lpips("alex")(a, b, mask)
    del rounds[:]
    assert metrics.Lpips("alex", device=DEVICE)(a.to(DEVICE), b.to(DEVICE), mask.to(DEVICE)) == expected
    assert rounds == [False] * 10 and torch.backends.cudnn.allow_tf32


def test_measuring_without_memory_is_named(there, monkeypatch):
    scene = tiny.scene()

    def fails(*arguments):
        raise ran_out("4.00 GiB")

    monkeypatch.setattr(metrics, "psnr", fails)
    with pytest.raises(OutOfMemory, match=r"Measuring '05.png' \(28×24\) found no memory on meta, 20.0 GB are free"):
        mean_psnr(scene, tiny.random_model(5, seed=1), rasterizer=on_device(), settings=tiny.SETTINGS)
    with pytest.raises(OutOfMemory, match=r"Measuring '05.png' \(28×24\) found no memory\."):
        mean_psnr(scene, tiny.random_model(5, seed=1), rasterizer=tiny.rasterizer(), settings=tiny.SETTINGS)


def test_looks_at_the_test_views_do_not_count_and_find_the_device_done(there, monkeypatch):
    waited, rows = [], []
    monkeypatch.setattr(devices, "synchronize", waited.append)
    scene = tiny.scene()
    rasterizer = on_device()

    def psnr(now: Gaussians) -> float | None:
        assert now.means.device == DEVICE and len(waited) == 1
        return mean_psnr(scene, now, rasterizer=rasterizer, settings=tiny.SETTINGS)

    run(scene, rasterizer, steps=10, measurement=Measurement((0.5,), psnr), log=rows.append)
    assert [row["step"] for row in rows if "test_psnr" in row] == [5] and len(waited) == 2


def test_a_profile_waits_at_each_lap_if_it_is_asked_for(there, monkeypatch):
    waited = []
    monkeypatch.setattr(devices, "synchronize", waited.append)
    scene = replace(tiny.scene(), test=())
    plain = run(scene, on_device(), steps=10)
    assert waited == [DEVICE]  # before the clock is read for the last time
    profiled = run(scene, on_device(), steps=10, profile=True)
    assert len(waited) > 10 * 5
    assert plain.profile.seconds.keys() == profiled.profile.seconds.keys()


# ---------------------------------------------------------------------------------------------------- the whole line
SETTINGS = {"train.steps": 30, "eval.lpips": (), "eval.during": (0.5,), "seeding.sh_degree": 1}


@pytest.fixture
def as_backend(there, monkeypatch):
    """The pretended device as the backend "pretend"."""
    spec = replace(BACKENDS.spec("cpu"), name="pretend", impl="pretend:Rasterizer", gpu=True)
    monkeypatch.setitem(BACKENDS._specs, "pretend", spec)


def test_the_whole_line_on_a_device(as_backend, tiny_scene, tmp_path):
    settings = SETTINGS | {"raster.backend": "pretend"}
    stops = iter([False] * 12 + [True] * 9)
    half = splatinit.run(tiny_scene, tmp_path / "run", init="sfm", settings=settings, stop=lambda: next(stops))
    assert half.interrupted
    told = Told()
    result = splatinit.run(tiny_scene, tmp_path / "run", init="sfm", settings=settings, progress=told)
    assert any("Resumed after step 13" in note for note in told.notes) and result.report.backend == "pretend"
    host = splatinit.run(tiny_scene, tmp_path / "host", init="sfm", settings=SETTINGS)
    assert result.report.psnr == pytest.approx(host.report.psnr, abs=0.05)
    assert result.gaussians.means.device.type == "cpu"
    cameras = [view.camera for view in result.scene.test]
    images, others = (list(splatinit.render(result.gaussians, cameras, raster=raster)) for raster in ("pretend", "cpu"))
    assert all(np.array_equal(one, other) for one, other in zip(images, others, strict=True))


def test_what_a_device_has_no_memory_for_is_refused_before_the_start_is_made(as_backend, tiny_scene, tmp_path):
    settings = SETTINGS | {"raster.backend": "pretend", "init.count": 40_000_000}
    with pytest.raises(OutOfMemory, match=r"available on meta \(a pretended card\); .* would fit"):
        splatinit.run(tiny_scene, tmp_path / "run", init="random", settings=settings)
    assert not (tmp_path / "run" / "init").exists()


@pytest.mark.parametrize(
    ("device", "profile", "options"), [("cuda", True, {"timings": 1}), ("cuda", False, {}), ("cpu", True, {})]
)
def test_a_profile_has_our_engine_measure_its_stages(monkeypatch, device, profile, options):
    made, asked = SimpleNamespace(device=torch.device(device), options={}), {}
    monkeypatch.setattr(pipeline, "make_rasterizer", lambda name: made)
    monkeypatch.setattr(training, "train", lambda *arguments, **named: asked.update(named))
    splatinit.train(tiny.scene(), tiny.random_model(3, seed=0), raster="cuda", profile=profile)
    assert made.options == options and asked["profile"] == profile and asked["rasterizer"] is made


def test_a_gpu_that_idles_is_named_once(monkeypatch, tiny_scene, tmp_path):
    monkeypatch.setattr(environment, "gpus", lambda: ("Card", "Other"))
    for expected in (1, 0):
        told = Told()
        splatinit.run(tiny_scene, tmp_path, init="sfm", settings=SETTINGS | {"train.steps": 2}, progress=told)
        named = [note for note in told.notes if "Card" in note]
        text = "Training on the CPU; 'Card' could be used, too: --backend cuda (needs: splatinit doctor)."
        assert named == [text] * expected


# ------------------------------------------------------------------------------------------------------ the CUDA engine
@pytest.mark.parametrize("share", [0.125, 0.0])
def test_the_cuda_engine_learns_what_the_cpu_engine_does(cuda, tmp_path, monkeypatch, share):
    """On a GPU, and in the emulation of one, where the device's memory is the host's."""
    scene, rows = masked_scene(), []
    monkeypatch.setattr(training, "DEVICE_SHARE", share)
    more = {"steps": 60, "depth_priors": priors(scene), "resolution": 0.5, "resolution_until": 0.2}
    expected = run(scene, tiny.rasterizer(), densifier=adc(), **more)
    result = run(scene, cuda, densifier=adc(), log=rows.append, **more)
    assert result.psnr == pytest.approx(expected.psnr, abs=0.2) and result.loss == pytest.approx(
        expected.loss, rel=0.02
    )
    looks = [row["psnr"] for row in rows if "psnr" in row]
    assert looks[-1] > looks[0] + 1
    stops = iter([False] * 30 + [True] * 9)
    half = run(scene, cuda, densifier=adc(), checkpoints=tmp_path, stop=lambda: next(stops), **more)
    assert half.interrupted and half.steps_done == 31
    rest = run(scene, cuda, densifier=adc(), checkpoints=tmp_path, **more)
    assert rest.psnr == pytest.approx(result.psnr, abs=0.2)
    score = mean_psnr(scene, rest.gaussians, rasterizer=cuda, settings=tiny.SETTINGS)
    on_host = mean_psnr(scene, rest.gaussians, rasterizer=tiny.rasterizer(), settings=tiny.SETTINGS)
    assert score == pytest.approx(on_host, abs=0.01)
