"""From the words of ``dcompute run`` to the arguments of ``dc.map``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import click
import pytest

from dcompute.cli import inputs
from dcompute.cli.run import Order, order_of, run
from dcompute.dataset.store import Store
from dcompute.errors import InputError, UsageError
from dcompute.inputs import Inputs
from tests.component.upkeep.driving import Driving


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    """A working directory with a workload and two inputs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    Path("sample_run.py").write_text("def flux(path, window=1):\n    return window\n")
    Path("a.txt").write_text("a")
    Path("b.txt").write_text("b")
    yield
    sys.modules.pop("sample_run", None)


def order(*args: str, words: tuple[str, ...] = ("*.txt",)) -> Order:
    """What a command line asks for."""
    with run.make_context("run", ["sample_run.py:flux", *words, "out", *args]) as context:
        return order_of(context.params)


class TestOrder:
    def test_the_shortest_line_says_what_dc_map_says(self):
        """Where no option is given, every argument has the default of ``dc.map``."""
        import inspect

        import dcompute as dc

        defaults = {name: parameter.default for name, parameter in inspect.signature(dc.map).parameters.items()}
        found = order()
        assert found.dataset == "out"
        assert list(found.inputs) == [str(Path("a.txt").resolve()), str(Path("b.txt").resolve())]
        assert found.options == {name: defaults[name] for name in found.options}
        assert set(found.options) == set(defaults) - {"workload", "inputs", "dataset", "input_checks"}  # which no option can say

    def test_the_place_among_other_runs_reaches_the_run(self):
        """Priorities by name, limits as they are written, times as they are written; what means nothing is refused."""
        found = order(
            "--priority", "high", "--weight", "3", "--limit", "licence=3", "--limit", "api=20/s", "--wait-for-workers", "5 min"
        ).options
        assert (found["priority"], found["weight"], found["wait_for_workers"]) == (10, 3.0, "5 min")
        assert found["limits"] == {"licence": "3", "api": "20/s"}
        with pytest.raises(click.BadParameter, match="urgent"):
            order("--priority", "urgentt")
        with pytest.raises(click.BadParameter, match="licence=3 or api"):
            order("--limit", "licence")

    def test_options_of_files_reach_them(self):
        """What tells that a file changed, and how long it has to rest, are said of the files; what is gone of the run."""
        Path("b.txt").touch()
        found = order("--settle", "1h", "--on-gone", "drop")
        assert (list(found.inputs), len(found.inputs.left), found.options["on_gone"]) == ([], 2, "drop")
        (first, _) = Inputs.of(order("--fingerprint", "content").inputs)
        assert first.fingerprint.endswith("0" * 16)

    def test_datasets_are_inputs(self, tmp_path):
        """With ``--by`` the words name datasets, of which nothing else says what an item is."""
        driver = Driving(Store.at(tmp_path / "raw"))
        driver.add({"a": [{"x": 1}, {"x": 2}]})
        assert len(list(Inputs.of(order("--by", "row", words=("raw",)).inputs))) == 2
        assert [item.key.text for item in Inputs.of(order("--by", "key", words=("ra*",)).inputs)] == ["a"]
        with pytest.raises(UsageError, match="of which --settle says nothing"):
            order("--by", "key", "--settle", "1h", words=("raw",))

    @pytest.mark.parametrize("option", [("--settle", "1h"), ("--fingerprint", "content")])
    def test_options_of_files_are_refused_of_rows(self, option):
        """The rows of a table have no such thing."""
        Path("t.csv").write_text("a\n1\n")
        with pytest.raises(UsageError, match=f"{option[0]} is for files as inputs"):
            order(*option, words=("t.csv",))

    def test_options_become_arguments(self):
        """Each in the type that ``dc.map`` takes."""
        options = order(
            *("--set", "window=1800", "--set", "name=x", "--on-change", "keep", "--takeover", "--seed", "7", "--name", "n"),
            *("--modules", "a,b", "--modules", "c", "--batch-size", "9", "--max-failures", "5%", "--errors", "raise"),
        ).options
        assert options["params"] == {"window": 1800, "name": "x"}
        assert (options["on_change"], options["takeover"], options["seed"], options["name"]) == ("keep", True, 7, "n")
        assert (options["modules"], options["batch_size"], options["max_failures"], options["errors"]) == (
            ("a", "b", "c"),
            9,
            0.05,
            "raise",
        )

    @pytest.mark.parametrize(
        ("given", "value"),
        [
            ((), False),
            (("--retry-failed",), True),
            (("--retry-failed=all",), True),
            (("--retry-failed=never",), "never"),
            (("--retry-failed=timeout,memory",), ("timeout", "memory")),
        ],
    )
    def test_retry_failed_takes_kinds_after_an_equals_sign(self, given, value):
        """Alone it means all kinds, wherever it stands."""
        assert order(*given).options["retry_failed"] == value

    def test_requirements_override_the_workload(self):
        """Only those that were given."""
        work = order("--memory", "2 GiB", "--timeout", "10 min", "--cpus", "2", "--resource", "SCRATCH=20", "--at-most-once").workload
        request = work.request()
        assert (request.memory, request.cpus, request.resources) == (2 << 30, 2, (("SCRATCH", 20.0),))
        assert (work.timeout, work.idempotent, work.name) == (600, False, "flux")

    def test_a_scheduler_file_gives_its_address(self):
        """What ``dask scheduler --scheduler-file`` wrote; anything else is an address as it stands."""
        Path("s.json").write_text(json.dumps({"address": "tcp://h:1"}))
        assert order("--scheduler", "s.json").options["client"] == "tcp://h:1"
        assert order("--scheduler", "tcp://h:2").options["client"] == "tcp://h:2"
        with pytest.raises(click.BadParameter, match="no scheduler file"):
            order("--scheduler", "a.txt")


