"""What facts mean: a line each, ok, a warning or a failure, with what to do. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

OK: Final = "ok"
WARNING: Final = "warning"
FAILURE: Final = "failure"
Status = Literal["ok", "warning", "failure"]

#: What must be alike on driver and workers: code and records cross between them.
SAME = ("python", "dask", "distributed", "dcompute")
#: What ought to be: values and rows cross as bytes of theirs.
ALIKE = ("cloudpickle", "msgpack", "pyarrow", "pandas", "numpy", "fsspec", "s3fs", "adlfs", "gcsfs")
#: What the scheduler has to share with the others: it unpickles tasks.
SCHEDULER_SAME = ("dask", "distributed")
SCHEDULER_ALIKE = ("python", "cloudpickle", "msgpack")
#: Seconds between two clocks from which times mislead people, and from which storages refuse requests.
SKEW_MISLEADS, SKEW_BREAKS = 2.0, 300.0
#: Seconds to place a task from which small batches are slow.
SLOW_PLACING = 0.5
#: Bytes a second to and from storage below which it holds workers up.
SLOW_STORE = 1e6


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    status: Status
    check: str  #: what was looked at
    where: str  #: "here", "scheduler", or a worker's address
    text: str
    todo: str = ""


def of_versions(
    where: str, here: Mapping[str, str], there: Mapping[str, str], *, executable: str = "", scheduler: bool = False
) -> list[Finding]:
    """What differs between this process and another one; nothing where nothing does."""
    same, alike = (SCHEDULER_SAME, SCHEDULER_ALIKE) if scheduler else (SAME, ALIKE)
    # of what cannot be imported another line speaks
    wrong = _differing(same, here, there, missing=scheduler)
    other = _differing(alike, here, there, missing=False)
    install = f"{executable} -m pip install" if executable else "pip install"
    found = []
    if wrong:
        todo = f"make them the same on all sides, such as: {install} {_pins(wrong, here)}"
        found.append(Finding(FAILURE, "versions", where, _told(wrong, here, there), todo))
    if other:
        todo = f"what one side writes the other may not read: {install} {_pins(other, here)}"
        found.append(Finding(WARNING, "versions", where, _told(other, here, there), todo))
    return found


def _differing(names: Iterable[str], here: Mapping[str, str], there: Mapping[str, str], *, missing: bool) -> list[str]:
    return [name for name in names if name in here and (name in there or missing) and there.get(name) != here[name]]


def _told(names: Sequence[str], here: Mapping[str, str], there: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {there.get(name, 'missing')} (here {here[name]})" for name in names)


def _pins(names: Sequence[str], here: Mapping[str, str]) -> str:
    return " ".join(f"{name}=={here[name]}" for name in names if name != "python") or f"(with Python {here['python']})"


def of_import(where: str, facts: Mapping[str, Any], version: str) -> list[Finding]:
    """Whether a worker can import what executes batches."""
    problem = facts.get("import_problem")
    if problem is None:
        return []
    todo = f"install it there: {facts.get('executable', 'python')} -m pip install dcompute=={version}"
    return [Finding(FAILURE, "import", where, f"dcompute cannot be imported on {facts.get('host')}: {problem}", todo)]


def of_clock(where: str, skew: float, uncertain: float) -> list[Finding]:
    """Whether a worker's clock goes with ours; what cannot be told is no finding."""
    sure = abs(skew) - uncertain
    if sure < SKEW_MISLEADS:
        return []
    text = f"its clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} ours (give or take {uncertain:.1f} s)"
    if sure < SKEW_BREAKS:
        return [Finding(WARNING, "clock", where, text, "times of attempts mislead: have the hosts keep time (chrony, systemd-timesyncd)")]
    return [Finding(FAILURE, "clock", where, text, "storages refuse requests that are signed so: have the hosts keep time")]


