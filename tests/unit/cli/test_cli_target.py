"""From ``pkg.module:name`` and ``file.py:name`` to a workload, and what is said when there is none."""

from __future__ import annotations

import pickle
import sys

import cloudpickle
import pytest

from dcompute.cli.target import load
from dcompute.errors import UsageError, WorkloadError


@pytest.fixture(autouse=True)
def _a_clean_python(monkeypatch, tmp_path):
    """Imports of one test are not seen by the next."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


class TestFiles:
    def test_a_function_of_a_file(self, tmp_path):
        """The file is executed and the function found, from wherever it is called."""
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "sample_flux.py").write_text("def flux(x):\n    return x + 1\n")
        assert load("deep/sample_flux.py:flux")(1) == 2

    def test_its_neighbours_can_be_imported(self, tmp_path):
        """As with ``python file.py``, modules beside the file are found."""
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "sample_helper.py").write_text("STEP = 5\n")
        (tmp_path / "deep" / "sample_main.py").write_text("import sample_helper\ndef f(x):\n    return x + sample_helper.STEP\n")
        assert load("deep/sample_main.py:f")(1) == 6

    def test_travels_by_value(self, tmp_path):
        """A worker that has neither the file nor its folder can call what it defines."""
        (tmp_path / "sample_value.py").write_text("BASE = 40\ndef f(x):\n    return x + BASE\n")
        data = cloudpickle.dumps(load("sample_value.py:f"))
        del sys.modules["sample_value"]
        (tmp_path / "sample_value.py").unlink()
        assert pickle.loads(data)(2) == 42

    def test_a_name_of_the_standard_library_hides_nothing(self, tmp_path):
        """A file called ``queue.py`` is executed under another name, and ``import queue`` stays what it was."""
        import queue

        (tmp_path / "queue.py").write_text("def f(x):\n    return 'mine'\n")
        assert load("queue.py:f")(1) == "mine"
        assert sys.modules["queue"] is queue

    def test_a_file_that_is_not_there(self):
        """The path is named."""
        with pytest.raises(UsageError, match=r"no file nowhere\.py"):
            load("nowhere.py:f")

    def test_a_file_that_fails_shows_its_own_traceback(self, tmp_path):
        """Line and reason are the user's; frames of dcompute and of Python's import are left out."""
        (tmp_path / "sample_broken.py").write_text("x = 1\ny = x / 0\n")
        with pytest.raises(WorkloadError) as caught:
            load("sample_broken.py:f")
        assert "line 2" in caught.value.message
        assert "ZeroDivisionError" in caught.value.message
        assert "importlib" not in caught.value.message
        assert "target.py" not in caught.value.message
        assert "sample_broken" not in sys.modules

    def test_a_script_that_exits_is_told_and_does_not_end_us(self, tmp_path):
        """``sys.exit()`` at the top of a file is an error of the file."""
        (tmp_path / "sample_exit.py").write_text("import sys\nsys.exit(0)\n")
        with pytest.raises(WorkloadError, match="SystemExit"):
            load("sample_exit.py:f")


class TestModules:
    def test_the_working_directory_is_searched(self, tmp_path):
        """As ``python -m`` does."""
        (tmp_path / "sample_pkg").mkdir()
        (tmp_path / "sample_pkg" / "__init__.py").write_text("")
        (tmp_path / "sample_pkg" / "sim.py").write_text("class Model:\n    class Inner:\n        pass\n")
        assert load("sample_pkg.sim:Model").__name__ == "Model"
        assert load("sample_pkg.sim:Model.Inner").__name__ == "Inner"

    def test_a_module_that_is_not_there(self, tmp_path):
        """It is named, and where a file of that name is there, that is what was meant."""
        with pytest.raises(UsageError, match="no module 'sample_nothing'"):
            load("sample_nothing.sub:f")
        (tmp_path / "other").mkdir()

    def test_a_module_that_misses_another_one_is_broken(self, tmp_path):
        """What is missing is not what was asked for: the traceback tells."""
        (tmp_path / "sample_needy.py").write_text("import sample_absent\n")
        with pytest.raises(WorkloadError, match="No module named 'sample_absent'"):
            load("sample_needy:f")

    def test_a_name_that_is_not_there_is_told_with_the_nearest(self, tmp_path):
        """Misspelt names find what was meant, others what there is."""
        (tmp_path / "sample_names.py").write_text("def simulate(x):\n    pass\nN = 3\n")
        with pytest.raises(UsageError, match="is 'simulate' meant"):
            load("sample_names.py:simulte")
        with pytest.raises(UsageError, match="it has simulate"):
            load("sample_names.py:zzz")

    def test_what_cannot_be_called_is_refused(self, tmp_path):
        """A number is no workload."""
        (tmp_path / "sample_number.py").write_text("N = 3\n")
        with pytest.raises(UsageError, match="is of type int, not a function"):
            load("sample_number.py:N")


@pytest.mark.parametrize("text", ["flux", "flux.py", ":f", "flux.py:", "a:b:", ""])
def test_what_is_of_neither_form_is_refused(text):
    """The two forms are named."""
    with pytest.raises(UsageError, match=r"pkg\.module:name or file\.py:name"):
        load(text)
