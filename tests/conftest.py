"""Fixtures of all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
if str(TESTS) not in sys.path:  # so that strategies, tolerances and compare import in every pytest import mode
    sys.path.insert(0, str(TESTS))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--error-texts", action="store_true", help="list the errors whose text no test looked at")


def pytest_configure(config: pytest.Config) -> None:
    from error_texts import ErrorTexts

    plugin = ErrorTexts()
    plugin.watch()
    config.pluginmanager.register(plugin, "error-texts")


EMULATED = "cuda-emulated"  # the kernels of the backend "cuda" on the processor
ON_THE_PROCESSOR = ("cpu", EMULATED)


def backends() -> list[str]:
    """Every rasterization backend that is compared with the reference."""
    from splatinit.raster import BACKENDS

    return [*(name for name in BACKENDS.names() if name != "reference"), EMULATED]


def marked(name: str):
    """A backend as a parameter of a test."""
    return pytest.param(name, marks=[] if name in ON_THE_PROCESSOR else [pytest.mark.gpu])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    ours = ["cuda", EMULATED]
    for fixture, names in {"backend_name": backends(), "cuda_name": ours, "engine_name": ["cpu", *ours]}.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, [marked(name) for name in names], scope="session")


def rasterizer(name: str, request: pytest.FixtureRequest):
    """The backend ``name``, if it can run here; else the test is skipped with the backend's own reason."""
    from splatinit import native
    from splatinit.errors import MissingExtra, NotBuilt
    from splatinit.raster import make_rasterizer
    from splatinit.raster.native import CudaRasterizer

    if name == EMULATED:
        return CudaRasterizer(native.cuda_engine(0, request.getfixturevalue("emulated_library")))
    try:
        return make_rasterizer(name)
    except (NotBuilt, MissingExtra) as error:
        pytest.skip(f"backend {name}: {error.message}")


@pytest.fixture(scope="session")
def backend(backend_name: str, request: pytest.FixtureRequest):
    """Each backend of the registry that can run here, and the CUDA engine in its emulation."""
    return rasterizer(backend_name, request)


@pytest.fixture(scope="session")
def cuda(cuda_name: str, request: pytest.FixtureRequest):
    """The backend "cuda", on a GPU and in its emulation."""
    return rasterizer(cuda_name, request)


@pytest.fixture(scope="session")
def engine(engine_name: str, request: pytest.FixtureRequest):
    """Each of our own engines."""
    return rasterizer(engine_name, request)


@pytest.fixture(scope="session")
def native_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One build of the native libraries with their tests, for the whole session."""
    from native_build import built

    return built(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="session")
def emulated_library(request: pytest.FixtureRequest) -> Path:
    """splat_cuda compiled for the processor: that of the build, or the file that SPLATINIT_TEST_EMULATED names."""
    from splatinit import native

    if not native.available():
        pytest.skip("splat_cpu, which judges it, is not built in this installation")
    named = os.environ.get("SPLATINIT_TEST_EMULATED")
    path = Path(named) if named else request.getfixturevalue("native_build") / "libsplat_cuda_emulated.so"
    assert path.exists(), f"the build has no {path}"
    return path


@pytest.fixture(scope="module")
def one_thread():
    """Let torch use one thread: on tensors this small its threads wait for each other longer than they work, and on
    a busy machine ten times longer."""
    import torch

    from splatinit import native

    if native.available():
        native.build_info()  # fixes its number of threads at first use, which must not become 1 for all later tests
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photo sets (SPLATINIT_TEST_DATA, or shared/data beside the repository)."""
    default = TESTS.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("SPLATINIT_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set SPLATINIT_TEST_DATA)")
    return folder
