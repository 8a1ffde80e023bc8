"""What this worker process holds of its machine, and lends to its children: devices, and cores of their own.

What is held is claimed (``claims``), so that worker processes of one host never lend the same. Who runs the preload claims its part before
it registers, and holds it. Without the preload a device is claimed when a batch needs one, and given up when nobody uses it any more.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dcompute.config import settings
from dcompute.worker import allotment, devices
from dcompute.worker.claims import DYING, Claims
from dcompute.worker.device import Device, DeviceKind

logger = logging.getLogger("dcompute.worker")


@dataclass(slots=True)
class Loan:
    """What one child has, until it gives it back."""

    devices: tuple[Device, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    locks: tuple[int, ...] = ()  #: files that it and its guardian hold as long as they are there
    give_back: Callable[[], None] = lambda: None  #: may be called again


@dataclass(slots=True)
class Cores:
    """What one batch has."""

    numbers: tuple[int, ...] = ()
    give_back: Callable[[], None] = lambda: None  #: may be called again


class Holdings:
    """The devices and cores of one worker process; safe for threads.

    Parameters
    ----------
    kinds
        Of devices.
    claims
        Where they are claimed.
    most_left_over
        Bytes of a device's memory that may be in use, by whomever, when it is lent.
    hides
        Whether a child that asks for no device sees none.
    """

    def __init__(self, kinds: Sequence[DeviceKind], claims: Claims, *, most_left_over: int, hides: bool = True) -> None:
        self._kinds = list(kinds)
        self._claims = claims
        self._most_left_over = most_left_over
        self._hides = hides
        self._found: dict[str, tuple[Device, DeviceKind]] | None = None
        self._shares: dict[str, list[float]] = {}  # of devices that are held: what children have of each
        self._kept: set[str] = set()  # held until they are released
        self._cores: dict[int, list[float]] = {}
        self._changed = threading.Condition(threading.RLock())
        self._is_told = False

    def release(self, devices: Iterable[Device], cores: Iterable[int]) -> None:
        """Leave to others what was claimed, as soon as no child has it."""
        with self._changed:
            self._kept -= {device.id for device in devices}
            self._shrink()
            for core in cores:
                self._cores.pop(core, None)
                self._claims.give_up(_core(core))

    # -------------------------------------------------------------------------------------------------------------- devices

    def visible(self) -> list[Device]:
        """All devices that this process may use, whoever has them."""
        with self._changed:
            if self._found is None:
                self._found = {device.id: (device, kind) for device, kind in devices.found(self._kinds)}
            return [device for device, _ in self._found.values()]

    def claim_devices(self, most: int) -> list[Device]:
        """Claim up to so many more devices and keep them; those that could be had."""
        mine: list[Device] = []
        with self._changed:
            for device in self.visible():
                if len(mine) < most and device.id not in self._shares and self._claims.claim(_device(device.id), DYING):
                    self._shares[device.id] = []
                    self._kept.add(device.id)
                    mine.append(device)
        return mine

    def lend(self, gpus: float, *, more: bool = True) -> Loan | None:
        """Devices for a child; None where none are free now, of those that are held and (``more``) of those that can be claimed.

        Where this machine has none that anybody knows of, the child sees what its worker sees.
        """
        with self._changed:
            if not gpus:
                return Loan(environment=devices.environment(self._kinds, ()) if self._hides else {})
            if not self.visible():
                self._tell_once()
                return Loan()
            chosen = self._chosen(gpus, more=more)
            loan = None if chosen is None else self._lent(chosen, min(gpus, 1.0))
            self._shrink()
            return loan

    def is_lending(self) -> bool:
        """Whether children of this process have devices, which they will give back."""
        with self._changed:
            return any(self._shares.values())

    def in_use(self) -> list[str]:
        """Devices that no child has, and whose memory somebody uses all the same, with how much."""
        with self._changed:
            used = {id: self._used(id) for id, shares in self._shares.items() if not shares}
            used |= {device.id: self._used(device.id) for device in self.visible() if device.id not in self._shares}
        return [f"{id} ({size} bytes)" for id, size in used.items() if size > self._most_left_over]

    def wait(self, seconds: float) -> None:
        """Wait until something was given back, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def _chosen(self, gpus: float, *, more: bool) -> tuple[str, ...] | None:
        """Of those that are held; where these have no room, of others that can be had for this request."""
        kinds = {device.id: device.kind for device in self.visible()}
        chosen = allotment.devices(gpus, self._lendable(), kinds)
        for id in kinds:
            if chosen is not None or not more:
                break
            if id not in self._shares and self._claims.claim(_device(id)):
                self._shares[id] = []
                chosen = allotment.devices(gpus, self._lendable(), kinds)
        return chosen

    def _lendable(self) -> dict[str, float]:
        """How much is taken of each device that is held, without those whose memory somebody else uses."""
        taken = {id: math.fsum(shares) for id, shares in self._shares.items()}
        return {id: share for id, share in taken.items() if share or self._used(id) <= self._most_left_over}

    def _used(self, id: str) -> int:
        assert self._found is not None
        return self._found[id][1].used(id) or 0

    def _lent(self, chosen: Sequence[str], share: float) -> Loan:
        assert self._found is not None
        found = tuple(self._found[id][0] for id in chosen)
        for id in chosen:
            self._shares[id].append(share)
        locks = tuple(self._claims.descriptor(_device(id)) for id in chosen)
        owed = list(chosen)

        def give_back() -> None:
            with self._changed:
                for id in owed:
                    self._shares[id].remove(share)
                owed.clear()
                self._shrink()
                self._changed.notify_all()

        return Loan(found, devices.environment(self._kinds, found), locks, give_back)

    def _shrink(self) -> None:
        for id in [id for id, shares in self._shares.items() if not shares and id not in self._kept]:
            del self._shares[id]
            self._claims.give_up(_device(id))

    def _tell_once(self) -> None:
        if not self._is_told:
            self._is_told = True
            text = "a batch asks for GPUs, and none is found here: its items see what the worker sees; %s finds NVIDIA's"
            logger.warning(text, "pip install 'dcompute[gpu]'", extra={"action": "devices_unknown"})

    # ---------------------------------------------------------------------------------------------------------------- cores

    def claim_cores(self, count: int, cores: Sequence[int]) -> tuple[int, ...]:
        """Claim so many more of these cores and keep them; none where others have them, as too few would be worse than none."""
        mine: list[int] = []
        with self._changed:
            for core in cores:
                if len(mine) < count and core not in self._cores and self._claims.claim(_core(core)):
                    mine.append(core)
            if len(mine) < count:
                for core in mine:
                    self._claims.give_up(_core(core))
                return ()
            self._cores.update({core: [] for core in mine})
        return tuple(mine)

    def lend_cores(self, cpus: float, before: Sequence[int] = ()) -> Cores:
        """Cores for a batch; none where this process has none of its own."""
        with self._changed:
            chosen = allotment.cores(cpus, {core: math.fsum(shares) for core, shares in self._cores.items()}, before) if self._cores else ()
            share = cpus / len(chosen) if chosen else 0.0
            for core in chosen:
                self._cores[core].append(share)
        owed = list(chosen)

        def give_back() -> None:
            with self._changed:
                for core in owed:
                    if core in self._cores:
                        self._cores[core].remove(share)
                owed.clear()

        return Cores(chosen, give_back)


def _device(id: str) -> str:
    return f"device-{id}"


def _core(number: int) -> str:
    return f"core-{number}"


_known: Holdings | None = None
_known_of: tuple[object, ...] = ()
_known_lock = threading.Lock()


def holdings() -> Holdings:
    """What this process holds, nothing at first."""
    global _known, _known_of
    chosen = settings().worker
    wanted = (os.getpid(), chosen.devices, chosen.claims, chosen.device_memory, chosen.hide_devices)
    with _known_lock:
        if _known is None or _known_of != wanted:
            found = devices.kinds(chosen.devices)
            _known = Holdings(found, Claims(chosen.claims), most_left_over=chosen.device_memory, hides=chosen.hide_devices)
            _known_of = wanted
        return _known
