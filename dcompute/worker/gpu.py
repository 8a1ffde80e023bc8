"""NVIDIA's GPUs, by NVML (``dcompute[gpu]``): whole ones, and the instances of those that are partitioned (MIG)."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcompute.worker.device import NVIDIA, Device

logger = logging.getLogger("dcompute.worker")

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as the driver lists it."""

    device: Device
    instances: tuple[Device, ...] = ()  #: of one that is partitioned; then only these can be used


def visible(cards: Sequence[Card], text: str | None) -> list[Device]:
    """The devices that ``CUDA_VISIBLE_DEVICES`` leaves, in its order.

    Parameters
    ----------
    cards
        All, in the driver's order.
    text
        The variable; None where it is not set. As CUDA does it, a list ends before the first entry that names nothing (``-1``,
        ``NoDevFiles``), numbers follow the driver's order, and a UUID may be cut short where it stays unique.
    """
    if text is None:
        return [device for card in cards for device in card.instances or (card.device,)]
    chosen: list[Device] = []
    for entry in text.split(","):
        device = _named(cards, entry.strip())
        if device is None:
            break
        if device not in chosen:
            chosen.append(device)
    return chosen


def _named(cards: Sequence[Card], entry: str) -> Device | None:
    if entry.isdecimal():
        card = cards[int(entry)] if int(entry) < len(cards) else None
        return None if card is None else (card.instances or (card.device,))[0]
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    everything = [device for card in cards for device in (*card.instances, *(() if card.instances else (card.device,)))]
    exact = [device for device in everything if device.id == entry]
    matching = exact or [device for device in everything if device.id.startswith(entry)]
    # a partitioned GPU stands for its first instance
    matching = matching or [card.instances[0] for card in cards if card.instances and card.device.id.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


class Nvidia:
    """The kind of devices that CUDA programs use."""

    kind = NVIDIA

    def find(self) -> list[Device]:
        """See :class:`~dcompute.worker.device.DeviceKind`."""
        return visible(_cards(), os.environ.get(VISIBLE))

    def environment(self, ids: Sequence[str]) -> Mapping[str, str]:
        """See :class:`~dcompute.worker.device.DeviceKind`."""
        return {VISIBLE: ",".join(ids)}

    def used(self, id: str) -> int | None:
        """See :class:`~dcompute.worker.device.DeviceKind`."""
        with _nvml() as nvml:
            if nvml is None:
                return None
            with contextlib.suppress(nvml.NVMLError):
                handle = nvml.nvmlDeviceGetHandleByUUID(id)
                return _memory(nvml, handle).used  # type: ignore[no-any-return]
        return None


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """NVML, ready; None where its library or its Python side is missing."""
    try:
        import pynvml
    except ImportError:
        if Path("/proc/driver/nvidia").exists():
            logger.warning("this machine has NVIDIA's driver, but nothing to ask it with: pip install 'dcompute[gpu]'")
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver: there is no GPU
        yield None
        return
    try:
        yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _cards() -> list[Card]:
    with _nvml() as nvml:
        if nvml is None:
            return []
        return [_card(nvml, nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(nvml.nvmlDeviceGetCount())]


def _card(nvml: Any, handle: Any) -> Card:
    return Card(_device(nvml, handle), tuple(_device(nvml, instance) for instance in _instances(nvml, handle)))


def _instances(nvml: Any, handle: Any) -> Iterator[Any]:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if current == nvml.NVML_DEVICE_MIG_ENABLE else 0
    except nvml.NVMLError:  # older ones cannot be partitioned
        return
    for index in range(count):
        with contextlib.suppress(nvml.NVMLError):  # a place that no instance was made in
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)


def _device(nvml: Any, handle: Any) -> Device:
    return Device(id=_text(nvml.nvmlDeviceGetUUID(handle)), name=_text(nvml.nvmlDeviceGetName(handle)), memory=_memory(nvml, handle).total)


def _memory(nvml: Any, handle: Any) -> Any:
    """In its second form it does not count what the driver keeps for itself as used."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError, AttributeError, TypeError):
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
