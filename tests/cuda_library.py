"""splat_cuda as a few Python functions, for tests of what is around it."""

from __future__ import annotations

from collections.abc import Callable

from splatinit import native


class Library:
    """splat_cuda: ``work`` is what a forward pass does with the allocator, and returns its code."""

    def __init__(
        self,
        version: str = "0.1.0, CUDA runtime 13.0, sm_80 sm_90, emulated",
        devices: int = 1,
        runs: bool = True,
        work: Callable[[Callable[[int, int], int | None]], int] = lambda give: native.loading.OK,
    ) -> None:
        self.version, self.devices, self.runs, self.work = version, devices, runs, work
        self.alive: dict[int, object] = {}  # handle → its allocator
        self.options: list[tuple[int, str, int]] = []
        self.streams: list[int | None] = []
        self.made = 0

    def splat_cuda_version(self) -> bytes:
        return self.version.encode()

    def splat_cuda_device_count(self) -> int:
        return self.devices

    def splat_cuda_device_info(self, index: int, info) -> int:
        found = info._obj
        found.name, found.major, found.minor = b"A card", 7, 0
        found.total_bytes, found.free_bytes = 8000 << 20, 3000 << 20
        return native.loading.OK

    def splat_cuda_device_check(self, index: int) -> int:
        return native.loading.OK if self.runs else native.loading.BAD_ARGUMENT

    def splat_cuda_last_error(self) -> bytes:
        return b"an illegal memory access was encountered"

    def splat_cuda_buffer_name(self, buffer: int) -> bytes | None:
        return b"sorted pairs" if buffer == 3 else None

    def splat_cuda_workspace_create(self, index: int, allocate, user: None) -> int:
        self.made += 1
        self.alive[self.made] = allocate
        return self.made

    def splat_cuda_workspace_destroy(self, handle: int) -> None:
        del self.alive[handle]

    def splat_cuda_set_option(self, handle: int, name: bytes, value: int) -> int:
        self.options.append((handle, name.decode(), value))
        return native.loading.OK if name in (b"deterministic", b"plain_emit") else native.loading.BAD_ARGUMENT

    def splat_cuda_forward(self, handle: int, *arguments: object) -> int:
        self.streams.append(arguments[-1])
        allocate = self.alive[handle]
        return self.work(lambda buffer, size: allocate(None, buffer, size))
