"""What items can do to their process, and that it harms nobody else: right kind, neighbours done once, no process left."""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dcompute.code import pack
from dcompute.errors import InternalError
from dcompute.records import BatchSpec, ItemKey, Receipt, RunSpec, batch_id
from dcompute.worker import execution, system
from dcompute.worker.context import current
from dcompute.worker.supervisor import Execution, Supervisor, Work
from dcompute.worker.thread import execute as in_thread
from dcompute.workload import Workload

MIB = 1 << 20
CAP_SYS_RESOURCE = 1 << 24
_numbers = itertools.count(1)
pytestmark = pytest.mark.skipif(not system.LINUX, reason="processes are found by /proc")


@pytest.fixture(scope="module")
def keeper():
    """One supervisor for all tests of this module, as one worker process has."""
    keeper = Supervisor()
    yield keeper
    guardian = keeper.guardian_pid
    keeper.close()
    assert guardian is None or not system.is_alive(guardian)


class Batch:
    """A batch of commands, executed; what came of it."""

    def __init__(self, keeper: Supervisor, folder: Path, commands: list[Any], *, function: Any = None, **settings: Any) -> None:
        number = next(_numbers)
        limit = settings.pop("memory_limit", None)
        self.stopped = settings.pop("stopped", lambda: None)
        special = {name: settings.pop(name) for name in ("alone", "exclude") if name in settings}
        calls = folder / "calls"
        travelling = pack(Workload.of(function or act), {})
        run = RunSpec(
            run=settings.pop("run", f"run{number}"), dataset="/nowhere", workload="faults", code=travelling.code,
            code_digest=travelling.code_digest, params_digest=travelling.params_digest, **settings,
        )  # fmt: skip
        values = [(str(calls), place, command) for place, command in enumerate(commands)]
        count = len(commands)
        self.spec = BatchSpec(
            id=batch_id(run.run, 1, number), keys=tuple(ItemKey(str(place), "int") for place in range(count)), attempts=(1,) * count,
            fingerprints=("",) * count, values=pickle.dumps(values), **special,
        )  # fmt: skip
        work = Work(run=run, batch=self.spec, execution=f"{number:08x}", scratch=str(folder / "scratch"), memory_limit=limit)
        self.ticks: list[Any] = []
        execute = in_thread if run.isolation == "thread" else keeper.execute
        self.done: Execution = execute(work, stopped=self.stopped, ticked=self.ticks.append)
        self.calls = [int(line) for line in calls.read_text().split()] if calls.exists() else []

    @property
    def receipt(self) -> Receipt:
        assert self.done.receipt is not None, self.done
        return self.done.receipt

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The attempt rows."""
        return pq.read_table(self.done.files[-1][0]).to_pylist()

    @property
    def results(self) -> list[int]:
        """Keys of the result rows."""
        parts = [path for path, name in self.done.files if name.startswith("results/")]
        return [int(key) for path in parts for key in pq.read_table(path)["item_key"].to_pylist()]

    def failed(self) -> dict[int, str]:
        """Kind of failure by index."""
        return {failure.index: str(failure.kind) for failure in self.receipt.failures}

    def check_neighbours(self, guilty: dict[int, str]) -> None:
        """Only these failed, in this way; all others succeeded and were executed once."""
        assert self.failed() == guilty
        innocent = [place for place in range(len(self.spec)) if place not in guilty]
        assert sorted(self.results) == innocent
        assert [self.calls.count(place) for place in innocent] == [1] * len(innocent)
        assert self.receipt.holds == ((0, len(self.spec)),)


def act(value: tuple[str, int, Any]) -> Any:
    """Note the call, then do as commanded."""
    calls, place, command = value
    with open(calls, "a") as file:
        file.write(f"{place}\n")
    name, *arguments = command if isinstance(command, tuple) else (command,)
    return globals()[f"do_{name}"](*arguments)


def act_all(values: list[tuple[str, int, Any]]) -> list[Any]:
    return [act(value) for value in values]


def do_fine() -> int:
    return 1


def do_segfault() -> None:
    ctypes.string_at(0)


def do_exit(code: int) -> None:
    os._exit(code)


def do_system_exit() -> None:
    sys.exit(3)


def do_interrupt() -> None:
    raise KeyboardInterrupt


def do_hang() -> None:
    while True:
        time.sleep(60)


def do_hold(size: int) -> int:
    return len([bytearray(b"x" * (8 * MIB)) for _ in range(size // (8 * MIB))])


def do_hog() -> None:
    """Hold much until the end: a worker that is seldom given a core must see it too."""
    held = [bytearray(b"x" * (8 * MIB)) for _ in range(64)]
    time.sleep(60)
    del held


def do_hog_in_fork() -> int:
    pid = os.fork()
    if pid == 0:
        do_hog()
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def do_no_memory() -> None:
    raise MemoryError("so much")


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__(lambda: 0, threading.Lock())

    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no")

    __repr__ = __str__


class Liar(ValueError):
    @property
    def __class__(self) -> Any:
        return ConnectionError

    @property
    def __cause__(self) -> Any:
        raise RuntimeError("no cause")

    def __str__(self) -> Any:
        return 7

    @property
    def status_code(self) -> int:
        raise RuntimeError("no status")


def do_raise(name: str) -> None:
    raise {"unpicklable": Unpicklable, "unprintable": Unprintable, "liar": Liar}[name]


def do_raise_huge() -> None:
    raise ValueError("x" * 20_000_000)


def do_print(megabytes: int) -> int:
    line = "y" * 1023 + "\n"
    print("the very first line")
    for _ in range(megabytes):
        sys.stdout.write(line * 1024)
    print("the very last line")
    return megabytes


def do_print_all(text: str) -> int:
    print(text)
    print(text.upper(), file=sys.stderr)
    return 1


def do_stray(path: str) -> int:
    """Leave a process in a session of its own behind, two levels down."""
    code = "import subprocess, sys; n = subprocess.DEVNULL; "
    code += "print(subprocess.Popen(['sleep', '300'], start_new_session=True, stdout=n, stderr=n).pid)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with open(path, "a") as file:
        file.write(out.stdout)
    return 1


def do_stray_and_hang(path: str) -> None:
    do_stray(path)
    do_hang()


def do_stray_and_exit(path: str) -> None:
    do_stray(path)
    os._exit(7)


def do_kill_parent_of(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def do_kill_self_with(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def do_kill_guardian_once(path: str) -> int:
    if not Path(path).exists():
        Path(path).write_text("")
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return 1


def do_kill_guardian(after: float = 0.0) -> None:
    time.sleep(after)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def do_stop_guardian() -> int:
    os.kill(os.getppid(), signal.SIGSTOP)
    return 1


def do_stop_guardian_and_hang() -> None:
    do_stop_guardian()
    do_hang()


def connection() -> int:
    """The number of this process's connection to its worker."""
    return max(int(name) for name in os.listdir("/proc/self/fd") if _is_socket(f"/proc/self/fd/{name}"))


