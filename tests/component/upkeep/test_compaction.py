"""Compaction: fewer and larger files, and never another row, whatever others commit or remove meanwhile."""

from __future__ import annotations

import datetime
import io
import itertools
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.dataset import compaction, merging
from dcompute.dataset.compaction import LEAST, SMALL, compact, compact_after_run, first_of, grouped, worth_merging
from dcompute.dataset.entries import Hide, Replace
from dcompute.dataset.hiding import Hides
from dcompute.dataset.keeper import Keeper
from dcompute.dataset.merging import Merge
from dcompute.dataset.names import entry_name
from dcompute.dataset.reading import results_schema
from dcompute.dataset.state import CountedPart
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from dcompute.dataset.writer import open_dataset
from dcompute.errors import DatasetCorruptError, StoreError, UsageError
from dcompute.testing import Fault, FaultStore
from tests.component.upkeep.driving import Driving, key, on_storage, visible


class Killed(BaseException):
    """The process is gone at once."""


@pytest.fixture
def store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


@pytest.fixture
def full(store):
    """Twelve small batches, of which an item is left out, one is hidden and done again, and one failed."""
    driver = Driving(store)
    for number in range(12):
        driver.add({f"{number}-{index}": [{"n": number, "s": "x" * index}] for index in range(3)}, left_out=(key(f"{number}-2"),))
    driver.add({"0-0": [{"n": -1, "s": "again"}], "bad": None}, hide=["0-0"])
    driver.close()
    return store


def part(name, size):
    return CountedPart(1, f"results/{name}.parquet", size, 1)


def parts_of(store):
    return [one.name for one in open_dataset(store)[1].counted_parts()]


def meanwhile(store, act):
    """Have others act while a compacted part is written, before it is committed."""
    store.faults.append(Fault("upload", "results/compact-*", how="slow", act=act))


sizes = st.lists(st.integers(1, 2 * SMALL), max_size=60)


@given(sizes, st.integers(2, 12))
def test_what_is_merged_is_small_and_many_and_doubles(found, least):
    """Parts are merged in their order, only small ones, and only where the largest of them is no more than half of all."""
    parts = [part(number, size) for number, size in enumerate(found)]
    chosen = worth_merging(parts, least)
    assert not chosen or len(chosen) >= least
    assert all(one.size < SMALL for one in chosen)
    assert chosen == [one for one in parts if one in chosen]
    if chosen:
        assert 2 * max(one.size for one in chosen) <= sum(one.size for one in chosen)


def test_a_row_is_written_again_a_few_times_only():
    """A thousand runs of one part each, each followed by a compaction, write all rows again about as often as they double."""
    parts, written = [], 0
    for number in range(1000):
        parts.append(part(number, 1000))
        if chosen := worth_merging(parts):
            merged = part(f"m{number}", sum(one.size for one in chosen))
            written += merged.size
            parts = [one for one in parts if one not in chosen] + [merged]
    assert len(parts) < 40
    assert written < 10 * 1000 * 1000


@given(sizes, st.integers(1, 4 * SMALL))
def test_groups_are_neighbours_up_to_a_size(found, target):
    """Each part is in one group, in order; a group is larger than wanted only where one part is, and two neighbours never fit one."""
    parts = [part(number, size) for number, size in enumerate(found)]
    groups = grouped(parts, target)
    assert list(itertools.chain(*groups)) == parts
    assert all(len(group) == 1 or sum(one.size for one in group) <= target for group in groups)
    for one, two in itertools.pairwise(groups):
        assert sum(each.size for each in one) + two[0].size > target


def test_a_compaction_at_the_end_of_a_run_is_bounded():
    """It takes no more parts and no more bytes than said."""
    parts = [part(number, 10) for number in range(20)]
    assert first_of(parts, 5, 1000) == parts[:5]
    assert first_of(parts, 100, 35) == parts[:3]


def test_small_parts_become_one(full):
    """Many parts become one with the rows that count, and the next call finds nothing to do."""
    before = visible(full)
    done = compact(full)
    assert (done.replaced, done.written, done.dropped, done.rows) == (13, 1, 13, 24)
    assert visible(full) == before
    assert "13 results parts" in str(done)
    assert compact(full).replaced == 0