class TestInputs:
    def test_lines_come_as_they_are_written(self):
        """Spaces are kept, ends of lines of all systems are not, empty lines are none; nothing is read ahead."""
        assert list(inputs.lines(io.StringIO("a b \n\r\n c\r\n\nlast"))) == ["a b ", " c", "last"]
        stream = io.StringIO("one\ntwo\n")
        assert next(inputs.lines(stream)) == "one"
        assert stream.readline() == "two\n"

    @pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.CSV", "t.parquet", "t.pq", "t.csv.gz"])
    def test_one_table_is_its_rows(self, name):
        """Whatever its format, by its ending."""
        import pandas as pd

        frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
        if name.endswith(("parquet", "pq")):
            frame.to_parquet(name)
        else:
            frame.to_csv(name, index=False, sep="\t" if name.endswith("tsv") else ",")
        assert inputs.of_words([name]).to_dict("records") == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]

    def test_a_csv_file_loses_nothing(self):
        """Zeros in front stay, an empty cell is None and changes no other, large integers and unlike numbers are exact."""
        rows = [
            {"id": "007", "n": 9007199254740993, "x": 0, "ok": True, "note": "NA", "far": 10**30},
            {"id": "8", "n": None, "x": 0.5, "ok": False, "note": None, "far": 1},
        ]
        Path("t.csv").write_text("id,n,x,ok,note,far\n007,9007199254740993,0,True,NA,1000000000000000000000000000000\n8,,0.5,False,,1\n")
        found = inputs.of_words(["t.csv"])
        assert found.to_dict("records") == rows
        items = list(Inputs.of(found))
        assert [item.value for item in items] == rows
        assert [type(item.value["x"]) for item in items] == [int, float]

    def test_a_row_has_its_key_in_every_file(self):
        """Whatever cells other rows have, as long as a column is numbers in both."""
        Path("one.csv").write_text("id,v\n7,1\n")
        Path("two.csv").write_text("id,v\n7,1\n,0.5\n8,\n")
        one, two = (list(Inputs.of(inputs.of_words([name]))) for name in ("one.csv", "two.csv"))
        assert one[0].key == two[0].key == ('{"id":7,"v":1}', "dict")

    @pytest.mark.parametrize(
        ("types", "values"),
        [
            ("exact", {"a": ["007", None], "b": [1, 2]}),
            ("text", {"a": ["007", ""], "b": ["1", "2"]}),
            ("guess", {"a": [7.0, float("nan")], "b": [1, 2]}),
        ],
    )
    def test_types_say_what_cells_become(self, types, values):
        """As they are written where that loses nothing, all text, or what pandas takes them for."""
        Path("t.csv").write_text("a,b\n007,1\n,2\n")
        found = order("--types", types, words=("t.csv",)).inputs
        assert repr(found.to_dict("list")) == repr(values)

    @pytest.mark.parametrize(
        ("cell", "told"), [("0.10", "x (for '0.10')"), ("007", "x (for '007')"), ("true", "x (for 'true')"), ("a", ""), ("2", "")]
    )
    def test_numbers_that_stay_text_are_told(self, caplog, cell, told):
        """With the cell that is no number as Python writes it, and what to say to have numbers; text needs no word."""
        Path("t.csv").write_text(f"x\n{'False' if cell == 'true' else 1}\n{cell}\n")
        inputs.of_words(["t.csv"])
        assert told in caplog.text
        assert ("--types guess" in caplog.text) == bool(told)

    def test_types_are_for_a_csv_file(self):
        """Lines, files and Parquet have no cells to be read."""
        Path("t.csv").write_text("a\n1\n")
        for words, rows in ((["t.parquet"], None), (["-"], None), (["a.txt"], None), (["t.csv"], False), (["t.csv", "a.txt"], None)):
            with pytest.raises(UsageError, match="--types is for"):
                inputs.of_words(words, rows=rows, types="text")

    @pytest.mark.parametrize("types", inputs.TYPES)
    def test_a_cell_without_a_name_is_refused(self, types):
        """Where rows are longer than the heading, the first cell of each would be lost."""
        Path("t.csv").write_text("a,b\n1,2,3\n")
        with pytest.raises(InputError, match="more cells"):
            inputs.of_words(["t.csv"], types=types)

    def test_a_table_can_be_a_file_among_others(self):
        """Told so, or with others beside it, it is an item itself."""
        Path("t.csv").write_text("a\n1\n")
        assert list(inputs.of_words(["t.csv"], rows=False)) == [str(Path("t.csv").resolve())]
        assert len(inputs.of_words(["t.csv", "a.txt"])) == 2
        assert len(inputs.of_words(["*.csv"])) == 1
        with pytest.raises(UsageError, match="--rows needs one"):
            inputs.of_words(["t.csv", "a.txt"], rows=True)

    @pytest.mark.parametrize("content", ["", "a,b\n1\n2,3,4,5\n"])
    def test_a_table_that_cannot_be_read_is_told(self, content):
        """With the file and the option that takes it as it is."""
        Path("t.csv").write_text(content)
        with pytest.raises(InputError, match=r"t\.csv cannot be read as a table.*--files"):
            inputs.of_words(["t.csv"])

    @pytest.mark.parametrize("word", ["nothing*.txt", "nothing.csv", "nothing.txt"])
    def test_what_matches_nothing_is_refused(self, word):
        """A word that a person typed was meant to match."""
        with pytest.raises(InputError, match=r"no file.*nothing"):
            inputs.of_words([word])

    def test_standard_input_stands_alone(self):
        """Lines and files have different keys."""
        with pytest.raises(UsageError, match="cannot be mixed"):
            inputs.of_words(["-", "a.txt"])
