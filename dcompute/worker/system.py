"""What only one operating system has: subreapers, ``/proc``, process groups, cgroups. Elsewhere each function has a plain answer.

Standard library only: the guardian imports this without the rest of dcompute.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
#: File numbers from here on no user code meets by accident, as one does that closes all below 64.
OUT_OF_REACH = 200
_CGROUPS = Path("/sys/fs/cgroup")
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def become_subreaper() -> bool:
    """Make orphans below this process its children; False where the system cannot."""
    if not LINUX:
        return False
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def wake_when_parent_ends() -> None:
    """Have the kernel continue this process, should it be stopped, when a thread of its parent that started it ends."""
    if LINUX:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


def offer_to_oom_killer() -> None:
    """Let the kernel, when memory runs out, kill this process and what it starts before the worker and the guardian."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def open_process(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None


def may_be_written(path: str) -> bool:
    """Whether a process, this one too, may have a file open for writing; true where the system or file system does not tell."""
    if not LINUX:
        return True
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # a read lease is given only where nobody can write; who opens the file meanwhile must not have this process signalled to death
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


# ---------------------------------------------------------------------------------------------------------------- processes


def descendants(pid: int) -> list[int]:
    """Ids of all processes below one, parents before their children; nothing where there is no ``/proc``."""
    found: list[int] = []
    queue = [pid]
    while queue:
        children = _children(queue.pop())
        found += children
        queue += children
    return found


def _children(pid: int) -> list[int]:
    folder = f"/proc/{pid}/task"
    found: list[int] = []
    try:
        for thread in os.listdir(folder):  # noqa: PTH208  five times the speed of iterdir, at each tick of each child
            with open(f"{folder}/{thread}/children", "rb") as file:  # noqa: PTH123
                found += map(int, file.read().split())
    except FileNotFoundError:
        return found if Path(f"/proc/self/task/{os.getpid()}/children").exists() or not LINUX else _children_by_scan(pid)
    except OSError:
        return found
    return found


def _children_by_scan(pid: int) -> list[int]:
    """For kernels without ``children`` files."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and parent(int(name)) == pid]  # noqa: PTH208


def _stat(pid: int) -> list[bytes]:
    """The fields of ``/proc/<pid>/stat`` from the state on, which is field 3."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def parent(pid: int) -> int | None:
    """Id of a process's parent; None where there is no such process."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def is_alive(pid: int) -> bool:
    """True for a process that exists and is no zombie."""
    fields = _stat(pid)
    if fields or LINUX:
        return bool(fields) and fields[0] not in (b"Z", b"X")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill(pid: int, *, group: bool = False) -> None:
    """SIGKILL a process, or its whole process group; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL) if group else os.kill(pid, signal.SIGKILL)


def kill_below(pid: int, *, spare: Collection[int] = (), patience: float = 2.0) -> int:
    """Kill every process below one, those that left its process group too.

    Parameters
    ----------
    spare
        Processes that stay, with all that is below them.
    patience
        Seconds after which processes that still come up are given up.

    Returns
    -------
    int
        How many were killed.
    """
    return len(_kill_all(lambda: [one for one in _below(pid, spare) if is_alive(one)], patience))


def _kill_all(find: Callable[[], list[int]], patience: float) -> set[int]:
    """Kill what is found until nothing is any more, or for so many seconds; all that were killed."""
    killed: set[int] = set()
    deadline = time.monotonic() + patience
    while (targets := find()) and time.monotonic() <= deadline:
        fresh = set(targets) - killed
        for one in targets:
            kill(one)
        killed |= fresh
        if not fresh:
            time.sleep(0.001)
    return killed


def _below(pid: int, spare: Collection[int]) -> list[int]:
    if not spare:
        return descendants(pid)
    kept = set(spare)
    found: list[int] = []
    queue = [pid]
    while queue:
        children = [one for one in _children(queue.pop()) if one not in kept]
        found += children
        queue += children
    return found


def kill_marked(mark: bytes) -> int:
    """Kill every process whose environment holds a text: what is left when those who knew the tree are dead."""
    if not LINUX:
        return 0
    killed = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{name}/environ").read_bytes():
                kill(int(name))
                killed += 1
    return killed


def kill_marked_below(pid: int, mark: bytes, *, patience: float = 2.0) -> int:
    """Kill every process below one whose environment holds a text, and wait for those that are nobody else's by now.

    Returns
    -------
    int
        How many were killed.
    """
    killed = _kill_all(lambda: [one for one in descendants(pid) if is_alive(one) and mark in _environment(one)], patience)
    for one in killed:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(one, os.WNOHANG)
    return len(killed)


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


# ------------------------------------------------------------------------------------------------------------------- memory


