"""Without the native library many tests skip: this one fails, so that a broken build cannot look green."""

from __future__ import annotations

from splatinit import native


def test_the_native_engine_is_built_and_loads() -> None:
    native.library()
    assert native.build_info()["simd"] in ("generic", "avx2", "avx512", "neon")
