"""Commands as they are declared: words, placeholders, outputs, codes; nothing is started."""

from __future__ import annotations

import pickle
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dcompute as dc
from dcompute.code import code_digest
from dcompute.errors import WorkloadError
from dcompute.program import Declared, Program, Slot, Word, in_shell, program_of, safe, stem_of, suffix_of
from dcompute.worker.produced import checked_name


def made(command: Any, **options: Any) -> Program:
    return program_of(command, Declared(**options))


def values(slot: Slot) -> str:
    return f"<{slot}>"


def test_text_is_split_before_values_are_put_in() -> None:
    """A value with spaces, quotes and newlines is one argument, also within a word."""
    program = made("tool 'a b' -i {input} out={output} {{x}}", outputs="o.txt")
    odd = "x' \"y\n; rm -rf /"
    assert program.arguments(lambda slot: odd) == ["tool", "a b", "-i", odd, f"out={odd}", "{x}"]


def test_words_may_be_a_list() -> None:
    """A list of words is not split."""
    assert made(["tool", "a b", "{key}"]).arguments(values) == ["tool", "a b", "<{key}>"]


@pytest.mark.parametrize(
    ("command", "options", "named"),
    [
        ("", {}, "no words"),
        (7, {}, "7 is no command"),
        ("tool 'a", {}, "cannot be split"),
        ("tool {inptu}", {}, "{inptu}"),
        ("tool {input", {}, "'{input'"),
        ("tool {input:5}", {}, "'{input:5}'"),
        ("tool {}", {}, "'{}'"),
        ("tool {params}", {}, "{params[name]}"),
        ("tool {key[a]}", {}, "{key[a]}"),
        ("tool {output}", {}, "declares none"),
        ("tool {output} {a} {b}", {"outputs": {"a": "a", "b": "b"}}, "there are 2: a, b"),
        ("tool {input}", {"outputs": {"video": "v.mkv"}}, "no word has {video}"),
        ("tool {input}", {"outputs": {"input": "v.mkv"}}, "'input', which stands for something else"),
        ("tool {input}", {"outputs": {"a b": "v.mkv"}}, "no name for a placeholder"),
        ("tool {a}", {"outputs": {"a": "{scratch}/x"}}, "{scratch}"),
        ("tool {a}", {"outputs": {"a": "s3://bucket/fixed.bin"}}, "one place for all items"),
        ("tool", {"ok_codes": (0, 300)}, "300"),
        ("tool", {"ok_codes": ()}, "no item could ever succeed"),
        ("tool", {"ok_codes": (0, 2), "retry_codes": (2,)}, "exit code 2 is in ok_codes and in retry_codes"),
        ("tool", {"progress": "(?P<done>x)"}, "named group"),
        ("tool", {"progress": "("}, "no regular expression"),
        ("tool", {"stdout": "log"}, "stdout='log' is no output"),
        ("tool", {"parse": 5}, "parse=5"),
        ("tool \0", {}, "NUL"),
        ("echo '{input}'", {"shell": True}, "single quotes"),
        (["echo"], {"shell": True}, "shell=True takes the text"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_where_it_is_declared(command: Any, options: dict[str, Any], named: str) -> None:
    """An error names the word in question before anything runs."""
    with pytest.raises(WorkloadError) as raised:
        dc.command(command, **options)
    assert named in raised.value.message


@pytest.mark.parametrize("name", ["../x.mkv", "a/../x", "a//b", "a?.txt", ".tmp-x"])
def test_an_output_that_no_dataset_takes_is_refused(name: str) -> None:
    """The fixed part of a name in the dataset is looked at when the command is declared."""
    with pytest.raises(WorkloadError, match="outputs"):
        dc.command("tool {output}", outputs=name)


@pytest.mark.parametrize("name", ["isolation", "group", "initializer"])
def test_a_program_takes_no_requirements_of_functions(name: str) -> None:
    """What only functions can do is refused, also when options are changed later."""
    value: Any = {"isolation": "thread", "group": 3, "initializer": print}[name]
    with pytest.raises(WorkloadError):
        dc.command("tool {input}", **{name: value})
    with pytest.raises(WorkloadError):
        dc.command("tool {input}").options(**{name: value})


def test_requirements_are_those_of_any_workload() -> None:
    """Memory, timeout and retries are the workload's; the name is the program's."""
    workload = dc.command("/opt/bin/tool {input}", memory="2 GiB", timeout="1 min", retries=3)
    assert (workload.name, workload.timeout, workload.request().memory) == ("tool", 60.0, 2 << 30)
    assert workload.grace > 5.0


def test_params_and_columns_that_are_not_there_are_refused() -> None:
    """Placeholders in brackets are compared with params and with the columns of a table, and params with placeholders."""
    workload = dc.command("tool {params[crf]} {input[path]}")
    workload.check_call({"crf": 20}, ("path", "id"))
    with pytest.raises(WorkloadError, match="crf"):
        workload.check_call({}, ("path",))
    with pytest.raises(WorkloadError, match="preset"):
        workload.check_call({"crf": 20, "preset": "slow"}, ("path",))
    with pytest.raises(WorkloadError, match=r"input\[path\]"):
        workload.check_call({"crf": 20}, ("file",))
    with pytest.raises(WorkloadError, match="say a column"):
        dc.command("tool {input}").check_call({}, ("file",))


def test_a_command_travels_and_its_digest_follows_what_it_declares() -> None:
    """Pickled and opened it is the same; another word, or another function that parses, is other code."""
    workload = dc.command("tool {input}", parse=len)
    opened = pickle.loads(pickle.dumps(workload))
    assert opened.function == workload.function
    assert opened.name == "tool"
    digests = {
        code_digest(one.function) for one in (workload, opened, dc.command("tool -v {input}", parse=len), dc.command("tool {input}"))
    }
    assert len(digests) == 3


@given(st.text(max_size=300))
def test_values_in_names_are_safe_for_every_storage(value: str) -> None:
    """Whatever a key is, it names a file that a dataset takes, and no two different ones become the same by that."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return
    name = safe(value)
    assert not name.startswith(("/", "-", "."))
    assert ".." not in name.split("/")
    if len(name.encode()) <= 190:
        checked_name(name)
    assert (name == value) == (safe(f"{value}") == value)


@pytest.mark.parametrize(("one", "other"), [("../x", "x"), ("a:b", "a_b"), ("-x", "x"), ("a\nb", "a_b"), ("", "."), ("y" * 150, "y" * 151)])
def test_different_values_stay_different_names(one: str, other: str) -> None:
    """Where a value has to be changed, digits of it follow."""
    assert safe(one) != safe(other)


def test_a_suffix_keeps_its_dot() -> None:
    """Programs tell the format of an output by it."""
    assert safe(".mkv", is_suffix=True) == ".mkv"
    assert safe(".m\x00v", is_suffix=True).startswith(".m_v-")
    assert safe("", is_suffix=True) == safe("")


def test_stem_and_suffix_are_of_the_last_step() -> None:
    """Of URLs and paths alike."""
    assert (stem_of("s3://b/c/clip.a.mp4"), suffix_of("s3://b/c/clip.a.mp4")) == ("clip.a", ".mp4")
    assert (stem_of("/x/README"), suffix_of("/x/README")) == ("README", "")


@pytest.mark.parametrize("value", ["a b", "$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "*", "a\nb", "-n"])
@pytest.mark.parametrize("text", ["printf %s {input}", 'printf %s "{input}"', 'printf %s "<{input}>"', 'printf %s "it\'s {input}"'])
def test_a_shell_never_reads_a_value_as_a_command(text: str, value: str, tmp_path: Any) -> None:
    """Quoted by the user or not, a value is a parameter: it arrives as it is, and nothing in it is executed."""
    arguments = made(text, shell=True).arguments(lambda slot: value)
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert value in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_shell_text_keeps_its_own_braces_when_doubled() -> None:
    """Doubled braces are the shell's."""
    text, slots = in_shell(Word.of("awk '{{print $1}}' {input}", "the command"))
    assert text == "awk '{print $1}' \"${1}\""
    assert slots == [Slot("input")]
