"""A real ffmpeg over real clips: killed, terminated, given broken files, cancelled; whole results or none, and nothing left."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import dcompute as dc
from dcompute.errors import InitializerError, RunCancelled
from dcompute.records import Kind
from tests.commands.clips import TRANSCODE, at_work, make, probe
from tests.processes import dask_processes, kill, until

CLIPS = 40
LONG = {"clip-07": signal.SIGTERM, "clip-21": signal.SIGKILL}
BROKEN = "clip-33"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 clips: two of them long enough to be met at work, one cut off."""
    folder = tmp_path_factory.mktemp("clips")
    short, long = make(folder / "short.mp4", 1), make(folder / "long.mp4", 60)
    for number in range(CLIPS):
        name = f"clip-{number:02d}"
        (folder / f"{name}.mp4").write_bytes((long if name in LONG else short).read_bytes())
    (folder / f"{BROKEN}.mp4").write_bytes(short.read_bytes()[: short.stat().st_size // 2])
    short.unlink()
    long.unlink()
    return folder


def plays_whole(outputs: Any) -> bool:
    """The declared test: a file that was cut off plays for a shorter time."""
    seconds, _ = probe(outputs["video"])
    return seconds > (59 if outputs["video"].stem in LONG else 0.9)


def realtime(**options: Any) -> dc.Workload:
    """An ffmpeg that takes as long as its clip plays."""
    return dc.command(TRANSCODE.replace("-y -i", "-y -re -i"), outputs={"video": "{stem}.mkv"}, **options)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[[], dict[Path, set[int]]]]:
    """Every size that each visible file of the dataset ever had."""
    sizes: dict[Path, set[int]] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            for path in (tmp_path / "out" / "files").rglob("*.mkv"):
                try:
                    sizes.setdefault(path, set()).add(path.stat().st_size)
                except FileNotFoundError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield lambda: sizes
    ended.set()
    watcher.join()


@pytest.fixture
def striking(clips: Path) -> Iterator[dict[str, int]]:
    """Sends each long clip's ffmpeg its signal, once."""
    struck: dict[str, int] = {}
    ended = threading.Event()

    def strike() -> None:
        while not ended.wait(0.01):
            for name, number in LONG.items():
                for process in at_work(str(clips / name)) if name not in struck else ():
                    with suppress(psutil.NoSuchProcess):
                        if process.cpu_times().user > 0.1:  # it is past its start, and handles signals
                            process.send_signal(number)
                            struck[name] = number

    thread = threading.Thread(target=strike)
    thread.start()
    yield struck
    ended.set()
    thread.join()


def test_forty_clips(clips: Path, tmp_path: Path, watched: Callable[[], dict[Path, set[int]]], striking: dict[str, int]) -> None:
    """One ffmpeg is terminated, one killed, one file is cut off: 39 whole clips come out, and no partial one is ever seen."""
    command = TRANSCODE.replace("-i {input}", "-readrate 15 -i {input}")  # a long one takes four seconds
    workload = dc.command(command, outputs={"video": "clips/{stem}.mkv"}, retry_codes=(255,), check=plays_whole, timeout="2 min")
    run = dc.map(workload, dc.files(str(clips / "*.mp4")), tmp_path / "out", params={"crf": 30})
    run.wait(progress="quiet")
    assert striking == LONG
    dataset = dc.open(tmp_path / "out")
    results, failures = dataset.to_pandas(), dataset.failures().compute()
    assert len(results) == CLIPS - 1
    assert [Path(key).stem for key in failures["item_key"]] == [BROKEN]
    assert (failures["kind"].item(), failures["error"].item(), failures["exit_code"].item()) == (Kind.PERMANENT, "exit code 1", 1)
    assert "moov atom not found" in failures["stderr"].item()
    for row in results.itertuples():
        seconds, codecs = probe(row.video_url)
        assert seconds == pytest.approx(60 if Path(row.item_key).stem in LONG else 1, abs=0.2)
        assert codecs == {"h264", "aac"}
        assert Path(row.video_url).stat().st_size == row.video_size
    attempts = dataset.attempts().compute()
    failed = {Path(row.item_key).stem: row for row in attempts[attempts["outcome"] == "failed"].itertuples()}
    assert failed.keys() == {*LONG, BROKEN}
    assert (failed["clip-07"].kind, failed["clip-07"].exit_code) == (Kind.TRANSIENT, 255)
    assert (failed["clip-21"].kind, failed["clip-21"].signal) == (Kind.CRASH, signal.SIGKILL)
    assert {path: len(sizes) for path, sizes in watched().items() if len(sizes) > 1} == {}
    assert list(at_work(str(clips))) == []
    # figures are those of the whole tree: the child itself only waits
    long = attempts[(attempts["outcome"] == "succeeded") & attempts["item_key"].str.contains("clip-07")].iloc[0]
    assert long["cpu_user"] > 0.1
    assert long["peak_memory"] > 10 << 20


def test_a_cancelled_run_leaves_no_program_and_no_file(clips: Path, tmp_path: Path) -> None:
    """The program is asked to end, and what it had written is not in the dataset."""
    run = dc.map(realtime(), [str(clips / "clip-07.mp4")], tmp_path / "out", params={"crf": 30})
    until(lambda: list(at_work(str(clips / "clip-07"))), 30, "ffmpeg at work")
    run.cancel()
    until(lambda: not list(at_work(str(clips / "clip-07"))), 15, "no ffmpeg")
    with pytest.raises(RunCancelled):
        run.wait(progress="quiet")
    assert list((tmp_path / "out").rglob("*.mkv")) == []


def test_a_timeout_is_one(clips: Path, tmp_path: Path) -> None:
    """SIGTERM makes ffmpeg end a short file well: it counts as a timeout all the same, and no file comes of it."""
    run = dc.map(realtime(timeout=1), [str(clips / "clip-07.mp4")], tmp_path / "out", params={"crf": 30})
    run.wait(progress="quiet")
    failures = run.failures().compute()
    assert (failures["kind"].item(), failures["error"].item()) == (Kind.TIMEOUT, "timeout")
    assert list((tmp_path / "out").rglob("*.mkv")) == []


def test_a_worker_that_is_killed_takes_its_program_along(clips: Path, tmp_path: Path) -> None:
    """kill -9 of the worker ends ffmpeg too; the item is executed again elsewhere."""
    with dask_processes(tmp_path / "cluster", workers=1) as cluster:
        run = dc.map(realtime(), [str(clips / "clip-07.mp4")], tmp_path / "out", params={"crf": 30}, client=cluster.address)
        (process,) = until(lambda: list(at_work(str(clips / "clip-07"))), 60, "ffmpeg at work")
        (worker,) = cluster.worker_pids()
        kill(worker)
        until(lambda: not process.is_running(), 10, "the end of that ffmpeg")
        (again,) = until(lambda: list(at_work(str(clips / "clip-07"))), 60, "ffmpeg at work again")
        assert again.pid != process.pid
        run.cancel()
        until(lambda: not list(at_work(str(clips / "clip-07"))), 15, "no ffmpeg")


def test_memory_is_that_of_the_program(tmp_path: Path) -> None:
    """A program that takes more than its item may is killed for that, whatever the child itself has."""
    hog = dc.command([sys.executable, "-c", "x = b'x' * (900 << 20); import time; time.sleep(20)"], memory="300 MiB", retries=0)
    run = dc.map(hog, [1], tmp_path / "out")
    run.wait(progress="quiet")
    assert run.failures().compute()["kind"].item() == Kind.MEMORY


def test_a_program_that_no_worker_has_ends_the_run(tmp_path: Path) -> None:
    """No item is to blame: the set-up fails, and the error says where the program was looked for."""
    with pytest.raises(InitializerError, match="not in PATH"):
        dc.map(dc.command("no-such-program {input}"), [1, 2], tmp_path / "out").wait(progress="quiet")


def test_a_function_runs_programs_too(clips: Path, tmp_path: Path) -> None:
    """dc.process within a function: its outputs are the item's, its failure the item's."""

    def transcode(path: str) -> dict[str, Any]:
        done = dc.process(TRANSCODE.replace("{params[crf]}", "30"), {"input": path}, outputs={"video": "v.mkv"})
        return {"seconds": done.seconds, "name": done.outputs["video"].name}

    paths = [str(clips / f"{name}.mp4") for name in ("clip-00", BROKEN)]
    run = dc.map(transcode, paths, tmp_path / "out")
    run.wait(progress="quiet")
    (row,) = run.results().compute().itertuples()
    assert probe(row.video_url)[0] == pytest.approx(1, abs=0.2)
    failure = run.failures().compute().iloc[0]
    assert (failure["kind"], failure["exit_code"]) == (Kind.PERMANENT, 1)


def test_the_command_line_does_the_same(clips: Path, tmp_path: Path, python: Any) -> None:
    """dcompute run --command, with outputs and parameters."""
    done = python(
        "-m", "dask", "dcompute", "run", "--command", TRANSCODE, str(clips / "clip-0[0-3].mp4"), "out",
        "--output", "video=clips/{stem}.mkv", "--set", "crf=30", "-q",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(dc.open(tmp_path / "out").to_pandas()) == 4