def _is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")
    except FileNotFoundError:
        return False


def do_write_to(number: int, data: bytes) -> int:
    return os.write(number, data)


def do_write_to_connection(data: bytes) -> None:
    os.write(connection(), data)
    time.sleep(60)


def do_take_all_files() -> int:
    """Leave no file number for anybody else."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
    taken = 0
    with contextlib.suppress(OSError):
        while True:
            os.open(os.devnull, os.O_RDONLY)
            taken += 1
    return taken


def do_forbid_files() -> int:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    return 1


def do_truncate_all(pause: float) -> int:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            os.ftruncate(int(name), 0)
    time.sleep(pause)
    return 1


def do_return(size: int) -> str:
    return "x" * size


def do_forbid_and_return(size: int) -> str:
    do_forbid_files()
    return "x" * size


def do_return_columns(count: int) -> dict[str, int]:
    """Few bytes as a pickle, many as Parquet."""
    return dict.fromkeys(map(str, range(count)), 1)


def do_forget_path() -> int:
    sys.path.clear()
    sys.meta_path.clear()
    for name in [name for name in sys.modules if name.startswith("pyarrow")]:
        del sys.modules[name]
    return 1


def do_fork_and_return() -> int:
    return os.fork()


def do_sleep(seconds: float) -> int:
    time.sleep(seconds)
    return 1


def do_share(size: int, processes: int) -> int:
    """Fork processes that share what this one holds."""
    held = bytearray(b"x") * size
    pids = []
    for _ in range(processes):
        pid = os.fork()
        if pid == 0:
            time.sleep(0.5)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return len(held)


def do_exec() -> None:
    os.execv("/bin/sleep", ["sleep", "300"])


def do_close_files() -> None:
    os.closerange(3, 256)
    time.sleep(60)


def do_leave_a_segfault_ticking(seconds: float) -> int:
    threading.Timer(seconds, ctypes.string_at, (0,)).start()
    return 1


def do_signal_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    do_hang()


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def assert_nothing_left(keeper: Supervisor) -> None:
    """Below the guardian there are warm children only, and nothing below these."""
    deadline = time.monotonic() + 5
    while True:
        children = system.descendants(keeper.guardian_pid or 0)
        alive = [pid for pid in children if system.is_alive(pid)]
        if len(alive) <= len(keeper._children):
            return
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in alive]
        time.sleep(0.01)


def may_raise_limits() -> bool:
    """Whether these processes may raise hard limits."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")]
    return bool(int(line.split()[1], 16) & CAP_SYS_RESOURCE)


