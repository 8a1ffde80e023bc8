"""Programs at work: what they get, what is kept of them, and that nothing of them is left. No cluster, real processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import dcompute as dc
from dcompute.errors import ProgramError
from dcompute.records import ItemKey, Kind
from dcompute.worker import context, system
from dcompute.worker.attempt import describe
from dcompute.worker.context import Room
from dcompute.worker.processes import Started, execute
from tests.processes import until


@pytest.fixture
def item(tmp_path: Path) -> Iterator[context.Context]:
    """An item at work, as in a child."""
    room = Room(str(tmp_path / "scratch"), str(tmp_path / "files"), pid=os.getpid())
    yield context.begin(ItemKey("clip one", "str"), 1, "run", params={"n": 3}, seed=0, room=room)
    context.end()


def sh(text: str, **more: Any) -> Any:
    return execute(Started(words=["/bin/sh", "-c", text], **more))


def failure(command: Any, values: Any = None, **options: Any) -> ProgramError:
    with pytest.raises(ProgramError) as raised:
        dc.process(command, values, **options)
    return raised.value


def test_what_it_prints_is_printed_and_kept(capfd: pytest.CaptureFixture[str]) -> None:
    """Both streams go on to this process's own, and stdout comes back."""
    done = dc.process("sh -c 'echo out; echo err >&2'")
    assert (done.code, done.stdout, done.stderr) == (0, "out\n", "err\n")
    assert capfd.readouterr() == ("out\n", "err\n")


def test_it_reads_nothing() -> None:
    """Its stdin is at its end, whatever that of this process is, so that nothing waits for a person."""
    ends, own = os.pipe(), os.dup(0)
    os.dup2(ends[0], 0)
    try:
        assert dc.process("cat", timeout=5).stdout == ""
    finally:
        os.dup2(own, 0)
        for descriptor in (*ends, own):
            os.close(descriptor)


@pytest.mark.parametrize(
    ("text", "options", "kind", "code", "number"),
    [
        ("exit 3", {}, Kind.PERMANENT, 3, None),
        ("exit 75", {"retry_codes": (75,)}, Kind.TRANSIENT, 75, None),
        ("kill -SEGV $$", {}, Kind.CRASH, None, signal.SIGSEGV),
        ("kill -KILL $$", {}, Kind.CRASH, None, signal.SIGKILL),
    ],
)
def test_ends_have_kinds(text: str, options: Any, kind: Kind, code: int | None, number: int | None) -> None:
    """Exit codes and signals are the program's own: they stand in the failure, and the kind says who tries again."""
    error = failure(["sh", "-c", text], **options)
    told = describe(error)
    assert (told["kind"], told["exit_code"], told["signal"]) == (kind, code, number)
    assert told["error"] == (f"exit code {code}" if code else signal.Signals(number or 0).name)
    assert "dcompute.errors.ProgramError" in told["bases"]


def test_codes_that_are_ok_are_no_failure() -> None:
    """As grep's 1, which found nothing."""
    assert dc.process(["sh", "-c", "exit 1"], ok_codes=(0, 1)).code == 1


def test_the_end_of_stderr_stands_in_the_message() -> None:
    """What the program said last is what a person wants to read."""
    assert "no such codec" in failure(["sh", "-c", "echo no such codec >&2; exit 1"]).message


def test_a_program_that_is_not_there_says_where_it_was_looked_for() -> None:
    """A permanent failure with the PATH in it; the same for what is not executable."""
    error = failure("no-such-program-at-all")
    assert (error.kind, "PATH" in error.message, os.environ["PATH"] in error.message) == (Kind.PERMANENT, True, True)
    assert failure([__file__]).kind == Kind.PERMANENT


def test_a_value_with_a_nul_is_refused() -> None:
    """No argument can have one."""
    assert "NUL" in failure("echo {a}", {"a": "x\0y"}).message


def test_its_time_is_over(tmp_path: Path) -> None:
    """SIGTERM first, so that it may tidy up; it ends as a timeout."""
    mark = tmp_path / "asked"
    error = failure(["sh", "-c", f"trap 'touch {mark}; exit 0' TERM; while :; do sleep 0.05; done"], timeout=0.3)
    assert describe(error)["kind"] == Kind.TIMEOUT
    assert describe(error)["error"] == "timeout"
    assert mark.exists()


