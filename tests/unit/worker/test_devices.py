from __future__ import annotations

import pytest

from dcompute.errors import SettingsError
from dcompute.testing import FakeDevices
from dcompute.worker import devices
from dcompute.worker.device import Device
from dcompute.worker.gpu import VISIBLE, Card, Nvidia, visible


def gpu(id: str) -> Device:
    return Device(id=id, name="H100", memory=80 << 30)


WHOLE = [Card(gpu("GPU-aa11")), Card(gpu("GPU-ab22")), Card(gpu("GPU-cc33"))]
PARTED = [Card(gpu("GPU-aa11"), (gpu("MIG-1"), gpu("MIG-2"))), Card(gpu("GPU-ab22"))]


@pytest.mark.parametrize(
    ("cards", "text", "expected"),
    [
        (WHOLE, None, ["GPU-aa11", "GPU-ab22", "GPU-cc33"]),
        (WHOLE, "", []),
        (WHOLE, "-1", []),
        (WHOLE, "NoDevFiles", []),
        (WHOLE, "2,0", ["GPU-cc33", "GPU-aa11"]),
        (WHOLE, "0,-1,1", ["GPU-aa11"]),
        (WHOLE, "1,7,0", ["GPU-ab22"]),
        (WHOLE, "0,0", ["GPU-aa11"]),
        (WHOLE, " GPU-cc33 , GPU-ab22", ["GPU-cc33", "GPU-ab22"]),
        (WHOLE, "GPU-c", ["GPU-cc33"]),
        (WHOLE, "GPU-a", []),
        (PARTED, None, ["MIG-1", "MIG-2", "GPU-ab22"]),
        (PARTED, "MIG-2", ["MIG-2"]),
        (PARTED, "0,1", ["MIG-1", "GPU-ab22"]),
        (PARTED, "GPU-aa11", ["MIG-1"]),
    ],
)
def test_the_variable_says_which_gpus_are_seen(cards: list[Card], text: str | None, expected: list[str]) -> None:
    """Numbers, UUIDs whole or cut short, instances of a partitioned GPU; the list ends before what names nothing, as CUDA has it."""
    assert [device.id for device in visible(cards, text)] == expected


def test_a_machine_without_the_driver_has_no_gpu() -> None:
    """No library of NVIDIA's, or no driver: nothing is found, and nothing is raised."""
    assert Nvidia().used("GPU-none") is None
    assert all(device.id for device in Nvidia().find())


def test_a_process_is_shown_its_devices_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind has a variable of its own: one that has nothing of a kind sees nothing of it."""
    monkeypatch.setenv("FAKE_DEVICES", "a,b")
    kinds = [FakeDevices(), Nvidia()]
    both = [gpu("GPU-aa11"), FakeDevices().find()[1]]
    assert devices.environment(kinds, both) == {"FAKE_VISIBLE_DEVICES": "b", VISIBLE: "GPU-aa11"}
    assert devices.environment(kinds, []) == {"FAKE_VISIBLE_DEVICES": "", VISIBLE: ""}


def test_kinds_come_by_name() -> None:
    """NVIDIA's are looked for unless the setting names others; an object of a module is one."""
    assert [kind.kind for kind in devices.kinds()][:1] == ["nvidia"]
    assert [kind.kind for kind in devices.kinds(["dcompute.testing:FakeDevices", "nvidia"])] == ["fake", "nvidia"]
    assert devices.kinds([]) == []


@pytest.mark.parametrize("name", ["nvidias", "dcompute.testing:FakeDevice", "no.such.module:Kind"])
def test_a_name_that_leads_nowhere_is_refused(name: str) -> None:
    """It is named, with the setting that has it and what it may be."""
    with pytest.raises(SettingsError, match=rf"dcompute\.worker\.devices names '{name}'.*module:object"):
        devices.kinds([name])


def test_a_kind_that_fails_has_no_devices(caplog: pytest.LogCaptureFixture) -> None:
    """A driver that is broken keeps no worker from starting, and is told."""

    class Broken(FakeDevices):
        def find(self) -> list[Device]:
            raise OSError("the driver hangs")

    assert devices.found([Broken()]) == []
    assert "the driver hangs" in caplog.text