FINE = ["fine"] * 3


@pytest.mark.parametrize(
    ("command", "kind", "error"),
    [
        pytest.param("segfault", "crash", "SIGSEGV", id="segfault"),
        pytest.param(("exit", 3), "crash", "exit code 3", id="os._exit"),
        pytest.param(("exit", 0), "crash", "exit code 0", id="os._exit(0)"),
        pytest.param(("kill_self_with", signal.SIGABRT), "crash", "SIGABRT", id="abort"),
        pytest.param(("kill_self_with", signal.SIGKILL), "crash", "SIGKILL", id="kill -9"),
        pytest.param("exec", "crash", "connection lost", id="exec"),
        pytest.param("close_files", "crash", "connection lost", id="closes all files"),
        pytest.param("system_exit", "permanent", "SystemExit", id="sys.exit"),
        pytest.param("interrupt", "permanent", "KeyboardInterrupt", id="KeyboardInterrupt"),
        pytest.param("no_memory", "memory", "MemoryError", id="MemoryError"),
        pytest.param(("raise", "unpicklable"), "permanent", f"{__name__}.Unpicklable", id="unpicklable"),
        pytest.param(("raise", "unprintable"), "permanent", f"{__name__}.Unprintable", id="unprintable"),
        pytest.param(("raise", "liar"), "permanent", f"{__name__}.Liar", id="liar"),
        pytest.param("raise_huge", "permanent", "ValueError", id="huge message"),
    ],
)
def test_item_hurts_only_itself(keeper, tmp_path, command, kind, error):
    """However an item fails, it has its right kind and error, its neighbours succeed once, and no process is left."""
    batch = Batch(keeper, tmp_path, [*FINE, command, *FINE], run="faults")
    batch.check_neighbours({3: kind})
    row = batch.rows[3]
    assert (row["outcome"], row["kind"], row["error"]) == ("failed", kind, error)
    assert len(row["message"]) < 10_000
    assert len(row["traceback"] or "") < 40_000
    assert_nothing_left(keeper)


def test_failures_one_after_another(keeper, tmp_path):
    """Several guilty items in one batch each get their verdict; those between are executed once."""
    batch = Batch(keeper, tmp_path, ["segfault", "fine", ("exit", 1), "segfault", "fine", "system_exit"])
    batch.check_neighbours({0: "crash", 2: "crash", 3: "crash", 5: "permanent"})


def test_a_crash_that_an_earlier_item_left_behind_convicts_nobody(keeper, tmp_path):
    """The neighbour at work is executed again alone in a fresh child and succeeds; the others were executed once."""
    batch = Batch(keeper, tmp_path, ["fine", ("leave_a_segfault_ticking", 0.2), ("sleep", 1.0), "fine"])
    assert batch.failed() == {}
    assert batch.calls == [0, 1, 2, 2, 3]
    assert_nothing_left(keeper)


def test_a_crash_where_nothing_may_run_twice(keeper, tmp_path):
    """With ``idempotent=False`` the item at work is convicted at once: its call had begun."""
    batch = Batch(keeper, tmp_path, ["fine", "segfault", "fine"], idempotent=False)
    batch.check_neighbours({1: "crash"})
    assert batch.calls == [0, 1, 2]


