"""Stands where pynvml, NVML's Python binding, needs a driver; its names are pynvml's own."""

# ruff: noqa: N801, N802, N818
from __future__ import annotations

from typing import Any


class Nvml:
    """A stand-in for NVML's Python binding, with one card of each kind."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        """As NVML's."""

    class NVMLError_NotSupported(NVMLError):
        """As NVML's."""

    class NVMLError_NotFound(NVMLError):
        """As NVML's."""

    def __init__(self, cards: list[tuple[str, int, list[int] | None]], broken: str = "") -> None:
        self.cards, self.broken, self.shut = cards, broken, False

    def nvmlInit(self) -> None:
        if self.broken == "init":
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:
        self.shut = True

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.86.15"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12080

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> tuple[int, int]:
        return (index, -1)

    def nvmlDeviceGetName(self, handle: tuple[int, int]) -> str:
        return self.cards[handle[0]][0]

    def nvmlDeviceGetMigMode(self, handle: tuple[int, int]) -> list[int]:
        if self.cards[handle[0]][2] is None:
            raise self.NVMLError_NotSupported
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: tuple[int, int]) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: tuple[int, int], index: int) -> tuple[int, int]:
        slices = self.cards[handle[0]][2] or []
        if index >= len(slices):
            raise self.NVMLError_NotFound
        return (handle[0], index)

    def nvmlDeviceGetMemoryInfo(self, handle: tuple[int, int]) -> Any:
        if self.broken == "memory":
            raise self.NVMLError("Unknown Error")
        _, whole, slices = self.cards[handle[0]]
        size = whole if handle[1] < 0 or slices is None else slices[handle[1]]
        return type("Info", (), {"total": size << 20})
