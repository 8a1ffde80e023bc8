"""What can never work is an error before the first batch, which says whose fault it is; and what code travels in which way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

import dcompute as dc
from dcompute.errors import DcomputeError, InitializerError, StoreError, UsageError, WorkloadError
from tests.processes import DaskProcesses, until


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler and one worker, in processes and a folder of their own."""
    cluster = DaskProcesses(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.add_worker("--no-nanny")
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        yield cluster
    finally:
        cluster.close()


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Modules in this folder can be imported here; afterwards they are forgotten."""
    sys.path.insert(0, str(folder))
    before = set(sys.modules)
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def write_package(folder: Path, name: str, answer: str) -> None:
    """A package whose function ``work`` gives this answer, by way of a module beside it."""
    package = folder / name
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("from .inner import work\n")
    (package / "inner.py").write_text(f"def work(x):\n    return {answer!r}\n")


def double(x: int) -> int:
    return 2 * x


def table(url: object) -> dict[str, Any]:
    """The value of each item, by key."""
    frame = dc.open(url).results().compute()
    return dict(zip(frame["item_key"], frame["value"], strict=True)) if len(frame) else {}


def refused(run: dc.Run, kind: type[DcomputeError]) -> str:
    """The text with which a run ends before its first batch."""
    with pytest.raises(kind) as caught:
        run.wait(60, progress="quiet")
    assert len(run.attempts()) == 0
    return str(caught.value)


# -- code ----------------------------------------------------------------------------------------------------------------------


def test_a_module_that_a_worker_lacks_is_refused_with_module_and_worker(processes: DaskProcesses, tmp_path: Path) -> None:
    """A worker in another folder does not find what stands beside the script: the error names both, and modules=."""
    write_package(tmp_path, "only_here", "never")
    with importable(tmp_path):
        import only_here  # type: ignore[import-not-found]

        text = refused(dc.map(only_here.work, [1], tmp_path / "d", client=processes.address), WorkloadError)
    with Client(processes.address, set_as_default=False) as client:
        worker = next(iter(client.scheduler_info()["workers"]))
    assert all(word in text for word in ("only_here", worker, 'modules=["only_here"]')), text


def test_a_module_that_the_code_of_a_script_imports_at_its_call_fails_as_the_items_own(processes: DaskProcesses, tmp_path: Path) -> None:
    """What is imported only when the function runs cannot be seen before: it fails as an item, and is not retried."""

    def late(x: int) -> int:
        import a_module_that_nobody_has  # type: ignore[import-not-found]

        return int(a_module_that_nobody_has.f(x))

    run = dc.map(late, [1], tmp_path / "d", client=processes.address)
    assert run.wait(60, progress="quiet")
    failed = run.failures().compute()
    assert list(failed["kind"]) == ["permanent"]
    assert list(failed["error"]) == ["ModuleNotFoundError"]


@pytest.mark.parametrize("where", ["local", "processes"])
def test_a_sent_package_that_changed_is_never_executed_in_its_old_form(where: str, processes: DaskProcesses, tmp_path: Path) -> None:
    """The second run sends what is on disk now, to workers that still have the first; of the same length, within the same second."""
    client = processes.address if where == "processes" else None
    name = f"changing_{where}"
    for answer in ("old", "new"):
        write_package(tmp_path, name, answer)
        with importable(tmp_path):
            module = __import__(name)
            run = dc.map(module.work, ["x"], tmp_path / answer, modules=[name], client=client)
            assert run.wait(60, progress="quiet")
        assert table(tmp_path / answer) == {"x": answer}


def test_a_package_beside_the_script_that_changed_is_executed_as_it_is_now(python: Callable[..., Any], tmp_path: Path) -> None:
    """The same script twice, its module changed in between: the function's change is reported, and version="code" redoes it."""
    script = (
        "import dcompute as dc, beside\n"
        "run = dc.map(dc.workload(version='code')(beside.work), ['x'], 'd')\n"
        "run.wait(progress='quiet')\nprint(run.results().compute()['value'].tolist())\n"
    )
    (tmp_path / "script.py").write_text(script)
    for answer in ("first form", "the second form"):
        write_package(tmp_path, "beside", answer)
        done = python("script.py")
        assert done.stdout.strip() == f"['{answer}']", done.stderr


def test_code_of_main_travels_by_value_to_workers_of_another_folder(
    processes: DaskProcesses, python: Callable[..., Any], tmp_path: Path
) -> None:
    """Functions, classes, dataclasses and globals of a script, on a worker that has never seen it."""
    (tmp_path / "script.py").write_text(
        "import dataclasses, sys\nimport dcompute as dc\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n    y: int\n"
        "offset = 5\n"
        "def helper(x):\n    return Point(x, x + offset)\n"
        "@dc.workload(timeout='20 s')\ndef work(point):\n    return helper(point.x)\n"
        "run = dc.map(work, [Point(1, 0), Point(2, 0)], 'd', key=lambda point: f'p{point.x}', client=sys.argv[1])\n"
        "run.wait(progress='quiet')\nframe = run.results().compute().sort_values('x')\n"
        "print(frame[['item_key', 'x', 'y']].values.tolist())\n"
    )
    done = python("script.py", processes.address)
    assert done.stdout.strip() == "[['p1', 1, 6], ['p2', 2, 7]]", done.stderr


def test_what_cannot_be_sent_is_refused_at_once(tmp_path: Path) -> None:
    """dc.map itself names the culprit."""
    with (tmp_path / "open").open("w") as file:
        with pytest.raises(WorkloadError, match=r"params\['file'\]"):
            dc.map(lambda x, file: x, [1], tmp_path / "d", params={"file": file})

        def holds(x: int) -> int:
            return file.write(str(x))

        with pytest.raises(WorkloadError, match=r"holds, which uses the variable 'file'.*cannot be sent.*[Pp]ass its path"):
            dc.map(holds, [1], tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"batch_size": 0}, UsageError, "batch_size=0"),
        ({"errors": "stop"}, UsageError, "'record', 'raise'"),
        ({"on_change": "redo"}, UsageError, "'rerun', 'keep', 'error'"),
        ({"max_failures": -1}, UsageError, "max_failures=-1"),
        ({"retry_failed": "timeouts"}, UsageError, "timeouts"),
        ({"seed": "x"}, UsageError, "seed='x'"),
        ({"params": {"facter": 2}}, WorkloadError, "facter"),
        ({"params": [1]}, UsageError, "params=[1]"),
        ({"modules": ["no_such_module"]}, WorkloadError, "no_such_module"),
        ({"modules": "no_such_module"}, WorkloadError, "no_such_module"),
        ({"modules": [3]}, UsageError, "modules=[3]"),
        ({"modules": 3}, UsageError, "modules=3"),
        ({"client": 3.5}, UsageError, "client=float"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(
    given: dict[str, Any], kind: type[DcomputeError], words: str, tmp_path: Path
) -> None:
    """dc.map itself raises, names the argument, and has written nothing."""
    with pytest.raises(kind) as caught:
        dc.map(double, [1], tmp_path / "d", **given)
    assert words in str(caught.value)
    assert not (tmp_path / "d").exists()


# -- storage -------------------------------------------------------------------------------------------------------------------


def test_storage_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """The place of the dataset is a file, or nobody may write there: a StoreError that names it, from dc.map, and no batch goes out."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file is a file, and a dataset is a folder"):
        dc.map(double, [1], tmp_path / "file" / "d").wait(30, progress="quiet")
    with pytest.raises(StoreError, match="/proc"):
        dc.map(double, [1], "/proc/d").wait(30, progress="quiet")


def test_storage_that_nobody_has_proved_is_refused_at_once() -> None:
    """dc.map says which may be used."""
    with pytest.raises(StoreError, match="exclusive creation"):
        dc.map(double, [1], "ftp://somewhere/d")


def test_memory_is_refused_where_a_worker_is_another_process(processes: DaskProcesses) -> None:
    """The worker is named; with in-process workers the same URL is good."""
    url = "memory://refusals/d"
    text = refused(dc.map(double, [1], url, client=processes.address), StoreError)
    assert "tcp://" in text
    run = dc.map(double, [1, 2], url)
    assert run.wait(60, progress="quiet")
    assert table(url) == {"1": 2, "2": 4}


@contextmanager
def worker_that_sees_other_storage(cluster: DaskProcesses, folder: Path) -> Iterator[None]:
    """A worker in a mount namespace of its own, where this folder is another one."""
    words = [
        sys.executable, "-m", "dask", "worker", cluster.address, "--nthreads", "1", "--no-dashboard", "--no-nanny", "--host", "127.0.0.1",
        "--local-directory", str(cluster.folder / "elsewhere"),
    ]  # fmt: skip
    script = f'mount -t tmpfs none "{folder}" && exec "$@"'
    with (cluster.folder / "elsewhere.log").open("wb") as log:
        process = subprocess.Popen(["unshare", "-m", "sh", "-c", script, "sh", *words], stdout=log, stderr=log, cwd=cluster.folder)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def _can_unshare() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_unshare(), reason="mount namespaces need rights that are missing here")
@pytest.mark.parametrize("late", [False, True])
def test_a_dataset_that_driver_and_worker_do_not_both_see_is_refused(late: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The worker is named. One that is there ends the run before its first batch, one that comes later takes no part: nothing counts."""
    folder = tmp_path / "mine"
    folder.mkdir()
    cluster = DaskProcesses(tmp_path / "cluster")
    try:
        with Client(cluster.address, set_as_default=False) as client:
            run = dc.map(double, [1, 2], folder / "d", client=cluster.address) if late else None
            if run is not None:
                until(lambda: run.status().running, 20, "a batch that waits for a worker")
            with worker_that_sees_other_storage(cluster, folder):
                client.wait_for_workers(1, timeout=30)
                named = next(iter(client.scheduler_info()["workers"]))
                if run is None:
                    text = refused(dc.map(double, [1, 2], folder / "d", client=cluster.address), StoreError)
                else:
                    until(lambda: "takes no part" in caplog.text, 60, "the verdict on the worker that joined")
                    text = caplog.text
                assert named in text
                assert "different storage" in text
                assert table(folder / "d") == {}
            cluster.add_worker()
            again = run or dc.map(double, [1, 2], folder / "d", client=cluster.address)
            assert again.wait(60, progress="quiet")
            assert again.summary().succeeded == 2
    finally:
        cluster.close()


# -- what is wrong with a cluster ----------------------------------------------------------------------------------------------


def test_a_class_whose_init_fails_is_no_items_failure(processes: DaskProcesses, tmp_path: Path) -> None:
    """The error has the text and the traceback of the set-up, which ran on the worker."""

    class Broken:
        def __init__(self) -> None:
            raise FileNotFoundError("weights.bin")

        def __call__(self, x: int) -> int:
            return x

    text = refused(dc.map(Broken, [1], tmp_path / "d", client=processes.address), InitializerError)
    assert "weights.bin" in text
    assert "__init__" in text