def test_hang_is_killed_at_its_timeout(keeper, tmp_path):
    """A call that does not end, and ignores SIGTERM, is killed soon after its timeout."""
    batch = Batch(keeper, tmp_path, [*FINE, "signal_ignored", *FINE], timeout=0.5)
    batch.check_neighbours({3: "timeout"})
    assert 0.5 <= batch.rows[3]["duration"] < 1.5
    assert_nothing_left(keeper)


def test_hog_is_killed_at_its_limit(keeper, tmp_path):
    """A call that allocates without end is killed at its limit, executed again alone in a fresh child, and convicted there."""
    batch = Batch(keeper, tmp_path, [*FINE, "hog", *FINE], memory_limit=300 * MIB)
    batch.check_neighbours({3: "memory"})
    assert batch.calls.count(3) == 2, "once with neighbours, once alone"
    assert 250 * MIB < batch.rows[3]["peak_memory"] < 800 * MIB
    assert batch.rows[3]["memory_measured"] == "tree"
    assert_nothing_left(keeper)


def test_hog_alone_is_convicted_at_once(keeper, tmp_path):
    """In a fresh child there is nobody else to blame for the memory."""
    batch = Batch(keeper, tmp_path, ["hog"], memory_limit=300 * MIB, alone=True)
    batch.check_neighbours({0: "memory"})
    assert batch.calls == [0]


def test_memory_of_the_whole_tree_counts(keeper, tmp_path):
    """What a forked process allocates is the item's."""
    batch = Batch(keeper, tmp_path, [*FINE, "hog_in_fork", *FINE], memory_limit=300 * MIB)
    batch.check_neighbours({3: "memory"})
    assert_nothing_left(keeper)


def test_memory_that_processes_share_counts_once(keeper, tmp_path):
    """Forked processes that only share pages with their parent do not take its memory again."""
    batch = Batch(keeper, tmp_path, [("share", 150 * MIB, 3), "fine"], memory_limit=350 * MIB)
    batch.check_neighbours({})


def test_below_the_limit_nobody_is_killed(keeper, tmp_path):
    """An item that stays below its limit succeeds, and its row tells its own peak."""
    batch = Batch(keeper, tmp_path, ["fine", ("hold", 104 * MIB), "fine"], memory_limit=600 * MIB)
    batch.check_neighbours({})
    assert 100 * MIB <= batch.rows[1]["peak_memory"] < 300 * MIB
    assert batch.rows[1]["measured"] == "item"
    assert batch.rows[0]["measured"] == "batch"


def test_prints_without_end_harm_nothing(keeper, tmp_path):
    """Of 1 GB of prints the head and the tail are kept; the neighbours' rows have only what they printed."""
    batch = Batch(keeper, tmp_path, [("print_all", "before"), ("print", 1024), ("print_all", "after"), "fine"])
    batch.check_neighbours({})
    shown = [(row["stdout"], row["stderr"]) for row in batch.rows]
    assert shown[0] == ("before\n", "BEFORE\n")
    assert shown[2] == ("after\n", "AFTER\n")
    assert shown[3] == (None, None)
    text = shown[1][0]
    assert text.startswith("the very first line\n")
    assert text.endswith("the very last line\n")
    assert "bytes left out" in text
    assert len(text) < 20_000


def test_what_a_crashed_item_printed_is_in_its_row(keeper, tmp_path):
    """The fatal error's own text is the crashed item's, not its neighbour's."""
    batch = Batch(keeper, tmp_path, [("print_all", "before"), "segfault", ("print_all", "after")])
    rows = batch.rows
    assert "Segmentation fault" in rows[1]["stderr"]
    assert rows[2]["stderr"] == "AFTER\n"


@pytest.mark.parametrize("command", ["stray", "stray_and_hang", "stray_and_exit"])
def test_processes_in_their_own_session_are_killed(keeper, tmp_path, command):
    """A grandchild in its own session does not outlive the batch; an item that leaves one behind succeeds and its row counts it."""
    strays = tmp_path / "strays"
    batch = Batch(keeper, tmp_path, ["fine", (command, str(strays)), "fine"], timeout=3.0)
    batch.check_neighbours({} if command == "stray" else {1: "timeout" if command == "stray_and_hang" else "crash"})
    left = pids_in(strays)
    assert len(left) == (2 if command == "stray_and_exit" else 1), "a crash in a used process is executed again"
    assert not any(map(system.is_alive, left))
    if command == "stray":
        assert batch.rows[1]["leftovers"] == 1
        assert batch.receipt.leftovers == 1
    assert_nothing_left(keeper)


