"""A device such as a GPU, and what is asked of a kind of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

#: Name of the kind that is built in.
NVIDIA = "nvidia"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device that a batch may have, or share."""

    id: str  #: what no other device of any machine is called, and what a process is shown it by
    name: str = ""  #: of its model
    kind: str = NVIDIA
    memory: int = 0  #: bytes; 0: not known


class DeviceKind(Protocol):
    """A kind of devices."""

    kind: str  #: its name, which its devices have as theirs

    def find(self) -> Sequence[Device]:
        """The devices that this process may use: what its environment hides is none of them."""

    def environment(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Variables of a process that shall see these devices of the kind only, and no device where there are none."""

    def used(self, id: str) -> int | None:
        """Bytes of a device's memory that are in use now, by anybody; None where nobody can tell."""