def test_few_parts_are_left_alone(store):
    """Where few parts are small nothing is written; with all=True they become one."""
    driver = Driving(store)
    for number in range(LEAST - 1):
        driver.add({f"{number}": [{"n": number}]})
    driver.close()
    assert compact(store).replaced == 0
    assert compact(store, all=True).replaced == LEAST - 1


@pytest.mark.parametrize("rows", [[], [{"n": 1}]])
def test_a_dataset_with_little_or_nothing_in_it(store, rows):
    """No part, or one that is true already, is nothing to compact."""
    driver = Driving(store)
    driver.add({"a": rows})
    driver.close()
    assert compact(store, all=True).replaced == 0
    assert "nothing to compact" in str(compact(store))


def test_a_single_part_with_rows_that_do_not_count_is_written_again(store):
    """all=True makes a lone part true: it drops rows left out or hidden; a hide of what is not in it is no reason."""
    driver = Driving(store)
    driver.add({"a": [{"n": 1}], "b": [{"n": 2}]}, left_out=(key("b"),))
    driver.close()
    assert compact(store, all=True).dropped == 1
    assert compact(store, all=True).replaced == 0
    again = Driving(store, "r2")
    again.writer.commit([Hide(keys=(key("elsewhere"),))])
    again.close()
    assert compact(store, all=True).replaced == 0
    Keeper(store).commit(lambda: [Hide(keys=(key("a"),), scope="all")])
    done = compact(store, all=True)
    assert (done.replaced, done.written) == (1, 0)
    assert parts_of(store) == []


def test_large_parts_that_are_true_are_left_alone(store, monkeypatch):
    """all=True writes again what has other types than the dataset, rows left out or hidden, and no other large part."""
    monkeypatch.setattr(compaction, "SMALL", 0)
    driver = Driving(store)
    driver.add({"a": [{"n": 1}]})
    good = driver.add({"b": [{"n": 1.5}], "c": [{"n": 2.5}]})
    driver.add({"d": [{"n": 3.5}], "e": [{"n": 4.5}]})
    driver.add({"e": [{"n": 5.5}]}, hide=["e"])
    driver.close()
    before = visible(store)
    done = compact(store, all=True)
    assert (done.replaced, done.dropped) == (2, 1)
    assert good.results[0].name in parts_of(store)
    assert visible(store) == before
    assert compact(store, all=True).replaced == 0


def test_types_and_columns_that_drift(store):
    """Parts of an older schema are read as the newest one says: new columns, widened and nested types; a second call finds all true."""
    driver = Driving(store)
    moment = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    driver.add({"a": [{"n": 1, "list": [{"x": 1}], "none": None}]})
    driver.add({"b": [{"n": 1.5, "list": [{"x": 2, "y": "late"}], "when": moment, "raw": b"\0", "map": {"k": [1]}, "none": 1}]})
    driver.close()
    before = visible(store)
    assert compact(store, all=True).replaced == 2
    assert visible(store) == before
    assert compact(store, all=True).replaced == 0
    vacuum(store, 0)
    assert on_storage(store) == before


histories = st.lists(
    st.tuples(st.sets(st.sampled_from("abcdef"), min_size=1), st.sets(st.sampled_from("abcdef"), max_size=2), st.booleans()),
    min_size=1,
    max_size=6,
)


@given(histories, st.integers(0, 6), st.sampled_from([None, "n"]))
def test_the_files_alone_are_the_truth_after_all(history, at, sort_by):
    """Whatever was added, left out and hidden, before a compaction and after: all=True and a vacuum leave files with what counts."""
    store = Store.at(f"memory://{uuid.uuid4().hex}")
    driver = Driving(store)
    for number, (keys, hidden, is_wide) in enumerate(history):
        if number == at:
            compact(store, all=True)
        row = {"n": number, **({"more": [number]} if is_wide else {})}
        left_out = tuple(key(text) for text in sorted(keys)[2:])
        driver.add({text: [row, row] for text in sorted(keys)}, hide=sorted(hidden), left_out=left_out)
    driver.close()
    before = visible(store)
    compact(store, all=True, sort_by=sort_by)
    assert visible(store) == before
    vacuum(store, 0)
    assert visible(store) == on_storage(store) == before