def test_fork_that_comes_back_executes_nothing(keeper, tmp_path):
    """Where user code forks and both return, one of them goes on."""
    batch = Batch(keeper, tmp_path, ["fine", "fork_and_return", ("sleep", 0.5), "fine"])
    batch.check_neighbours({})
    assert_nothing_left(keeper)


def test_guardian_killed(keeper, tmp_path):
    """When the guardian is killed its children end too; a new one takes over, the item at work is executed again, nobody is to blame."""
    batch = Batch(keeper, tmp_path, [*FINE, ("kill_guardian_once", str(tmp_path / "once")), *FINE])
    assert batch.failed() == {}
    assert sorted(batch.results) == list(range(7))
    assert batch.calls == [0, 1, 2, 3, 3, 4, 5, 6]
    assert_nothing_left(keeper)


def test_guardian_killed_by_an_item(keeper, tmp_path):
    """An item that kills the guardian each time it is executed is convicted after three times, and the batch goes on."""
    batch = Batch(keeper, tmp_path, [*FINE, "kill_guardian", *FINE])
    batch.check_neighbours({3: "crash"})
    assert batch.calls.count(3) == 3
    assert batch.rows[3]["error"] == "guardian died"
    assert_nothing_left(keeper)


def test_guardian_killed_by_somebody_elses_item(keeper, tmp_path):
    """Another slot's item that was at work when the guardian was killed goes on below a guardian of its own, out of reach of the guilty."""
    found: dict[str, Batch] = {}

    def execute(name: str, commands: list[Any]) -> None:
        (tmp_path / name).mkdir()
        found[name] = Batch(keeper, tmp_path / name, commands)

    guilty = threading.Thread(target=execute, args=("guilty", ["fine", ("kill_guardian", 0.5), "fine"]))
    guilty.start()
    execute("innocent", [("sleep", 2.5), "fine"])
    guilty.join()
    found["guilty"].check_neighbours({1: "crash"})
    assert found["guilty"].calls.count(1) == 3
    assert found["innocent"].failed() == {}
    assert found["innocent"].calls in ([0, 0, 1], [0, 1]), "once more, where it had begun by then"
    assert_nothing_left(keeper)


def test_a_guardian_that_does_not_answer_is_replaced(keeper, tmp_path, monkeypatch):
    """An item that stops the guardian and hangs is killed at its timeout all the same, and the batch goes on below another."""
    monkeypatch.setattr(execution, "DEATH_TIMEOUT", 1.0)
    batch = Batch(keeper, tmp_path, [*FINE, "stop_guardian_and_hang", *FINE], timeout=0.5)
    batch.check_neighbours({3: "timeout"})
    assert_nothing_left(keeper)


def test_a_stopped_guardian_is_ended_with_all_below_it(tmp_path):
    """A supervisor that closes waits for a moment only, and leaves no process and no folder, stopped ones neither."""
    keeper = Supervisor()
    Batch(keeper, tmp_path, ["fine", "stop_guardian"]).check_neighbours({})
    known = [keeper.guardian_pid, *system.descendants(keeper.guardian_pid)]
    assert len(known) == 2
    os.kill(known[1], signal.SIGSTOP)
    began = time.monotonic()
    keeper.close()
    assert time.monotonic() - began < 15
    assert [system.is_alive(pid) for pid in known] == [False, False]
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("number", [3, 4])
def test_writing_to_a_low_file_number_harms_nothing(keeper, tmp_path, number):
    """No file number that user code may guess leads to the worker."""
    batch = Batch(keeper, tmp_path, [*FINE, ("write_to", number, b"\x00\x00\x00\x05hello"), *FINE])
    batch.check_neighbours({})


