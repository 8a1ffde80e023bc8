from __future__ import annotations

from dataclasses import replace

from dcompute.worker.device import Device
from dcompute.worker.hardware import Machine
from dcompute.worker.planning import plan

GIB = 1 << 30
MACHINE = Machine(host="a", cores=tuple(range(8)), memory=100 * GIB, disk=80 * GIB, devices=(Device(id="a"), Device(id="b")))


def test_one_worker_suits_a_machine_and_the_line_says_it_all() -> None:
    """All its cores and devices, most of its memory; the line can be copied."""
    found = plan(MACHINE)
    assert found.declares == {"CPU": 8, "MEMORY": 80 * GIB, "DISK": 80 * GIB, "GPU": 2}
    assert found.command == "dask worker ADDRESS --nworkers 1 --nthreads 8 --memory-limit 81920MiB --preload dcompute.worker"
    assert any("2 devices" in reason for reason in found.reasons)


def test_a_large_machine_has_several() -> None:
    """One worker watches 32 items with ease; memory and devices are shared among them."""
    found = plan(replace(MACHINE, cores=tuple(range(96))))
    assert (found.workers, found.threads, found.memory) == (3, 32, 80 * GIB // 3 // (1 << 20) * (1 << 20))
    assert found.declares["GPU"] == 1


def test_a_quota_is_explained() -> None:
    """Fewer threads than cores are seen, and the plan says why."""
    found = plan(replace(MACHINE, quota=2.5, is_limited=True))
    assert found.threads == 3
    assert any("a quota lets 2.5 be busy" in reason for reason in found.reasons)
    assert any("a cgroup allows" in reason for reason in found.reasons)
