"""What checks say of the rows of a table: which do not pass, and why. Null, where nobody knows, is no pass."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc

from dcompute.checks.forms import Check, Said, is_expression, is_pandera
from dcompute.errors import CheckError, WorkloadError
from dcompute.records import CHECK_NAMES
from dcompute.secrecy import shown_value

#: Characters of a reason.
_REASON = 2000
#: Types that a column without a value is taken for, one after the other, where an expression does not take nulls of no type.
_TYPES = (pa.string(), pa.float64(), pa.bool_(), pa.timestamp("us"), pa.date32())
#: Types of the columns of a file, by the ends of their names.
_OF_FILES = {"url": pa.string(), "size": pa.int64(), "checksum": pa.string()}
_UNKNOWN = re.compile(r"No match for FieldRef\.(?:Nested\(FieldRef\.)?Name\(([^)\n]*)\)")
_WORD = re.compile(r"[^\W\d]\w*")


class Broken(NamedTuple):
    """The rows that do not pass."""

    rows: npt.NDArray[np.int64]  #: their places, ascending, each once
    names: list[str]  #: of the checks that each does not pass
    reasons: list[str]


def judge(checks: Sequence[Check], table: pa.Table, keys: Collection[str] = ()) -> Broken:
    """The rows of a table that do not pass, with all the checks that each does not pass.

    Parameters
    ----------
    checks
        What must be true of each row.
    table
        Its columns are what a check may ask for; an expression that asks for others finds nulls there.
    keys
        Columns of it that say whose a row is: a schema of pandera is given them only where it names them.

    Raises
    ------
    CheckError
        A check raised, or did not say of each row whether it passes.
    """
    found: dict[int, dict[str, list[str]]] = {}
    for check in checks if table.num_rows else ():
        said = _said(check, table, keys)
        for row, reason in zip(said.rows, said.reasons, strict=True):
            found.setdefault(row, {}).setdefault(check.name, []).append(reason)
    rows = sorted(found)
    names = [CHECK_NAMES.join(found[row]) for row in rows]
    return Broken(np.array(rows, dtype=np.int64), names, [_text(found[row]) for row in rows])


def refuse_unknown(checks: Sequence[Check], schema: pa.Schema) -> None:
    """Raise where an expression cannot be asked of rows with these columns.

    Raises
    ------
    WorkloadError
        It names the check.
    """
    keys = [pa.field(name, pa.string()) for name in ("item_key", "key_kind")]
    empty = pa.schema([*keys, *schema]).empty_table()
    for check in checks:
        if is_expression(check.given):
            try:
                truth(check.given, _with_files(check.given, empty))
            except pa.ArrowException as error:
                text = str(error).partition("\n")[0]
                raise WorkloadError(
                    f"checks: {check.name!r} ({check.given}) cannot be asked of the columns that schema= declares "
                    f"({', '.join(schema.names)}): {text}"
                ) from error


def _with_files(expression: Any, empty: pa.Table) -> pa.Table:
    """The table with the columns of files that an expression asks for: no schema declares them, and results have them."""
    for name in _absent(expression, empty):
        type_ = _OF_FILES.get(name.rpartition("_")[2])
        if type_ is not None:
            empty = empty.append_column(name, pa.array([], type_))
    return empty


def _said(check: Check, table: pa.Table, keys: Collection[str]) -> Said:
    if is_expression(check.given):
        good = _by_expression(check, table)
        return _with_values(np.flatnonzero(~good), check, table)
    if is_pandera(check.given):
        from dcompute.checks.panderas import broken_by

        return broken_by(check, table, keys)
    try:
        answer = check.given(table)
    except (Exception, SystemExit) as error:
        raise raised(check, error) from error
    rows = np.flatnonzero(~_by_answer(check, answer, table.num_rows)).tolist()
    return Said(rows, ["not true of this row"] * len(rows))


def raised(check: Check, error: BaseException) -> CheckError:
    """The error of a check that raised one."""
    return CheckError(f"the check {check.name!r} raised {type(error).__name__}: {error}", check=check.name)


def holds(check: Check, answer: Any) -> bool:
    """What a function said of one value; None is no pass.

    Raises
    ------
    CheckError
        It said neither true nor false.
    """
    if answer is None:
        return False
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    raise CheckError(f"the check {check.name!r} gave a {type(answer).__name__}: it says True or False of each input", check=check.name)


# ---------------------------------------------------------------------------------------------------------------- expressions


def truth(expression: Any, table: pa.Table) -> npt.NDArray[np.bool_]:
    """For each row, whether an expression is true of it; null is not true."""
    source = acero.Declaration("table_source", acero.TableSourceNodeOptions(table))
    project = acero.Declaration("project", acero.ProjectNodeOptions([expression], ["good"]))
    found = acero.Declaration.from_sequence([source, project]).to_table(use_threads=False).column("good")
    if pa.types.is_null(found.type):
        return np.zeros(table.num_rows, dtype=bool)
    if not pa.types.is_boolean(found.type):
        raise pa.ArrowTypeError(f"it gives {found.type}, and must give true or false")
    good: npt.NDArray[np.bool_] = found.fill_null(False).to_numpy()
    return good


def _by_expression(check: Check, table: pa.Table) -> npt.NDArray[np.bool_]:
    try:
        table = _with_unknown(check.given, table)
        return truth(check.given, table)
    except pa.ArrowException as error:
        empty = [field.name for field in table.schema if pa.types.is_null(field.type)]
        if not empty:
            raise raised(check, error) from error
        return _of_empty(check, table, empty, error)


def _with_unknown(expression: Any, table: pa.Table) -> pa.Table:
    """The table with nulls in the columns that an expression asks for and that are not there."""
    while True:
        try:
            truth(expression, table.slice(0, 0))
        except pa.ArrowException as error:
            name = _UNKNOWN.search(str(error))
            if name is None or name[1] in table.column_names:
                return table
            table = table.append_column(name[1], pa.nulls(table.num_rows))
        else:
            return table


def _of_empty(check: Check, table: pa.Table, empty: Sequence[str], error: pa.ArrowException) -> npt.NDArray[np.bool_]:
    """Of columns without a value nobody knows the type: it is one that the expression takes."""
    for type_ in _TYPES:
        typed = table
        for name in empty:
            typed = typed.set_column(typed.column_names.index(name), name, pa.nulls(table.num_rows, type_))
        try:
            return truth(check.given, typed)
        except pa.ArrowException:
            continue
    if set(_WORD.findall(str(check.given))).intersection(empty):
        # such as a field of a structure that is never there
        return np.zeros(table.num_rows, dtype=bool)
    raise raised(check, error) from error


def _with_values(rows: npt.NDArray[np.int64], check: Check, table: pa.Table) -> Said:
    rule = "" if check.name == str(check.given) else f"{check.given} is "
    words = list(dict.fromkeys(_WORD.findall(str(check.given))))
    present = [name for name in words if name in table.column_names]
    missing = [name for name in _absent(check.given, table) if name not in present]
    values = [[_shown(name, value) for value in table.column(name).take(pa.array(rows))] for name in present]
    absent = [f"{name} is missing" for name in missing]
    told = [", ".join([*(f"{name} = {value}" for name, value in zip(present, each, strict=True)), *absent])
            for each in (zip(*values, strict=True) if values else [()] * len(rows))]  # fmt: skip
    return Said(rows.tolist(), [f"{rule}not true{f' of {text}' if text else ''}" for text in told])


def _absent(expression: Any, table: pa.Table) -> list[str]:
    return [name for name in _with_unknown(expression, table.slice(0, 0)).column_names if name not in table.column_names]


def _shown(name: str, value: Any) -> str:
    try:
        return shown_value(name, value.as_py()) if value.is_valid else "null"
    except (ValueError, OverflowError, ArithmeticError):  # a time that Python has no form for
        return shown_value(name, str(value))


# ---------------------------------------------------------------------------------------------------------------- functions


def _by_answer(check: Check, answer: Any, count: int) -> npt.NDArray[np.bool_]:
    answer = _in_order(check, answer, count)
    try:
        found = answer if isinstance(answer, pa.Array | pa.ChunkedArray) else pa.array(answer)
    except Exception:  # noqa: BLE001  whatever an object of any class raises when it is taken for an array
        found = None
    if found is None or not (pa.types.is_boolean(found.type) or pa.types.is_null(found.type)):
        what = f"a {type(answer).__name__}" if found is None else f"values of type {found.type}"
        raise CheckError(f"the check {check.name!r} gave {what}: it says true or false of each row, as an array", check=check.name)
    if len(found) != count:
        raise CheckError(
            f"the check {check.name!r} gave {len(found):,} values for {count:,} rows: it says true or false of each row", check=check.name
        )
    if pa.types.is_null(found.type):
        return np.zeros(count, dtype=bool)
    good: npt.NDArray[np.bool_] = np.asarray(pc.fill_null(found, False))
    return good


def _in_order(check: Check, answer: Any, count: int) -> Any:
    """An answer in the order of the rows: a series of pandas says by its index of which it is."""
    if type(answer).__module__.partition(".")[0] != "pandas" or type(answer).__name__ != "Series" or len(answer) != count:
        return answer
    index, places = np.asarray(answer.index), np.arange(count)
    if np.array_equal(index, places):
        return answer
    if index.dtype.kind in "iu" and np.array_equal(np.sort(index), places):
        return answer.sort_index()
    raise CheckError(
        f"the check {check.name!r} gave a Series whose index does not say of which rows it is: keep that of table.to_pandas(), or, where "
        "it is in the order of the rows, end it with .reset_index(drop=True)",
        check=check.name,
    )


def _text(reasons: dict[str, list[str]]) -> str:
    text = CHECK_NAMES.join(f"{name}: {reason}" for name, several in reasons.items() for reason in several)
    return text if len(text) <= _REASON else f"{text[:_REASON]}..."
