"""Which kinds of devices there are, what of them is found, and what a process must be told to see its own only.

NVIDIA's is built in (``gpu``); others come as entry points of the group ``dcompute.devices``, or by name in the setting
``dcompute.worker.devices``.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from dcompute.errors import SettingsError
from dcompute.worker.device import NVIDIA, Device, DeviceKind

logger = logging.getLogger("dcompute.worker")

#: Entry points of this group are kinds of devices, or make one when they are called.
GROUP = "dcompute.devices"


def kinds(wanted: str | Sequence[str] = "auto") -> list[DeviceKind]:
    """The kinds of devices to look for.

    Parameters
    ----------
    wanted
        The setting ``dcompute.worker.devices``: ``auto`` for NVIDIA's and what is installed, or names: ``nvidia``, that of an entry point,
        or ``module:object``.

    Raises
    ------
    SettingsError
        A name leads nowhere.
    """
    installed = {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
    names = [NVIDIA, *installed] if wanted == "auto" else [wanted] if isinstance(wanted, str) else list(wanted)
    found: list[DeviceKind] = []
    for name in names:
        try:
            found.append(_loaded(name, installed))
        except Exception as error:
            if wanted != "auto":
                raise SettingsError(
                    f"dcompute.worker.devices names {name!r}, which cannot be loaded ({type(error).__name__}: {error}): say {NVIDIA}, the "
                    f"name of an entry point of {GROUP}, or module:object"
                ) from error
            logger.warning("the devices of %r are not looked for: %s", name, error, extra={"action": "devices_broken"})
    return found


def _loaded(name: str, installed: Mapping[str, Any]) -> DeviceKind:
    if name == NVIDIA:
        from dcompute.worker.gpu import Nvidia

        return Nvidia()
    if name in installed:
        found = installed[name].load()
    else:
        module, _, attribute = name.partition(":")
        found = getattr(importlib.import_module(module), attribute)
    made: DeviceKind = found() if isinstance(found, type) or not hasattr(found, "find") else found
    return made


def found(kinds: Sequence[DeviceKind]) -> list[tuple[Device, DeviceKind]]:
    """All devices that this process may use, each with its kind; a kind that fails has none, and that is told."""
    devices: list[tuple[Device, DeviceKind]] = []
    for kind in kinds:
        try:
            devices += [(device, kind) for device in kind.find()]
        except Exception as error:  # noqa: BLE001  a driver that is broken is no reason to have no worker
            logger.warning("devices of %s are not found: %s", type(kind).__name__, error, extra={"action": "devices_broken"})
    return devices


def environment(kinds: Sequence[DeviceKind], devices: Sequence[Device]) -> dict[str, str]:
    """Variables of a process that shall see these devices, and none beside them."""
    names: dict[str, str] = {}
    for kind in kinds:
        names.update(kind.environment([device.id for device in devices if device.kind == kind.kind]))
    return names
