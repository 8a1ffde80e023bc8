"""The same line again: what is skipped, what is done again and why, and what the summary says of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import dcompute as dc
from dcompute.errors import ChangedError, DatasetMismatchError, ItemError, SchemaError, UsageError

QUIET: dict[str, Any] = {"progress": "quiet"}


def finished(workload: Any, inputs: Iterable[Any], url: Path, **options: Any) -> dc.Run:
    """The run, after its end."""
    run = dc.map(workload, inputs, url, **options)
    assert run.wait(60, progress="quiet")
    return run


def executed(run: dc.Run) -> set[str]:
    """Keys of the items that this run executed."""
    attempts = run.attempts().compute()
    return set(attempts[attempts["run"] == run.id]["item_key"])


def values(url: Path) -> dict[str, Any]:
    """The column ``value`` of each item, by the text of its key."""
    frame = dc.open(url).results().compute()
    return dict(zip(frame["item_key"], frame["value"], strict=True))


def misbehave(how: str) -> str:
    """Fails as its input says; a file with its name beside the dataset mends it."""
    if how.startswith("mended"):
        path = Path(how.partition(" ")[2])
        if not path.exists():
            path.touch()
            raise ConnectionResetError("gone")
    if how == "permanent":
        raise ValueError("not this one")
    if how == "crash":
        os._exit(3)
    if how == "timeout":
        time.sleep(60)
    if how == "memory":
        raise MemoryError
    if how == "recoverable":
        raise FileNotFoundError("nowhere")
    if how == "transient":
        raise ConnectionResetError("gone")
    return how


HOWS = ["fine", "permanent", "crash", "timeout", "memory", "recoverable", "transient"]


@pytest.fixture(scope="module")
def misbehaving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose items failed at last, with a kind each."""
    url = tmp_path_factory.mktemp("misbehaving") / "d"
    finished(MISBEHAVE, HOWS, url)
    return url


MISBEHAVE = dc.workload(timeout=1.0, retries=0)(misbehave)


# ----------------------------------------------------------------------------------------------------------------------- failures


def test_failures_that_stay_are_skipped_and_named(misbehaving: Path) -> None:
    """Permanent, timeout, memory and crash stay; recoverable and transient ones run again by themselves."""
    run = finished(MISBEHAVE, HOWS, misbehaving)
    assert executed(run) == {"recoverable", "transient"}
    summary = run.summary()
    assert summary.skipped == 1
    assert summary.skipped_failed == {"permanent": 1, "crash": 1, "timeout": 1, "memory": 1}
    assert not summary.all_succeeded
    assert "4 failed before and stay so: 1 crash, 1 memory, 1 permanent, 1 timeout; retry_failed=True runs them again" in str(summary)
    assert summary.failed_by_kind == {"recoverable": 1, "transient": 1}


def test_retry_failed_takes_kinds_true_or_never(misbehaving: Path) -> None:
    """One kind adds to those that go by themselves, ``"never"`` runs none of any kind, True all; the old attempts stay as history."""
    never = finished(MISBEHAVE, HOWS, misbehaving, retry_failed="never")
    assert executed(never) == set()
    assert sum(never.summary().skipped_failed.values()) == 6
    assert (never.status().before, never.status().before_failed) == (7, 6)
    assert executed(finished(MISBEHAVE, HOWS, misbehaving, retry_failed="crash")) == {"crash", "recoverable", "transient"}
    before = len(never.attempts().compute())
    run = finished(MISBEHAVE, HOWS, misbehaving, retry_failed=True)
    assert executed(run) == set(HOWS) - {"fine"}
    assert len(run.failures().compute()) == 6
    assert len(run.attempts().compute()) == before + 6
    attempts = run.attempts().compute()
    assert set(attempts[attempts["run"] == run.id]["attempt"]) == {1}
    status = dc.open(misbehaving).status()
    assert (status.succeeded, status.failed, status.state) == (1, 6, "idle")


def test_errors_raise_runs_failed_items_again(misbehaving: Path) -> None:
    """With ``errors="raise"`` a failure of before is met anew, not skipped in silence."""
    finished(MISBEHAVE, ["fine", "permanent"], misbehaving)
    with pytest.raises(ItemError, match="not this one"):
        dc.map(MISBEHAVE, ["fine", "permanent"], misbehaving, errors="raise").wait(60, **QUIET)
    assert dc.open(misbehaving).status().state != "running"


def test_what_may_be_executed_once_is_only_executed_again_on_demand(tmp_path: Path) -> None:
    """``idempotent=False``: every failure is final, of whatever kind, and whatever the function became since."""

    def lost(number: int) -> int:
        raise ConnectionResetError("gone")

    def mended(number: int) -> int:
        return number

    once = dc.workload(idempotent=False)
    run = finished(once(lost), [1], tmp_path / "d", name="once")
    assert run.summary().failed_by_kind == {"transient": 1}
    again = finished(once(mended), [1], tmp_path / "d", name="once")
    assert (executed(again), dict(again.summary().skipped_failed)) == (set(), {"transient": 1})
    assert finished(once(mended), [1], tmp_path / "d", name="once", retry_failed="transient").summary().succeeded == 1