def test_hides_that_come_meanwhile_hit_compacted_rows(full):
    """A key that is hidden after the parts were read and before they are committed stays hidden."""
    meanwhile(full, lambda: Keeper(full.inner).commit(lambda: [Hide(keys=(key("5-0"),), scope="all")]))
    before = visible(full)
    assert compact(full).replaced == 13
    assert before - visible(full) == {repr({"item_key": "5-0", "key_kind": "str", "n": 5, "s": ""}): 1}


def test_a_driver_that_commits_meanwhile_goes_on(full):
    """A compaction that lost its number tries the next one, and the driver reads on and commits more."""
    driver = Driving(full.inner, "r2")
    meanwhile(full, lambda: driver.add({"new": [{"n": 7}]}))
    before = visible(full)
    assert compact(full).replaced == 13
    driver.add({"newer": [{"n": 8}]})
    driver.close()
    assert sum((visible(full) - before).values()) == 2
    assert before - visible(full) == {}


def test_two_compactions_of_one_part(full):
    """The later one gives way, says so, and takes its file back."""
    before = visible(full)
    meanwhile(full, lambda: compact(full.inner))
    done = compact(full)
    assert (done.replaced, done.overtaken) == (0, 13)
    assert "another compaction" in str(done)
    assert visible(full) == before
    assert set(full.names("results")) - set(parts_of(full)) == set(_replaced(full))


def test_a_vacuum_that_takes_a_compacted_part_before_its_commit(full):
    """What vacuum removed nobody commits: no row is lost."""
    before = visible(full)
    meanwhile(full, lambda: vacuum(full.inner, 0))
    # the file is there when vacuum looks: the answer of the upload comes late
    full.faults[0].how = "after"
    full.faults[0].act = None
    with pytest.raises(StoreError):
        compact(full)
    (orphan,) = [name for name in full.names("results") if "compact-" in name]
    full.faults.append(Fault("create", "log/*", how="slow", act=lambda: vacuum(full.inner, 0)))
    done = compact(full)
    assert not full.exists(orphan)
    assert (done.replaced, done.overtaken) == (0, 13)
    assert visible(full) == before


def test_parts_that_went_while_they_were_read(full):
    """Parts that another compaction replaced and vacuum removed are no error: the compaction was overtaken."""
    before = visible(full)

    def overtake():
        compact(full.inner)
        vacuum(full.inner, 0)

    # the compaction has read the log to its end by then
    end = entry_name(open_dataset(full)[1].number + 1)
    full.faults.append(Fault("read", end, act=overtake, error=FileNotFoundError(end)))
    done = compact(full)
    assert (done.replaced, done.overtaken) == (0, 13)
    assert visible(full) == before


def test_a_part_that_is_gone(full):
    """A part that counts and is not there is named, and nothing is committed."""
    name = parts_of(full)[4]
    full.remove([name])
    number = open_dataset(full)[1].number
    with pytest.raises(DatasetCorruptError, match=name):
        compact(full)
    assert open_dataset(full)[1].number == number


def test_a_part_with_a_column_that_nobody_knows(full):
    """What the log's schema does not name is not dropped without a word."""
    name = parts_of(full)[4]
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(full.read(name))).append_column("new", pa.array([1] * 3)), buffer)
    full.inner.write(name, buffer.getvalue())
    with pytest.raises(DatasetCorruptError, match=f"{name} has the column 'new'"):
        compact(full)


def test_a_compaction_killed_at_every_step(rounds):
    """Wherever it dies, the rows are what they were, and the next one with a vacuum leaves nothing of it."""
    for step in itertools.count():
        store = FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))
        driver = Driving(store)
        for number in range(LEAST):
            driver.add({f"{number}": [{"n": number}]}, hide=["0"] if number == 3 else [])
        driver.close()
        before = visible(store)
        store.faults.append(Fault("*", skip=step, error=Killed()))
        try:
            compact(store)
        except Killed:
            pass
        else:
            break
        store.faults.clear()
        assert visible(store) == before
        compact(store, all=True)
        vacuum(store, 0)
        assert visible(store) == on_storage(store) == before
    assert step > LEAST