def test_who_ignores_sigterm_is_killed_after_the_grace() -> None:
    """No program outlives its timeout by more than the grace."""
    began = time.monotonic()
    ended = sh("trap '' TERM; while :; do sleep 0.05; done", deadline=time.monotonic() + 0.2, grace=0.3)
    assert (ended.timed_out, ended.signal) == (True, signal.SIGKILL)
    assert time.monotonic() - began < 5


def test_a_stopped_batch_ends_it() -> None:
    """Who asks it to stop need not wait for its end."""
    ended = sh("sleep 60", stopped=lambda: True)
    assert ended.stopped
    assert ended.seconds < 10


def test_what_it_leaves_in_the_background_is_killed() -> None:
    """Neither a process of its group nor one in a session of its own outlives it, though both hold its streams open."""
    system.become_subreaper()
    ended = sh("sleep 61 & setsid sleep 62 & sleep 0.1; echo done", keep=True)
    assert ended.stdout == b"done\n"
    assert ended.left >= 1
    assert ended.seconds < 4
    until(lambda: not [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE], 5, "none is left")


def test_much_output_costs_no_memory() -> None:
    """100 MB of stdout pass through; only what is asked for is kept."""
    script = "import sys\nfor _ in range(400): sys.stdout.buffer.write(b'x' * 262144)"
    before = psutil.Process().memory_info().rss
    sys.stdout.flush()
    assert execute(Started(words=[sys.executable, "-c", script], target=os.devnull)).code == 0
    assert psutil.Process().memory_info().rss - before < 30 << 20


def test_a_command_of_an_item(item: context.Context, tmp_path: Path) -> None:
    """Placeholders are the item's; outputs are files of the item under safe names; the row has the exit code."""
    workload = dc.command("sh -c 'echo $0 $1 $2 > $3' {key} {stem} {params[n]} {video}", outputs={"video": "clips/{key}.mkv"})
    assert workload.function("/raw/a b.mp4", n=3) == {"exit_code": 0}
    (outputs,) = (item.outputs or {}).values()
    assert (outputs.folder / "clips" / "clip one.mkv").read_text() == "clip one a b 3\n"


def test_a_key_that_is_a_path_stays_in_its_folder(tmp_path: Path) -> None:
    """A key such as ../x names a file below the item's own folder."""
    room = Room(str(tmp_path / "scratch"), str(tmp_path / "files"), pid=os.getpid())
    item = context.begin(ItemKey("../../x", "str"), 1, "run", params={}, seed=0, room=room)
    try:
        dc.command("touch {output}", outputs="{key}.txt").function(1)
        (outputs,) = (item.outputs or {}).values()
        (path,) = outputs.folder.rglob("*.txt")
        assert path.name.startswith("x-")
    finally:
        context.end()


def test_an_output_that_was_not_written_fails_the_item(item: context.Context) -> None:
    """Exit code 0 is not enough."""
    with pytest.raises(ProgramError, match="wrote no 'video'") as raised:
        dc.command("true {video}", outputs={"video": "v.mkv"}).function(1)
    assert describe(raised.value)["kind"] == Kind.PERMANENT


def test_stdout_may_be_an_output(item: context.Context) -> None:
    """What a program prints becomes a file, and is not printed too."""
    dc.command("printf %s {input}", outputs="t.txt", stdout="output").function("text")
    (outputs,) = (item.outputs or {}).values()
    assert (outputs.folder / "t.txt").read_text() == "text"


def test_parse_makes_the_rows(item: context.Context) -> None:
    """A function of outputs and stdout; without it the row says the exit code."""
    words = "sh -c 'echo 7; echo body > $0' {doc}"

    def rows(outputs: Any, stdout: str) -> Any:
        return [{"n": int(stdout)}, {"n": outputs["doc"].stat().st_size}]

    workload = dc.command(words, outputs={"doc": "d.txt"}, parse=rows)
    assert workload.function(1) == [{"n": 7}, {"n": 5}]