def test_an_unknown_kind_is_refused_with_those_there_are(tmp_path: Path) -> None:
    """dc.map raises at once."""
    with pytest.raises(UsageError, match=r"retry_failed='segfault'.*crash"):
        dc.map(misbehave, ["fine"], tmp_path / "d", retry_failed=["segfault"])


def test_a_failed_item_that_now_succeeds_is_no_failure_any_more(tmp_path: Path) -> None:
    """failures() shows its newest attempt only; its result is there."""
    how = f"mended {tmp_path / 'mark'}"
    first = finished(MISBEHAVE, [how], tmp_path / "d")
    assert len(first.failures().compute()) == 1
    run = finished(MISBEHAVE, [how], tmp_path / "d")
    assert run.summary().succeeded == 1
    assert len(run.failures().compute()) == 0
    assert values(tmp_path / "d") == {how: how}


# ------------------------------------------------------------------------------------------------------------------------ changes


def scaled(pair: tuple[str, int], factor: int = 1) -> int:
    if pair[1] < 0:
        raise ValueError("negative")
    return pair[1] * factor


def first(pair: tuple[str, int]) -> str:
    return pair[0]


def test_a_changed_input_is_redone_alone(tmp_path: Path) -> None:
    """Its old rows are gone, also where the new input fails; ``keep`` and ``error`` say otherwise."""
    url = tmp_path / "d"
    finished(scaled, [("a", 1), ("b", 2), ("c", 3)], url, key=first)
    changed = [("a", 1), ("b", 20), ("c", -1)]
    with pytest.raises(ChangedError, match=r"input of item 'b' changed.*on_change"):
        dc.map(scaled, changed, url, key=first, on_change="error").wait(60, **QUIET)
    assert values(url) == {"a": 1, "b": 2, "c": 3}
    kept = finished(scaled, changed, url, key=first, on_change="keep")
    assert (kept.summary().skipped, kept.summary().executed) == (3, 0)
    assert '2 finished items are kept although their input changed (on_change="keep")' in str(kept.summary())
    run = finished(scaled, changed, url, key=first)
    assert executed(run) == {"b", "c"}
    assert values(url) == {"a": 1, "b": 20}
    assert run.failures().compute()["item_key"].tolist() == ["c"]
    # the failure is of this input: it stays until the input changes again
    assert finished(scaled, changed, url, key=first).summary().skipped_failed == {"permanent": 1}
    finished(scaled, [("a", 1), ("b", 20), ("c", 4)], url, key=first)
    assert values(url) == {"a": 1, "b": 20, "c": 4}
    assert len(dc.open(url).attempts().compute()) == 6


def test_changed_params_redo_everything(tmp_path: Path) -> None:
    """They count as part of the workload; back to the old ones is a change too."""
    url = tmp_path / "d"
    items = [("a", 1), ("b", 2)]
    finished(scaled, items, url, key=first, params={"factor": 2})
    assert finished(scaled, items, url, key=first, params={"factor": 2}).summary().skipped == 2
    with pytest.raises(ChangedError, match="params of item"):
        dc.map(scaled, items, url, key=first, params={"factor": 3}, on_change="error").wait(60, **QUIET)
    run = finished(scaled, items, url, key=first, params={"factor": 3})
    assert (run.summary().redone, run.summary().skipped) == (2, 0)
    assert values(url) == {"a": 3, "b": 6}


def test_a_changed_seed_counts_like_a_param(tmp_path: Path) -> None:
    """The seed of an item depends on ``seed=`` and its key, and on nothing else."""

    def drawn(number: int) -> int:
        return dc.current().seed

    finished(drawn, [1, 2], tmp_path / "d", seed=1)
    before = values(tmp_path / "d")
    assert before["1"] != before["2"]
    assert finished(drawn, [2, 1], tmp_path / "d", seed=1).summary().skipped == 2
    run = finished(drawn, [1, 2], tmp_path / "d", seed=2)
    assert run.summary().redone == 2
    assert values(tmp_path / "d") != before
    finished(drawn, [1, 2], tmp_path / "d", seed=1)
    assert values(tmp_path / "d") == before


def old_form(**requirements: Any) -> dc.Workload:
    @dc.workload(**requirements)
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    return work


def new_form(**requirements: Any) -> dc.Workload:
    @dc.workload(**requirements)
    def work(number: int) -> int:
        return 10 * number

    return work