def test_a_lost_answer_of_the_commit(full):
    """An entry whose answer was lost counts once."""
    before = visible(full)
    full.faults.append(Fault("create", "log/*", how="after"))
    assert compact(full).replaced == 13
    assert visible(full) == before
    assert sum(isinstance(action, Replace) for entry in Keeper(full).log.read_all() for action in entry.actions) == 1


def test_sorted_files(store):
    """Rows of a file are sorted by the column, nulls last, and the file says so with statistics; the next call finds it sorted."""
    driver = Driving(store)
    for number in range(4):
        driver.add({f"{number}-{index}": [{"nested": {"x": 1, "y": 2}, "n": (7 * number + 3 * index) % 11 or None}] for index in range(5)})
    driver.close()
    before = visible(store)
    assert compact(store, all=True, sort_by="n").replaced == 4
    (name,) = parts_of(store)
    with merging.opened(store, name) as file:
        values = file.read(columns=["n"]).column("n").to_pylist()
        assert values == sorted(value for value in values if value is not None) + [None] * values.count(None)
        (column,) = [index for index in range(5) if file.schema.column(index).path == "n"]
        statistics = file.metadata.row_group(0).column(column).statistics
        assert (statistics.min, statistics.max) == (values[0], max(value for value in values if value is not None))
        assert file.metadata.row_group(0).sorting_columns == (pq.SortingColumn(column),)
    assert visible(store) == before
    assert compact(store, all=True, sort_by="n").replaced == 0
    assert compact(store, all=True, sort_by="item_key").replaced == 1


def test_as_many_rows_are_read_at_once_as_a_row_group_has(store, monkeypatch):
    """Rows of some kilobytes that are stored in next to nothing are not all brought into memory."""
    driver = Driving(store)
    for number in range(4):
        driver.add({f"{number}-{index}": [{"t": f"{index % 3}" * 5000}] for index in range(50)})
    driver.close()
    monkeypatch.setattr(merging, "GROUP_BYTES", 1 << 17)
    compact(store, all=True)
    held = []
    grouped = merging._grouped
    monkeypatch.setattr(merging, "SORT_BYTES", 1 << 17)
    monkeypatch.setattr(
        merging, "_grouped", lambda *given: (held.append(sum(one.nbytes for _, one in group)) or group for group in grouped(*given))
    )
    compact(store, all=True, sort_by="t")
    assert len(held) > 5
    assert max(held) < 1 << 18


def test_who_asks_for_an_order_gets_it(store):
    """Few small files are sorted too, and one that is sorted is merged with what came after."""
    driver = Driving(store)
    for number in range(4):
        driver.add({f"{number}": [{"n": 9 - number}]})
    assert compact(store).replaced == 0
    assert compact(store, sort_by="n").replaced == 4
    assert compact(store, sort_by="n").replaced == 0
    driver.add({f"{number}": [{"n": number}] for number in range(4, 9)})
    driver.close()
    compact(store, sort_by="n")
    for name in parts_of(store):
        with merging.opened(store, name) as file:
            assert file.metadata.row_group(0).sorting_columns


def test_an_address_is_no_client(full):
    """The error says what is."""
    with pytest.raises(UsageError, match=r"pass a connected distributed\.Client"):
        compact(full, client="tcp://127.0.0.1:9")


def test_columns_that_cannot_sort(full):
    """A column that is not there, or has no order, is refused before anything is read."""
    with pytest.raises(UsageError, match="no column 'm' to sort by"):
        compact(full, sort_by="m")
    driver = Driving(full, "r2")
    driver.add({"list": [{"l": [1]}]})
    driver.close()
    with pytest.raises(UsageError, match=r"'l' is list<.*> whose|'l' is list<.*>, whose values have no order"):
        compact(full, all=True, sort_by="l")