FORGED = b'{"op": "executed", "calls": 1, "leftovers": 0, "_blobs": [], "_files": 0}'


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00\x00\x00\x05hello", id="garbage"),
        pytest.param(b"\x00\x00\x00\x03[1]", id="no message"),
        pytest.param(b"\x7f\xff\xff\xff", id="huge"),
        pytest.param(b"\x00\x00", id="begun"),
        pytest.param(len(FORGED).to_bytes(4, "big") + FORGED, id="forged"),
    ],
)
def test_writing_to_the_connection_is_a_crash(keeper, tmp_path, data):
    """An item that writes to its process's connection to the worker is convicted, whatever it writes; the batch goes on."""
    batch = Batch(keeper, tmp_path, [*FINE, ("write_to_connection", data), *FINE])
    batch.check_neighbours({3: "crash"})
    assert batch.rows[3]["error"] == "connection lost"
    assert_nothing_left(keeper)


@pytest.mark.parametrize("command", ["take_all_files", "forbid_files", "forget_path"])
def test_rows_are_written_by_a_sound_process(keeper, tmp_path, command):
    """What an item did to its process's limits and modules does not cost the batch: no item is executed again, all succeed."""
    batch = Batch(keeper, tmp_path, [*FINE, command])
    batch.check_neighbours({})
    assert_nothing_left(keeper)


@pytest.mark.skipif(may_raise_limits(), reason="the limit is put back here")
def test_who_forbids_its_process_to_write_is_convicted(keeper, tmp_path):
    """Where the disk has room, the first item of a process that cannot be noted is to blame; one that comes after others is not."""
    batch = Batch(keeper, tmp_path, [("forbid_and_return", 300_000), ("forbid_and_return", 10), ("return", 600_000), ("return", 10)])
    assert batch.failed() == {0: "crash"}
    assert sorted(batch.results) == [1, 2, 3]
    assert batch.rows[0]["error"] == "file limit"
    assert batch.calls == [0, 1, 2, 2, 3]
    assert batch.done.setup_error is None
    assert_nothing_left(keeper)


@contextlib.contextmanager
def disk_of(size: int) -> Iterator[Supervisor]:
    """A supervisor that can write no file larger than so many bytes, nor can its children."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    keeper = Supervisor()
    try:
        yield keeper
    finally:
        keeper.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_scratch_keeps_what_is_finished(tmp_path):
    """What is finished is made into parts and nothing of it is executed again; nobody is blamed, and the folder is named."""
    with disk_of(1_000_000) as keeper:
        batch = Batch(keeper, tmp_path, [("return", 100_000)] * 8)
        results = batch.results
    ((first, end),) = batch.receipt.holds
    assert (first, batch.failed()) == (0, {})
    assert 2 <= end < 8
    assert results == list(range(end))
    assert batch.calls == list(range(end + 1)), "the item at work goes out again, with those after it"
    assert batch.done.cut_short == "full"
    failure = batch.done.setup_error
    assert failure is not None
    assert failure.stage == "scratch"
    assert str(tmp_path / "scratch") in failure.text
    assert "worker.scratch" in failure.text


def test_full_scratch_where_nothing_may_run_twice(tmp_path):
    """With ``idempotent=False`` the item at work has an outcome, for which there is room: the batch goes out again without it."""
    with disk_of(1_000_000) as keeper:
        batch = Batch(keeper, tmp_path, [("return", 100_000)] * 8, idempotent=False)
        rows = batch.rows
    ((_, end),) = batch.receipt.holds
    assert batch.calls == list(range(end))
    assert batch.failed() == {end - 1: "infrastructure"}
    assert rows[-1]["error"] == "scratch full"


@pytest.mark.parametrize(
    ("size", "command"),
    [
        pytest.param(100_000, "fine", id="no journal"),
        pytest.param(300_000, ("return", 400_000), id="no outcome"),
        pytest.param(300_000, ("return_columns", 2000), id="no parts"),
    ],
)
def test_scratch_too_full_for_anything(tmp_path, size, command):
    """Where nothing at all can be kept the batch comes to nothing, with the folder named, and leaves nothing behind."""
    with disk_of(size) as keeper:
        batch = Batch(keeper, tmp_path, [command])
        batch.done.discard()
        assert list((tmp_path / "scratch").iterdir()) == []
    failure = batch.done.setup_error
    assert failure is not None
    assert (batch.done.receipt, failure.stage) == (None, "scratch")
    assert str(tmp_path / "scratch") in failure.text
    assert not batch.done.untouched or not batch.calls


def test_scratch_too_full_for_a_package(tmp_path):
    """A package that was sent and cannot be unpacked says nothing against the workload."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("lab/__init__.py", "#" * 400_000)
    with disk_of(300_000) as keeper:
        batch = Batch(keeper, tmp_path, FINE, modules=(("lab", "0", archive.getvalue()),))
    failure = batch.done.setup_error
    assert failure is not None
    assert (batch.done.receipt, failure.stage) == (None, "scratch")
    assert str(tmp_path / "scratch") in failure.text
    assert batch.calls == []