def test_a_changed_function_is_reported_and_its_items_are_kept(tmp_path: Path) -> None:
    """One line says how many and how to redo them; its failures run again; ``version="code"`` redoes what differs."""
    url = tmp_path / "d"
    finished(old_form(), [1, 2, 3], url)
    run = finished(new_form(), [1, 2, 3, 4], url)
    assert executed(run) == {"3", "4"}
    assert run.summary().kept_changed == 2
    assert '2 finished items were made by an older form of the function and are kept; redo them with version="code"' in str(run.summary())
    assert values(url) == {"1": 1, "2": 2, "3": 30, "4": 40}
    again = finished(new_form(version="code"), [1, 2, 3, 4], url)
    assert executed(again) == {"1", "2"}
    assert values(url) == {"1": 10, "2": 20, "3": 30, "4": 40}
    assert finished(new_form(version="code"), [1, 2, 3, 4], url).summary().skipped == 4


def test_a_declared_version_decides(tmp_path: Path) -> None:
    """Another version redoes, the same one keeps, whatever the function became."""
    url = tmp_path / "d"
    finished(old_form(version="1"), [1, 2], url)
    same = finished(new_form(version="1"), [1, 2], url)
    assert (same.summary().skipped, same.summary().kept_changed) == (2, 0)
    with pytest.raises(ChangedError, match="version of item"):
        dc.map(new_form(version="2"), [1, 2], url, on_change="error").wait(60, **QUIET)
    assert finished(new_form(version="2"), [1, 2], url, on_change="keep").summary().skipped == 2
    assert finished(new_form(version="2"), [1, 2], url).summary().redone == 2
    assert values(url) == {"1": 10, "2": 20}
    assert set(dc.open(url).attempts().compute()["version"]) == {"1", "2"}


def test_a_schema_declared_later_must_meet_what_is_there(tmp_path: Path) -> None:
    """Columns that older results have stay readable; types that cannot meet are refused before the first batch."""
    url = tmp_path / "d"

    def work(number: int) -> dict[str, Any]:
        return {"a": number, "b": "x"} if number < 2 else {"a": number}

    finished(work, [1], url)
    with pytest.raises(SchemaError, match="'a'"):
        dc.map(dc.workload(schema={"a": "string"})(work), [1, 2], url)
    finished(dc.workload(schema={"a": float})(work), [1, 2], url)
    frame = dc.open(url).results().compute().sort_values("item_key")
    assert frame["a"].tolist() == [1.0, 2.0]
    assert frame["b"].tolist()[0] == "x"
    assert frame["a"].dtype.pyarrow_dtype == pa.float64()


# -------------------------------------------------------------------------------------------------------------------------- names


def test_a_column_that_is_declared_to_be_renamed_is_one_in_old_and_new_rows(tmp_path: Path) -> None:
    """What an interrupted run wrote and nobody committed has the new name too; the same declaration again renames nothing."""

    def first(x: int) -> dict[str, int]:
        return {"temp": x}

    @dc.workload(renames={"temp": "celsius"}, schema={"celsius": "int64", "temp": "string"})
    def second(x: int) -> dict[str, Any]:
        return {"celsius": x, "temp": f"{x} degrees"}

    url = tmp_path / "d"
    finished(first, range(3), url, name="measured")
    entries = sorted((url / "log").glob("*.json"), reverse=True)
    entries[0].unlink(missing_ok=True)  # last.json
    for entry in entries[1:]:
        added = '"do":"add"' in entry.read_text()
        entry.unlink()
        if added:
            break
    assert dc.open(url).status().succeeded < 3
    assert finished(second, range(5), url, name="measured", on_change="keep").summary().succeeded == 2
    expected = {(str(x), x, None if x < 3 else f"{x} degrees") for x in range(5)}
    for _ in range(2):
        table = dc.open(url).to_arrow()
        assert set(zip(*(table[name].to_pylist() for name in ("item_key", "celsius", "temp")), strict=True)) == expected
        finished(second, range(5), url, name="measured", on_change="keep")
    assert dc.open(url).history()["what"].str.contains("renamed").sum() == 1


def test_a_declaration_that_names_no_column_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    """The nearest name is in the error; a dataset that has nothing yet has nothing to rename."""
    work = dc.workload(renames={"tmep": "celsius"})(one_column)
    finished(work, range(2), tmp_path / "new", name="w")
    finished(one_column, range(2), tmp_path / "d", name="w")
    with pytest.raises(SchemaError, match="did you mean 'temp'"):
        dc.map(work, range(2), tmp_path / "d", name="w")


def one_column(x: int) -> dict[str, int]:
    return {"temp": x}


