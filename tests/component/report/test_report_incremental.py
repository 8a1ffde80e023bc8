"""Mergeable reports: what changed is computed again and nothing else, and the result is that of a full computation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import hypothesis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dcompute as dc
from dcompute.dataset.frames import to_pandas
from dcompute.dataset.log import Log
from dcompute.dataset.store import Store
from dcompute.errors import ReportError
from dcompute.report import incremental
from dcompute.report.combining import Combine
from dcompute.report.incremental import Plan, all_of, grouped, some_of
from tests.component.reading.conftest import Did, Scene

# ---------------------------------------------------------------------------------------------------------------- the decision


def one(_name: str) -> float:
    return 1.0


def always(_name: str) -> bool:
    return True


def test_files_are_grouped_into_portions() -> None:
    """Neighbours come together up to a portion; of very many files the portions grow, and their number does not."""
    names = [f"f{number}" for number in range(20)]
    assert [len(group) for group in grouped(names, one)] == [8, 8, 4]
    assert [name for group in grouped(names, one) for name in group] == names
    assert len(grouped([str(number) for number in range(10_000)], one)) <= incremental.MOST


def test_what_did_not_change_stays() -> None:
    """Only portions with changed rows, and files that came, are computed."""
    plan = some_of([["a", "b"], ["c"], ["d"]], [False, True, False], ["e"], known=always, weight=one)
    assert plan == Plan(stay=(0, 2), compute=(("c", "e"),))


def test_files_that_are_gone_are_not_computed() -> None:
    """A portion whose files are all gone leaves nothing behind."""
    plan = some_of([["a"], ["b"]], [True, False], [], known=lambda name: name != "a", weight=one)
    assert plan == Plan(stay=(1,))


def test_where_nothing_is_left_the_function_still_says_its_columns() -> None:
    """A report of no files is computed once, from no row."""
    assert some_of([["a"]], [True], [], known=lambda name: False, weight=one).compute == ((),)
    assert all_of([], one, "x").compute == ((),)


def test_many_small_portions_become_one() -> None:
    """The number of portions stays bounded; the smallest are put together, as they were computed."""
    portions = [[f"p{number}"] for number in range(incremental.MOST)] + [[f"q{number}" for number in range(100)]]
    plan = some_of(portions, [False] * len(portions), ["new"], known=always, weight=one)
    assert len(plan.stay) + 1 + len(plan.compute) <= incremental.MOST
    assert set(plan.stay).isdisjoint(plan.merge)
    assert len(plan.stay) + len(plan.merge) == len(portions)
    assert len(portions) - 1 in plan.stay


# ------------------------------------------------------------------------------------------------------------------- the result


def rows_of(raw: Any) -> Any:
    return dc.drop(raw, raw.x < 0, "negative")[["item_key", "g", "x"]]


def counts_of(raw: Any) -> Any:
    return raw.assign(n=1).groupby("g").agg({"n": "sum", "x": "max"}).reset_index()


def tries_of(tries: Any) -> Any:
    return tries.assign(n=1).groupby("outcome").n.sum().reset_index()


class World:
    """A dataset that changes, the reports of it, and what they must say."""

    def __init__(self, folder: Path) -> None:
        self.scene = Scene(Store.at(folder / "lab")).open()
        self.rows: dict[str, tuple[str, int]] = {}
        self.tries = 0
        lab = self.scene.store.url
        self.plain = dc.Report("plain", lab, rows_of, mergeable="partition", balanced=True, keep=1, retention=0)
        self.by_key = dc.Report("by_key", lab, counts_of, mergeable="g", combine={"n": "sum", "x": "max"}, keep=1, retention=0)
        self.stage = dc.Report("stage", self.plain, counts_of, mergeable="g", combine={"n": "sum", "x": "max"}, keep=1, retention=0)
        self.attempts = dc.Report("tries", (lab, "attempts"), tries_of, mergeable="outcome", combine={"n": "sum"}, keep=1, retention=0)

    def add(self, keys: Sequence[int], x: int) -> None:
        """New items, and others again: what they had before is hidden."""
        names = [f"k{key}" for key in keys]
        known = [name for name in names if name in self.rows]
        if known:
            self.scene.hide(*known)
        self.scene.add(*[Did(name, attempt=2, rows=[{"g": f"g{int(name[1:]) % 3}", "x": x}]) for name in names])
        self.rows.update({name: (f"g{int(name[1:]) % 3}", x) for name in names})
        self.tries += len(names)

    def delete(self, keys: Sequence[int]) -> None:
        """Items as if they had never been."""
        names = [f"k{key}" for key in keys if f"k{key}" in self.rows]
        if names:
            self.scene.hide(*names)
            for name in names:
                del self.rows[name]

    def compact(self, *, vacuum: bool) -> None:
        """Small parts become one; what they were may be removed at once."""
        self.publish()
        dc.open(self.scene.store.url).compact(all=True)
        self.scene.entries = list(Log(self.scene.store).read_all())
        state = self.scene.state
        if vacuum:
            self.scene.store.remove([part.name for one in state.batches for part in one.batch.results if part.name in state.replaced])

    def publish(self) -> None:
        self.scene.publish()

    def check(self) -> None:
        """Each report says what is there, and its counts add up."""
        self.publish()
        version = self.plain.run()
        expected = sorted((key, g, x) for key, (g, x) in self.rows.items() if x >= 0)
        assert sorted(map(tuple, self.plain.to_arrow().select(["item_key", "g", "x"]).to_pandas().itertuples(index=False))) == expected
        negative = len(self.rows) - len(expected)
        assert (version.rows_in["lab"], version.dropped.get("negative", 0)) == (len(self.rows), negative)
        assert groups(self.by_key) == summed(self.rows.values())
        assert groups(self.stage) == summed((g, x) for _, g, x in expected)
        self.attempts.run()
        assert sum(self.attempts.to_pandas().n.tolist()) == self.tries


def groups(report: dc.Report) -> dict[str, tuple[int, int]]:
    report.run()
    return {row["g"]: (row["n"], row["x"]) for row in report.to_arrow().to_pylist()}


def summed(rows: Any) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for g, x in rows:
        n, most = found.get(g, (0, x))
        found[g] = (n + 1, max(most, x))
    return found


@pytest.fixture(autouse=True)
def _in_this_thread() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


KEYS = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)
STEPS = st.one_of(
    st.tuples(st.just("add"), KEYS, st.integers(-3, 20)),
    st.tuples(st.just("delete"), KEYS, st.just(0)),
    st.tuples(st.sampled_from(["compact", "vacuum", "check"]), st.just([]), st.just(0)),
)


@pytest.mark.timeout(900)
@hypothesis.settings(max_examples=max(3, hypothesis.settings.default.max_examples // 10), deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=8))
def test_incremental_is_full(steps: list[tuple[str, list[int], int]]) -> None:
    """Whatever is added, changed, deleted, compacted and vacuumed between runs, each report says what a full computation would."""
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="sync"):
        world = World(Path(folder))
        world.add([0, 1], 1)
        world.check()
        for what, keys, x in steps:
            match what:
                case "add":
                    world.add(keys, x)
                case "delete":
                    world.delete(keys)
                case "check":
                    world.check()
                case _:
                    world.compact(vacuum=what == "vacuum")
        world.check()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three parts, each a portion of its own, and reports of them."""
    made = World(tmp_path)
    for part in range(3):
        made.add([part], part)
        made.publish()
        made.plain.run()
    return made