def of_placing(where: str, seconds: float) -> list[Finding]:
    """Whether tasks get to a worker quickly."""
    if seconds < SLOW_PLACING:
        return []
    todo = "is the scheduler busy, or far away? Batches are made longer, so long items do not suffer"
    return [Finding(WARNING, "placing", where, f"a task took {seconds:.2f} s to get there and back", todo)]


def of_silence(address: str, info: Mapping[str, Any], seconds: float) -> Finding:
    """What it means that a worker said nothing."""
    executing = int((info.get("metrics") or {}).get("executing") or 0)
    if executing and executing >= int(info.get("nthreads") or 1):
        return Finding(
            WARNING, "answer", address, f"all of its threads are at work, and none was free in {seconds:.0f} s", "look again later"
        )
    todo = "it is frozen, cut off or overloaded: look at its log and its host, or end it"
    return Finding(FAILURE, "answer", address, f"it did not answer in {seconds:.0f} s", todo)


def of_storage(where: str, answer: Mapping[str, Any], url: str) -> list[Finding]:
    """What a trial of the storage says, there."""
    if answer.get("problem"):
        return [Finding(FAILURE, "storage", where, str(answer["problem"]), _after(where))]
    if answer.get("sees") is False:
        todo = "use a folder that all machines share, or a URL (s3://...)"
        return [Finding(FAILURE, "storage", where, f"it does not find what was written here to {url}: these are different storages", todo)]
    rates = [answer["bytes"] / max(answer[name], 1e-6) for name in ("write_seconds", "read_seconds")]
    text = f"written and read, created once; {rates[0] / 1e6:,.1f} MB/s to it, {rates[1] / 1e6:,.1f} MB/s from it"
    if min(rates) < SLOW_STORE:
        return [Finding(WARNING, "storage", where, text, "results wait for such a storage: is it far away, or overloaded?")]
    return [Finding(OK, "storage", where, text)]


def _after(where: str) -> str:
    return "" if where == "here" else "workers read their own configuration (dcompute.storage) and need the storage's package"


def of_resources(offers: Mapping[str, Mapping[str, float]], threads: int, memory: float) -> list[Finding]:
    """What workers declare, all or some of them."""
    declared = {address: frozenset(resources) for address, resources in offers.items()}
    limit = f"{memory / 2**30:,.1f} GiB" if memory else "no limit of memory"
    count = f"{len(offers)} worker{'s' if len(offers) != 1 else ''}, {threads} threads, {limit}"
    everything = frozenset().union(*declared.values())
    if not everything:
        hint = "CPU and MEMORY are counted from threads and limits; GPUs need --preload dcompute.worker, or --resources"
        return [Finding(OK, "resources", "workers", f"{count}; none declares resources", hint)]
    found = [
        Finding(WARNING, "resources", address, f"declares no {', '.join(sorted(everything - names))}, as others do", _PRELOAD)
        for address, names in declared.items()
        if everything - names - {"GPU"}
    ]
    return found or [Finding(OK, "resources", "workers", f"{count}; declared: {', '.join(sorted(everything))}")]


_PRELOAD = "it takes no part in runs that ask for these: start it as the others (--preload dcompute.worker)"


def summed(check: str, text: str, asked: Sequence[str], found: Sequence[Finding]) -> list[Finding]:
    """The findings of a check on many workers, with one line for all that are well."""
    wrong = {finding.where for finding in found}
    well = [address for address in asked if address not in wrong]
    whom = f"{len(well)} worker{'s' if len(well) != 1 else ''}"
    return [*([Finding(OK, check, whom, text)] if well else []), *found]


def one_a_place(facts: Mapping[str, Mapping[str, Any]], *, most: int) -> list[str]:
    """A worker of each host and Python, so that a storage is tried from everywhere and not by everyone."""
    places: dict[tuple[Any, Any], list[str]] = defaultdict(list)
    for address, said in facts.items():
        places[said.get("host"), said.get("executable")].append(address)
    return [addresses[0] for addresses in places.values()][:most]