@pytest.mark.parametrize("check", [lambda outputs: False, lambda outputs: 1 / 0])
def test_outputs_are_tested_before_they_go_anywhere(item: context.Context, tmp_path: Path, check: Any) -> None:
    """An item whose outputs do not pass fails, and nothing appears where they were to go."""
    target = tmp_path / "public" / "{stem}.txt"
    with pytest.raises((ProgramError, ZeroDivisionError)):
        dc.command("cp {input} {output}", outputs=str(target), check=check).function(__file__)
    assert not (tmp_path / "public").exists()


@pytest.mark.parametrize("kind", ["path", "file", "memory"])
def test_outputs_elsewhere_appear_whole(item: context.Context, tmp_path: Path, kind: str) -> None:
    """A file goes to an absolute path or a URL; the row says where, how large and with what checksum; a second attempt replaces it."""
    place = {"path": f"{tmp_path}/public", "file": f"file://{tmp_path}/public", "memory": f"memory://out-{os.getpid()}"}[kind]
    workload = dc.command("sh -c 'printf %s hello > $0' {video}", outputs={"video": f"{place}/{{stem}}.txt"})
    for _ in range(2):
        row: Any = workload.function("/raw/a.mp4")
    import fsspec

    assert row["video_url"] == f"{place}/a.txt"
    assert row["video_size"] == 5
    assert row["video_checksum"].startswith("sha256:2cf24dba")
    with fsspec.open(row["video_url"]) as file:
        assert file.read() == b"hello"
    if kind != "memory":
        assert [path.name for path in (tmp_path / "public").iterdir()] == ["a.txt"]


def test_inputs_on_a_storage_are_brought_first(item: context.Context) -> None:
    """A URL becomes a local path in the attempt's scratch, with the same name; a text stays what it is."""
    import fsspec

    url = f"memory://in-{os.getpid()}/clip.txt"
    with fsspec.open(url, "wb") as file:
        file.write(b"content")
    workload = dc.command("sh -c 'echo $0; cat $0' {input}", parse=lambda outputs, stdout: {"text": stdout})
    path, _, content = workload.function(url)["text"].partition("\n")
    assert (Path(path).name, content) == ("clip.txt", "content")
    assert Path(path).is_relative_to(item.scratch)
    assert workload.function  # the same one again
    echo = dc.command("echo {input}", parse=lambda outputs, stdout: stdout)
    assert echo.function("just words") == "just words\n"
    assert echo.function(7) == "7\n"


def test_a_file_that_looks_like_an_option_is_a_path(item: context.Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative input that begins with a dash, and is there, becomes an absolute path."""
    (tmp_path / "-rf").write_text("safe")
    monkeypatch.chdir(tmp_path)
    assert dc.command("cat {input}", parse=lambda outputs, stdout: stdout).function("-rf") == "safe"


def test_progress_reaches_the_item(item: context.Context) -> None:
    """What a line says is reported as the item's own progress."""
    seen: list[float] = []
    item._report = lambda fraction, text: seen.append(fraction)
    dc.process(["sh", "-c", "echo 10%; echo 50%; sleep 0.2; echo 100%"], progress=r"(?P<percent>\d+)%")
    assert seen[-1] == 1.0
    assert 0.5 in seen


def test_rows_of_a_table_fill_brackets(item: context.Context) -> None:
    """Columns are keyword arguments, and params beside them are not taken for columns."""
    workload = dc.command("echo {input[a]} {input[b]} {params[n]}", parse=lambda outputs, stdout: stdout)
    assert workload.function(a="x y", b=2, n=3) == "x y 2 3\n"


def test_cwd_and_env_take_placeholders(item: context.Context) -> None:
    """A program may work in the attempt's scratch, and be told things by variables."""
    workload = dc.command(["sh", "-c", "pwd; echo $WHO"], cwd="{scratch}", env={"WHO": "{key}"}, parse=lambda outputs, stdout: stdout)
    assert workload.function(1) == f"{item.scratch}\nclip one\n"