@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_truncating_all_open_files_harms_no_other_item(keeper, tmp_path, pause):
    """Items that truncate what their process has open are convicted, each by itself, and the worker lives."""
    batch = Batch(keeper, tmp_path, [*FINE, ("truncate_all", pause), *FINE, ("truncate_all", pause), "fine"])
    assert batch.failed() == {3: "crash", 7: "crash"}
    assert sorted(batch.results) == [0, 1, 2, 4, 5, 6, 8]
    assert batch.rows[3]["error"] == "journal damaged"
    assert_nothing_left(keeper)


def test_truncating_where_nothing_may_run_twice(keeper, tmp_path):
    """With ``idempotent=False`` the batch is given up instead: what is not known to be done is not done again."""
    with pytest.raises(InternalError, match="no journal any more"):
        Batch(keeper, tmp_path, ["fine", ("truncate_all", 0.1), "fine"], idempotent=False)
    assert_nothing_left(keeper)


def test_guardian_killed_with_strays(keeper, tmp_path):
    """When the guardian is killed, what its children left in sessions of their own is killed too."""
    strays = tmp_path / "strays"
    victim = threading.Thread(target=_kill_guardian_when, args=(keeper, strays))
    victim.start()
    batch = Batch(keeper, tmp_path, [("stray_and_hang", str(strays))], timeout=3.0)
    victim.join()
    assert batch.failed() == {0: "timeout"}
    assert [system.is_alive(pid) for pid in pids_in(strays)] == [False, False]