def test_a_dataset_has_one_workload_by_name(tmp_path: Path) -> None:
    """``name=`` says what the dataset calls it; another lambda under the same name is an older form of the function."""
    finished(lambda number: number, [1], tmp_path / "d", name="same")
    run = finished(lambda number: -number, [1, 2], tmp_path / "d", name="same")
    assert (run.summary().skipped, run.summary().kept_changed) == (1, 1)
    assert str(run.summary()).startswith("same -> ")
    assert values(tmp_path / "d") == {"1": 1, "2": -2}
    with pytest.raises(DatasetMismatchError, match=r"same.*other|other.*same"):
        dc.map(lambda number: number, [1], tmp_path / "d", name="other")
    with pytest.raises(DatasetMismatchError, match=r"same.*<lambda>|<lambda>.*same"):
        dc.map(lambda number: number, [1], tmp_path / "d")


def test_a_lambda_without_a_name_is_known_by_its_code(tmp_path: Path) -> None:
    """The same one goes on; another one is refused, for nobody can tell whether it is an older form or another workload."""
    for inputs in ([1], [1, 2]):
        finished(lambda number: number, inputs, tmp_path / "d")
    for act in (lambda *line: finished(*line), lambda *line: dc.preview(*line)):
        with pytest.raises(DatasetMismatchError, match="another lambda"):
            act(lambda number: -number, [1, 2, 3], tmp_path / "d")
    assert values(tmp_path / "d") == {"1": 1, "2": 2}
    named = finished(lambda number: -number, [1, 2, 3], tmp_path / "d", name="<lambda>")
    assert named.summary().kept_changed == 2


# ---------------------------------------------------------------------------------------------------------------- preview, outcomes


def test_preview_says_what_a_run_would_do_and_writes_nothing(tmp_path: Path) -> None:
    """By reason, with the first keys; before there is a dataset, and after."""
    url = tmp_path / "d"
    seen = dc.preview(old_form(), [1, 2, 3], url)
    assert (seen.todo, dict(seen.reasons), seen.examples) == (3, {"new": 3}, ("1", "2", "3"))
    assert not url.exists()
    finished(old_form(), [1, 2, 3], url)
    files = sorted(url.rglob("*"))
    again = dc.preview(old_form(), [1, 2, 3, 4, 4], url)
    assert (again.todo, dict(again.reasons)) == (1, {"new": 1, "done before": 2, "failed before, stays (permanent)": 1, "given twice": 1})
    assert "1 item would be executed" in str(again)
    assert dc.preview(old_form(version="2"), [1, 2, 3], url).reasons == {"again, version changed": 3}
    seen = dc.preview(old_form(), [3], url, retry_failed=True)
    assert seen.reasons == {"again, failed before (permanent)": 1, "no longer an input, kept": 2}
    assert sorted(url.rglob("*")) == files
    with pytest.raises(UsageError, match="no option"):
        dc.preview(old_form(), [1], url, retries=3)


def test_a_slow_consumer_of_outcomes_holds_nothing_up(tmp_path: Path) -> None:
    """The run ends while its consumer still looks at the first outcome; the others are there for it then, failures too."""
    run = dc.map(old_form(), range(200), tmp_path / "d")
    outcomes = run.as_completed()
    seen = [next(outcomes)]
    assert run.wait(60, **QUIET)
    seen += outcomes
    assert len({outcome.key for outcome in seen}) == len(seen) == 200
    (failed,) = [outcome for outcome in seen if not outcome.succeeded]
    assert (failed.key.text, failed.kind, failed.error, failed.attempt) == ("3", "permanent", "ValueError", 1)
    assert [outcome.key for outcome in run.as_completed()] == [outcome.key for outcome in seen]
    assert list(finished(old_form(), range(200), tmp_path / "d").as_completed()) == []


def test_the_summary_is_of_this_run(tmp_path: Path) -> None:
    """Figures and text, for a run with work and for one without."""
    url = tmp_path / "d"
    run = finished(old_form(), [1, 2, 3], url)
    text = str(run.summary())
    assert text.startswith(f"work -> {url}: finished: 2 succeeded, 2 rows, in ")
    assert "1 failed: 1 permanent; see failures()" in text
    assert str(finished(old_form(), [1, 2], url).summary()) == f"work -> {url}: up to date, 2 items done before"
    assert repr(run).endswith("finished>")


def test_max_failures_counts_only_what_fails_now(tmp_path: Path) -> None:
    """Failures of before do not end a run."""
    url = tmp_path / "d"
    finished(old_form(), [3], url)
    assert finished(old_form(), [1, 2, 3], url, max_failures=0).summary().succeeded == 2


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"errors": "ignore"}, {"on_change": "no"}, {"max_failures": -1}, {"seed": "a"}])
def test_options_that_make_no_sense_are_refused_at_once(tmp_path: Path, options: dict[str, Any]) -> None:
    """dc.map raises, names the option, and makes no dataset."""
    with pytest.raises(UsageError, match=next(iter(options))):
        dc.map(misbehave, ["fine"], tmp_path / "d", **options)
    assert not (tmp_path / "d").exists()