def test_new_parts_alone_are_computed(world: World) -> None:
    """What came is a portion of its own; those before stay, their files too."""
    before = world.plain.newest()
    world.add([7], 7)
    world.publish()
    version = world.plain.run()
    assert before is not None
    assert (version.computed, len(version.portions), version.reason) == (1, 4, "")
    assert version.files[:3] == before.files


def test_a_changed_item_touches_its_own_portion_only(world: World) -> None:
    """The portion that held its rows is computed again, with what came; the others stay."""
    before = world.plain.newest()
    world.add([1], 17)
    world.publish()
    version = world.plain.run()
    assert before is not None
    assert (version.computed, len(version.portions)) == (1, 3)
    assert set(version.files) & set(before.files) == {before.files[0], before.files[2]}


def test_a_retry_of_what_had_no_rows_touches_nothing(world: World) -> None:
    """A hidden key without rows in a portion leaves it alone."""
    world.scene.hide("k99")
    world.publish()
    version = world.plain.run()
    assert (version.computed, len(version.portions)) == (0, 3)


def test_all_is_computed_where_it_cannot_be_told(world: World) -> None:
    """After compaction and vacuum a hidden key may lie anywhere: everything is computed, and the version says why."""
    world.compact(vacuum=True)
    world.delete([1])
    world.publish()
    assert "compacted and vacuumed" in world.plain.run().reason
    world.check()


def test_new_parts_are_read_where_they_are(world: World) -> None:
    """Compaction may have put new rows together with old ones: the parts themselves are read while vacuum keeps them."""
    world.add([8], 8)
    world.compact(vacuum=False)
    assert (world.plain.run().computed, world.plain.newest().reason) == (1, "")  # type: ignore[union-attr]
    world.check()


def test_new_parts_that_vacuum_took_mean_all(world: World) -> None:
    """Where the parts of new rows are gone, they lie somewhere in compacted ones: everything is computed."""
    world.add([8], 8)
    world.compact(vacuum=True)
    assert "compacted and vacuumed" in world.plain.run().reason
    world.check()