def _kill_guardian_when(keeper: Supervisor, path: Path) -> None:
    deadline = time.monotonic() + 20
    while not pids_in(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(keeper.guardian_pid, signal.SIGKILL)


def test_group_with_a_guilty_item(keeper, tmp_path):
    """A group that fails is no attempt: its items are executed again one by one, and only the guilty one fails."""
    for command, kind in (("segfault", "crash"), ("system_exit", "permanent"), ("hang", "timeout")):
        folder = tmp_path / str(command)
        folder.mkdir()
        batch = Batch(keeper, folder, [*FINE, command, *FINE, *FINE], function=act_all, group=5, timeout=0.7)
        assert batch.failed() == {3: kind}
        assert sorted(batch.results) == [place for place in range(10) if place != 3]
        assert {row["measured"] for row in batch.rows[5:]} == {"group"}
        assert batch.calls.count(9) == 1
    assert_nothing_left(keeper)


def tell_seeds(values: list[Any]) -> list[dict[str, Any]]:
    return [{"key": item.key, "seed": item.seed} for item in current().items]


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_items_of_a_group_know_their_own_seeds(keeper, tmp_path, isolation):
    """In one call with several items each is told with the key and seed that its row has."""
    batch = Batch(keeper, tmp_path, FINE, function=tell_seeds, group=2, seed=5, isolation=isolation)
    told = pq.read_table(batch.done.files[0][0]).to_pylist()
    assert [row["key"] for row in told] == [row["item_key"] for row in told] == ["0", "1", "2"]
    assert [row["seed"] for row in told] == [row["seed"] for row in batch.rows]
    assert len({row["seed"] for row in told}) == 3
    assert {row["measured"] for row in batch.rows} == {"group"}, "none was executed by itself"


def test_cancel_keeps_what_is_finished(keeper, tmp_path):
    """A cancelled batch ends within a moment; its receipt holds what was finished, and says so."""
    began = time.monotonic()
    batch = Batch(keeper, tmp_path, [*FINE, "hang", *FINE], stopped=lambda: "cancelled" if time.monotonic() > began + 1.5 else None)
    assert time.monotonic() - began < 6
    assert batch.done.cut_short == "cancelled"
    assert batch.receipt.holds == ((0, 3),)
    assert sorted(batch.results) == [0, 1, 2]
    assert batch.calls == [0, 1, 2, 3]
    assert_nothing_left(keeper)


def test_cancel_before_anything_is_finished(keeper, tmp_path):
    """There is no receipt where no item has an outcome, and nothing lies in the scratch folder."""
    batch = Batch(keeper, tmp_path, ["hang"], stopped=lambda: "closing")
    assert (batch.done.receipt, batch.done.cut_short, batch.done.files) == (None, "closing", [])
    assert list((tmp_path / "scratch").iterdir()) == []
    assert_nothing_left(keeper)


def test_excluded_items_are_not_executed(keeper, tmp_path):
    """Items that have an outcome already are left out of a batch that goes out again."""
    batch = Batch(keeper, tmp_path, [*FINE, "fine"], exclude=(0, 2))
    assert batch.calls == [1, 3]
    assert batch.receipt.holds == ((1, 2), (3, 4))


def test_warm_child_serves_its_run_only(keeper, tmp_path):
    """The batches of one run share a process; another run gets a new one."""
    pids = []
    for run in ("one", "one", "two"):
        folder = tmp_path / str(len(pids))
        folder.mkdir()
        pids.append(Batch(keeper, folder, ["fine"], run=run).rows[0]["pid"])
    assert pids[0] == pids[1] != pids[2]


class Broken:
    """A workload whose set-up fails."""

    def __init__(self) -> None:
        print("about to fail")
        raise OSError("no model here")

    def __call__(self, value: Any) -> None: ...


class Stuck(Broken):
    def __init__(self) -> None:
        time.sleep(60)


class Crashing(Broken):
    def __init__(self) -> None:
        os._exit(5)


@pytest.mark.parametrize(("function", "text"), [(Broken, "no model here"), (Stuck, "did not end within 1 s"), (Crashing, "exit code 5")])
def test_failed_setup_is_nobodys_fault(keeper, tmp_path, function, text):
    """Set-up that raises, hangs or crashes is told with its log, and no item is billed."""
    batch = Batch(keeper, tmp_path, FINE, function=function, setup_timeout=1.0 if function is Stuck else 60.0)
    failure = batch.done.setup_error
    assert failure is not None
    assert text in failure.text
    assert batch.done.receipt is None
    assert ("about to fail" in failure.log) == (function is Broken)
    assert_nothing_left(keeper)


@pytest.mark.parametrize("stopped", [False, True])
def test_worker_killed_leaves_nothing(tmp_path, stopped):
    """When the worker is killed -9, child, strays and guardian (a stopped one too) end within seconds, and its scratch is removed."""
    strays, pids = tmp_path / "strays", tmp_path / "pids"
    script = textwrap.dedent(f"""
        import sys, json, pathlib, threading, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_child_faults as t
        keeper = t.Supervisor()
        folder = pathlib.Path({str(tmp_path)!r})
        thread = threading.Thread(target=t.Batch, args=(keeper, folder, [("stray_and_hang", {str(strays)!r})]))
        thread.start()
        while not t.pids_in(folder / "strays"):
            time.sleep(0.01)
        (folder / "pids.new").write_text(json.dumps([keeper.guardian_pid, *t.system.descendants(keeper.guardian_pid)]))
        (folder / "pids.new").rename(folder / "pids")
        thread.join()
    """)
    worker = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 30
    while not pids.exists():
        assert worker.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    known = json.loads(pids.read_text()) + pids_in(strays)
    if stopped:
        os.kill(known[0], signal.SIGSTOP)
    worker.kill()
    worker.wait()
    assert len(set(known)) >= 3
    while any(system.is_alive(pid) for pid in known) or (tmp_path / "scratch").exists():
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.01)


def test_many_threads_share_one_supervisor(keeper, tmp_path):
    """Threads of an in-process worker execute at the same time, each with a child of its own; a crash in one harms no other."""
    found: dict[int, Batch] = {}

    def one(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        found[number] = Batch(keeper, folder, ["fine", "segfault" if number == 1 else "fine", "fine"], run="shared")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, batch in found.items():
        batch.check_neighbours({1: "crash"} if number == 1 else {})
    assert len(found) == 3
    assert_nothing_left(keeper)
