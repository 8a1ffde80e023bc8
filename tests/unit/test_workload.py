from __future__ import annotations

import functools
import pickle
import random
from typing import Any

import cloudpickle
import pyarrow as pa
import pytest

import dcompute as dc
from dcompute.errors import WorkloadError
from dcompute.records import Request


@dc.workload
def plain(value: int) -> int:
    """Twice the value."""
    return 2 * value


@dc.workload(cpus=2, memory="2 GiB", timeout="10 min", version=3, priority=5)
def demanding(value: int, *, window: int = 3) -> int:
    return value + window


@dc.workload(gpus=1)
class Model:
    def __init__(self, weights: str = "small") -> None:
        self.weights = weights

    def __call__(self, path: str, threshold: float = 0.5) -> str:
        return f"{path} {self.weights} {threshold}"


def test_a_decorated_function_is_still_the_function() -> None:
    """It can be called, and keeps its name and documentation."""
    assert (plain(4), demanding(4, window=1)) == (8, 5)
    assert (plain.__name__, plain.__doc__, plain.name) == ("plain", "Twice the value.", "plain")


def test_a_decorated_class_is_still_the_class() -> None:
    """Calling it makes an instance."""
    assert Model("large")("a") == "a large 0.5"
    assert Model.is_class
    assert Model.name == "Model"


def test_what_its_items_ask_of_a_worker() -> None:
    """Requirements end in a request in plain units."""
    assert demanding.request() == Request(cpus=2, memory=2 << 30, priority=5)
    assert demanding.options(uses={"licence": 1}).request().uses == (("licence", 1.0),)
    assert Model.request().gpus == 1


def test_options_change_one_requirement_and_keep_the_others() -> None:
    """The original stays as it was."""
    changed = demanding.options(cpus=4, timeout=None)
    assert (changed.request().cpus, changed.timeout, changed.request().memory) == (4, None, 2 << 30)
    assert demanding.timeout == 600
    assert changed.function is demanding.function


def test_a_plain_function_or_class_is_a_workload() -> None:
    """With the requirements of one that says nothing."""
    assert dc.Workload.of(len).name == "len"
    assert dc.Workload.of(plain) is plain
    assert dc.Workload.of(plain.function).request() == Request()


def test_names_do_not_depend_on_where_a_function_was_made() -> None:
    """The name is the identity in the dataset: no module, no address, no enclosing function."""

    def inner(value: int) -> int:
        return value

    assert dc.Workload.of(inner).name == "inner"
    assert dc.Workload.of(functools.partial(inner)).name == "inner"


class NoCall:
    pass


async def later(value: int) -> int:
    return value


@pytest.mark.parametrize(("function", "words"), [(3, "3 is no workload"), (NoCall, "no __call__"), (later, "asynchronous")])
def test_what_cannot_be_a_workload_is_refused(function: Any, words: str) -> None:
    """At once, and it says why."""
    with pytest.raises(WorkloadError, match=words):
        dc.Workload.of(function)


def test_an_initializer_needs_somewhere_to_go() -> None:
    """A function that takes no state, and a class, which has its own set-up, are refused."""
    with pytest.raises(WorkloadError, match="'state'"):
        dc.workload(initializer=dict)(plain.function)
    with pytest.raises(WorkloadError, match="__init__"):
        dc.workload(initializer=dict)(Model.function)


def test_retries_become_a_policy() -> None:
    """A number or a policy or nothing."""
    assert "retries=2" in repr(plain.options(retries=2).retry_policy())
    policy = dc.Retry(1)
    assert plain.options(retries=policy).retry_policy() is policy
    assert plain.retry_policy().decide is not None


def test_params_go_where_their_names_are_taken() -> None:
    """Those of a class to its set-up or to each call; those of both to both."""
    assert Model.split_params({"weights": "w", "threshold": 0.1}) == ({"weights": "w"}, {"threshold": 0.1})

    def start(window: int) -> int:
        return window

    def with_state(value: int, *, window: int, state: int) -> int:
        return value + window + state

    work = dc.workload(initializer=start)(with_state)
    assert work.split_params({"window": 3}) == ({"window": 3}, {"window": 3})


def test_a_param_that_nobody_takes_is_refused_with_the_nearest() -> None:
    """Before anything runs."""
    with pytest.raises(WorkloadError, match=r"demanding takes no argument 'windwo'.*is 'window' meant"):
        demanding.split_params({"windwo": 3})


@pytest.mark.parametrize(
    ("work", "params", "keywords", "words"),
    [
        (demanding, {"value": 3}, None, "value"),
        (demanding, {}, ("val",), "keyword arguments val"),
        (demanding, {"window": 1}, ("value", "window"), "twice"),
        (dc.Workload.of(lambda: 0), {}, None, "one positional argument"),
    ],
)
def test_calls_that_must_fail_are_refused(work: dc.Workload, params: dict[str, Any], keywords: tuple[str, ...] | None, words: str) -> None:
    """What every item would fail with is an error before the first."""
    with pytest.raises(WorkloadError, match=words):
        work.check_call(params, keywords)


def test_calls_that_may_work_are_not_refused() -> None:
    """Builtins that do not tell their arguments, groups, tables."""
    dc.Workload.of(max).check_call({})
    demanding.check_call({"window": 1}, ("value",))
    Model.check_call({"threshold": 1.0})
    plain.options(group=8).check_call({}, ("a", "b"))
    dc.Workload.of(lambda **row: row).check_call({"z": 1}, ("a", "b"))


def test_workloads_of_a_module_are_pickled_by_name() -> None:
    """What the name in the module means on the other side is what counts; others travel whole."""
    assert pickle.loads(pickle.dumps(plain)) is plain
    changed = cloudpickle.loads(cloudpickle.dumps(plain.options(cpus=3)))
    assert (changed(4), changed.request().cpus) == (8, 3)


def test_a_lambda_knows_that_its_name_tells_nothing() -> None:
    """Wherever it stands, and behind a partial too."""
    assert dc.Workload.of(lambda value: value).name == "<lambda>"
    assert dc.Workload.of(lambda value: value).is_lambda
    assert dc.Workload.of(functools.partial(lambda value, k: value, k=1)).is_lambda
    assert not plain.is_lambda


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"item_key": "string"}, "'item_key', which every dataset writes itself"),
        (pa.schema([("a", pa.int64()), ("a", pa.int64())]), "'a' 2 times"),
        ({"a": "intt"}, "'intt' for column 'a', which is no type"),
        ({"a\0b": "int64"}, "zero character"),
        ({5: "int64"}, "5 .*names of columns are text"),
        ([("a", pa.int64(), "more")], "say names and types"),
        (pa.schema([pa.field("a", pa.int64(), nullable=False)]), "nullable=False"),
        (7, "say names and types"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_schema_that_no_dataset_has_is_refused_where_it_is_declared(schema: Any, words: str) -> None:
    """At the decorator, and where requirements are changed; not only when a run begins."""
    with pytest.raises(WorkloadError, match=words):
        dc.workload(schema=schema)(plain.function)
    with pytest.raises(WorkloadError, match=words):
        plain.options(schema=schema)


def test_it_shows_what_it_asks_for() -> None:
    """Only what differs from the usual."""
    assert repr(plain) == "<Workload plain>"
    assert repr(dc.Workload.of(random.random).options(memory="2 GiB")) == "<Workload Random.random memory='2 GiB'>"