def test_parts_that_were_compacted_are_not_read_again(world: World) -> None:
    """Of a version that was computed from a compacted part, the parts in it are nothing new."""
    world.compact(vacuum=False)
    world.plain.run(full=True)
    world.add([8], 8)
    world.publish()
    assert world.plain.run().computed == 1
    world.check()


def test_a_stage_follows_the_files_of_its_source(world: World) -> None:
    """A file that the source replaced takes its rows along, and the others stay."""
    world.check()
    world.add([1], 17)
    world.delete([0])
    world.check()


def test_another_source_that_changed_means_all(tmp_path: Path) -> None:
    """A side table is whole in each portion: one that moved makes all of them stale."""
    world = World(tmp_path)
    world.add([0], 1)
    world.publish()
    side = Scene(Store.at(tmp_path / "side")).open().add(Did("s", rows=[{"g": "g0", "name": "north"}])).publish()

    def joined(lab: Any, names: Any) -> Any:
        return lab.merge(names[["g", "name"]], on="g", how="left")[["item_key", "name"]]

    report = dc.Report("joined", {"lab": world.scene.store.url, "names": side.store.url}, joined, mergeable="partition")
    assert report.run().rows_in == {"lab": 1, "names": 1}
    world.add([3], 1)
    world.publish()
    assert (report.run().reason, report.newest().rows_in) == ("", {"lab": 2, "names": 1})
    side.hide("s").add(Did("s", attempt=2, rows=[{"g": "g0", "name": "south"}])).publish()
    assert report.run().reason == "names changed"
    assert report.to_pandas().name.tolist() == ["south", "south"]


def test_new_columns_mean_all(world: World) -> None:
    """Where the source's columns changed, portions of before may be of other columns."""
    world.scene.add(Did("k50", rows=[{"g": "g2", "x": 1, "more": True}]))
    world.publish()
    assert world.plain.run().reason == "the columns of lab changed"


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"mergeable": "g", "combine": {"n": "sum"}}, r"says nothing of 'x': .*\"x\": \"sum\""),
        (
            {"mergeable": "g", "combine": {"n": "sum", "x": "max", "top": "max"}},
            r"'top', which the result does not have \(it has g, n, x\)",
        ),
        ({"mergeable": ["g", "day"], "combine": {"n": "sum", "x": "max"}}, "'day', which the result does not have"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_columns_that_nobody_said_how_to_combine_are_refused(world: World, declared: dict[str, Any], words: str, whole: bool) -> None:
    """A column that ``combine=`` does not name is not dropped: the error comes before anything is computed, and says what to write."""
    asked: list[str] = []

    def looked(part: Any) -> Any:
        asked.extend(part.g)
        return part

    def function(raw: Any) -> Any:
        counted = counts_of(raw)
        return counted.compute() if whole else counted.map_partitions(looked, meta=counted._meta)

    world.add([1, 2], 5)
    world.scene.publish()
    report = dc.Report("unsaid", world.scene.store.url, function, **declared)
    with pytest.raises(ReportError, match=words):
        report.run()
    assert (asked, report.newest()) == ([], None)


@pytest.mark.parametrize("lazy", [False, True])
def test_null_that_a_function_gave_stays_null_when_it_is_combined(lazy: bool) -> None:
    """pandas says 0 for the sum of nothing; keys may be null, and columns called as they like."""
    table = pa.table(
        {"g": ["a", "b", "b", None], "f": [None, 1.5, None, 2.0], "n": [1, 2, 3, 4], "0": [1, 2, 3, 4], "s": ["x", "y", None, None]}
    )
    frame = to_pandas(table)
    combine = Combine(["g"], {"f": "sum", "n": "prod", "0": "max", "s": "min"})
    with dask.config.set({"dataframe.convert-string": False}):
        found = combine(dd.from_pandas(frame, npartitions=2)).compute() if lazy else combine(frame)
    assert found.columns.tolist() == ["g", "f", "n", "0", "s"]
    rows = sorted(pa.Table.from_pandas(found, preserve_index=False).to_pylist(), key=str)
    assert rows == [
        {"g": "a", "f": None, "n": 1, "0": 1, "s": "x"},
        {"g": "b", "f": 1.5, "n": 6, "0": 3, "s": "y"},
        {"g": None, "f": 2.0, "n": 4, "0": 4, "s": None},
    ]


def test_portions_are_put_together_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small increments do not make many portions, and what is put together says the same."""
    monkeypatch.setattr(incremental, "MOST", 5)
    monkeypatch.setattr(incremental, "_AFTER_MERGING", 3)
    for key in range(10, 15):
        world.add([key], key)
        world.publish()
        world.plain.run()
        world.by_key.run()
    version, by_key = world.plain.newest(), world.by_key.newest()
    assert version is not None
    assert by_key is not None
    assert max(len(version.portions), len(by_key.portions)) <= 5
    world.add([0, 12], 3)
    world.delete([13])
    world.check()