def memory(pids: Iterable[int]) -> int:
    """Bytes that processes hold and the kernel cannot take back: anonymous and shared memory, no mapped files.

    Pages that forked processes share count once for each.
    """
    return sum(_sum_of(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:")) for pid in pids)


def shared_memory(pids: Iterable[int]) -> int:
    """As :func:`memory`, with pages that processes share split between them; ten times as dear."""
    return sum(_sum_of(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) for pid in pids)


def _sum_of(path: str, names: tuple[bytes, ...]) -> int:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  at each tick of each child
            text = file.read(8192)
    except OSError:
        return 0
    total = 0
    for name in names:
        at = text.find(name)
        if at >= 0:
            total += int(text[at + len(name) : text.index(b"\n", at)].split()[0])
    return total * 1024


def machine_memory() -> int:
    """Bytes of memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cgroup_memory_limit() -> int | None:
    """Bytes that the cgroups of this process allow (version 1 or 2), the smallest up the tree; None where there is no limit."""
    limits = [_number(folder / name) for folder in _cgroup_folders() for name in ("memory.max", "memory.limit_in_bytes")]
    # version 1 writes "no limit" as the largest multiple of a page
    real = [limit for limit in limits if limit is not None and limit < 1 << 62]
    return min(real, default=None)


def oom_kills() -> int:
    """How often the kernel killed a process in the cgroup of this process for want of memory; 0 where it does not count."""
    for folder in _cgroup_folders():
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                for line in (folder / name).read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
    return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def cpu_quota() -> float | None:
    """Cores that the cgroups of this process allow (version 1 or 2), the fewest up the tree; None where there is no limit."""
    found = []
    for folder in _cgroup_folders("cpu"):
        with contextlib.suppress(OSError):
            found.append(_quota((folder / "cpu.max").read_text()))
        with contextlib.suppress(OSError):
            found.append(_quota(f"{(folder / 'cpu.cfs_quota_us').read_text()} {(folder / 'cpu.cfs_period_us').read_text()}"))
    return min((quota for quota in found if quota is not None), default=None)


def _quota(text: str) -> float | None:
    """Cores that a quota and its period mean; ``max`` and -1 are none."""
    with contextlib.suppress(ValueError, ZeroDivisionError):
        quota, period = map(int, text.split())
        return quota / period if quota > 0 else None
    return None


def _cgroup_folders(controller: str = "memory") -> list[Path]:
    """Folders of this process's cgroup, itself first, then up to the root; a container sees its own as the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS
        relative = Path(path.lstrip("/"))
        folders += [root / relative, *(root / above for above in relative.parents)]
    return folders


# -------------------------------------------------------------------------------------------------------------------- cores


def own_cores() -> tuple[int, ...]:
    """Numbers of the cores that this process may use."""
    if LINUX:
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def bind(pid: int, cores: Collection[int]) -> bool:
    """Let all threads of a process, and what they start from now on, use these cores only; False where that is not permitted."""
    if not LINUX:
        return False
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cores)
    except OSError:
        return False
    return True


def cpu_model() -> str:
    """What the processor is called; "" where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return ""


# ------------------------------------------------------------------------------------------------------- this process's own


class OwnFigures:
    """Counters of this process that the kernel keeps, read from files held open.

    Each read costs about a microsecond. A counter that the kernel lacks reads as None.
    """

    def __init__(self) -> None:
        self._io = _open("/proc/self/io", os.O_RDONLY)
        self._peak = _open("/proc/self/clear_refs", os.O_WRONLY)
        self._stat = _open("/proc/self/stat", os.O_RDONLY) if _number(Path("/proc/sys/kernel/task_delayacct")) == 1 else None

    def io_bytes(self) -> tuple[int, int] | None:
        """Bytes read and written through system calls, by children that ended too, whether disk or page cache served them."""
        text = _read(self._io)
        if text is None:
            return None
        lines = text.split(b"\n", 2)
        return int(lines[0][7:]), int(lines[1][7:])

    def reset_peak(self) -> bool:
        """Let the largest resident size (``ru_maxrss``) start anew from now on; False where that cannot be."""
        if self._peak is None:
            return False
        try:
            os.pwrite(self._peak, b"5", 0)
        except OSError:
            self._peak = None
            return False
        return True

    def io_wait(self) -> float | None:
        """Seconds that this process waited for block devices."""
        text = _read(self._stat)
        return None if text is None else int(text.rpartition(b")")[2].split()[39]) / _TICKS


def _open(path: str, flags: int) -> int | None:
    try:
        return os.open(path, flags)
    except OSError:
        return None


def _read(descriptor: int | None) -> bytes | None:
    if descriptor is None:
        return None
    try:
        return os.pread(descriptor, 1024, 0)
    except OSError:
        return None
