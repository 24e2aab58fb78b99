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


def backends() -> list[str]:
    """Every rasterization backend that is compared with the reference."""
    from splatinit.raster import BACKENDS

    return [name for name in BACKENDS.names() if name != "reference"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend_name" in metafunc.fixturenames:
        metafunc.parametrize("backend_name", backends(), scope="session")


@pytest.fixture(scope="session")
def backend(backend_name: str):
    """Each backend of the registry that can run here; the others are skipped with their own reason."""
    from splatinit.errors import MissingExtra, NotBuilt
    from splatinit.raster import make_rasterizer

    try:
        return make_rasterizer(backend_name)
    except (NotBuilt, MissingExtra) as error:
        pytest.skip(f"backend {backend_name}: {error.message}")


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