def merge_of(store, **changed):
    state = open_dataset(store)[1]
    return Merge(store, tuple(state.counted_parts()), results_schema(state), Hides.of(state.hides), **changed)


def test_files_end_at_their_size(store, monkeypatch):
    """A compacted part is closed once it has its size, and the rest goes into the next one."""
    monkeypatch.setattr(merging, "GROUP_ROWS", 100)
    driver = Driving(store)
    for number in range(10):
        driver.add({f"{number}": [{"u": uuid.uuid4().hex} for _ in range(100)]})
    driver.close()
    refs = merge_of(store, target=8000)()
    assert len(refs) > 2
    assert sum(ref.rows for ref in refs) == 1000
    assert all(8000 <= ref.size < 20_000 for ref in refs[:-1])
    assert [store.size(ref.name) for ref in refs] == [ref.size for ref in refs]


@pytest.mark.parametrize(("count", "rows"), [(1, 1 << 21), (32, 1 << 16)], ids=["one large", "many small"])
def test_memory_does_not_grow_with_the_parts(tmp_path, monkeypatch, count, rows):
    """Merging 40 MB takes less than half of that, in small parts and in a large one."""
    monkeypatch.setattr(merging, "GROUP_BYTES", 1 << 20)
    # the log says that the part is small: it was made large behind its back
    monkeypatch.setattr(merging, "_TINY", 0 if count == 1 else 1 << 20)
    store = Store.at(tmp_path / "dataset")
    driver = Driving(store)
    batches = [driver.add({f"{number}": [{"n": 1}]}) for number in range(count)]
    driver.close()
    table = pa.table({"item_key": pa.repeat("k", rows), "key_kind": pa.repeat("str", rows), "n": pa.array(range(rows), pa.int64())})
    for batch in batches:
        pq.write_table(table, store.path(batch.results[0].name), row_group_size=1 << 17)
    assert table.nbytes * count >= 40 << 20
    default = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(default)
    pa.set_memory_pool(pool)
    try:
        refs = merge_of(store)()
    finally:
        pa.set_memory_pool(default)
    assert sum(ref.rows for ref in refs) == count * rows
    assert 0 < pool.max_memory() < 20 << 20


def many(store, count):
    driver = Driving(store)
    for number in range(count):
        driver.add({f"{number}": [{"n": number}]})
    driver.close()
    return driver.writer.state


def test_after_a_run(store, monkeypatch):
    """The driver's hook merges where very many parts are small, and only where the setting lets it."""
    import dask

    monkeypatch.setattr(compaction, "LEAST_AFTER_RUN", 20)
    state = many(store, 20)
    with dask.config.set({"dcompute.compact": "off"}):
        compact_after_run(store, state)
    assert len(parts_of(store)) == 20
    compact_after_run(store, state)
    assert len(parts_of(store)) == 1
    assert state.number == open_dataset(store)[1].number


def test_few_parts_after_a_run(store):
    """What few parts a run leaves stays as it is, and costs no request."""
    state = many(store, 30)
    store.calls.clear()
    compact_after_run(store, state)
    assert store.calls == []


def test_a_failure_after_a_run_is_nobody_s(store, monkeypatch, caplog):
    """A storage that fails, or a part that is gone, is logged."""
    monkeypatch.setattr(compaction, "LEAST_AFTER_RUN", 20)
    state = many(store, 20)
    store.faults.append(Fault("upload", "*"))
    compact_after_run(store, state)
    assert "compaction after the run failed" in caplog.text
    assert len(parts_of(store)) == 20


def test_time_after_a_run(store, monkeypatch):
    """When its time is over no other merge begins."""
    monkeypatch.setattr(compaction, "LEAST_AFTER_RUN", 20)
    monkeypatch.setattr(compaction, "SECONDS_AFTER_RUN", -1.0)
    compact_after_run(store, many(store, 20))
    assert len(parts_of(store)) == 20


def _replaced(store):
    return [
        name for entry in Keeper(store).log.read_all() for action in entry.actions if isinstance(action, Replace) for name in action.parts
    ]
