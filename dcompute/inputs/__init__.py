"""What to do it to: files, tables, grids and iterables as keyed items, streamed, never a list of all.

Inputs that can be counted, and read again, say how many they are; all others are streams.
"""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dcompute.errors import InputError, KeyDerivationError, ValueTooLargeError
from dcompute.garbage import uncollected
from dcompute.inputs.instead import instead
from dcompute.inputs.lazy import Finder, is_lazy
from dcompute.inputs.listing import Files
from dcompute.inputs.prints import Prints
from dcompute.inputs.sources import Bunch, Frame, Grid, Partitions, Ready, Source, Stream, Values, check_index
from dcompute.keys import derive, derive_many, digest_of, fingerprint, uncomparable
from dcompute.records import Item, ItemKey

__all__ = ["Files", "Grid", "Inputs", "files", "grid"]

log = logging.getLogger("dcompute.inputs")

#: Bytes that a value may take when it is sent.
LARGEST_VALUE = 1_000_000

_CHUNK = 4096
#: How many bytes a pickled value takes beside its content, about.
_FRAME_BYTES = 5


def files(
    pattern: str | PurePath | Iterable[str | PurePath],
    *,
    storage_options: Mapping[str, Any] | None = None,
    fingerprint: Literal["stat", "content"] = "stat",
    settle: str | float | timedelta | None = None,
) -> Files:
    """The files that match, as inputs: sorted by path, each with a fingerprint, so that a file that changed is done again.

    Parameters
    ----------
    pattern
        A path or fsspec URL with ``*``, ``?``, ``[...]`` and ``**``, or several of them.
    storage_options
        For the file system of a URL. They are used for listing and fingerprints only: the workload opens its files itself.
    fingerprint
        ``"stat"``: a file changed when its storage says so (checksum, or time and size). ``"content"``: then it is read, here, and did not
        change where its content is the same; new files are read too, once.
    settle
        Leave files for the next run that changed less than this before they were listed, such as ``"5 min"``, and local ones that
        changed between that and the plan, which is made thousands at a time. One that changes later is executed as it is then, and done
        again by the next run. The storage's clock is compared with this machine's: what is between the two is added to, or taken from,
        the time.

    Examples
    --------
    >>> import dcompute as dc
    >>> dc.files("raw/2024/*.csv")
    files('raw/2024/*.csv')
    """
    return Files(pattern, storage_options, fingerprint=fingerprint, settle=settle)


def grid(**axes: Iterable[Any]) -> Grid:
    """All combinations of the axes' values, as inputs: the workload gets each as keyword arguments.

    Examples
    --------
    >>> import dcompute as dc
    >>> dc.grid(alpha=[0.1, 1.0], seed=range(3))
    <a grid of 2 alpha x 3 seed = 6>
    """
    return Grid(axes)


class Inputs:
    """Keyed items of whatever a user gave.

    Parameters
    ----------
    source
        The values.
    key
        A function of a value, or a column's name, that gives what the key derives from; None: the value itself.
    """

    def __init__(self, source: Source, key: Callable[[Any], Any] | str | None = None) -> None:
        self._source = source
        if key is not None and isinstance(source, Ready) and not source.takes_key:
            raise InputError(f"key={key!r}: {source.describe()} are known by what the dataset calls them: leave it out")
        self._key = _key_function(key, source)
        self._lazy = Finder()
        self._is_told = False  # that changes of some inputs cannot be seen

    @classmethod
    def of(cls, inputs: Any, key: Callable[[Any], Any] | str | None = None) -> Inputs:
        """The items of an iterable, of :func:`files`, :func:`grid`, or a pandas or Dask dataframe.

        Raises
        ------
        InputError
            What cannot be inputs, with the line that makes inputs of it.
        """
        return inputs if isinstance(inputs, Inputs) and key is None else cls(_source(inputs), key)

    @property
    def count(self) -> int | None:
        """How many there are; None where they can be read only once."""
        return self._source.count

    @property
    def keywords(self) -> bool:
        """Whether values are mappings of keyword arguments."""
        return self._source.names is not None

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the keyword arguments; None where a value is one positional argument."""
        return self._source.names

    @property
    def distinct(self) -> bool:
        """Whether it is known without looking that no key comes twice."""
        return self._key is None and self._source.distinct

    @property
    def prints(self) -> Prints | None:
        """What knows more of their fingerprints than the items do; None where there is nothing more to know."""
        return self._source.prints if isinstance(self._source, Files) else None

    @property
    def sources(self) -> tuple[tuple[str, int], ...]:
        """Datasets that they are read from, each with the number of the last entry that counts."""
        return self._source.sources if isinstance(self._source, Ready) else ()

    @property
    def requests(self) -> int:
        """Requests to an object store, made so far to read datasets that they are."""
        return self._source.requests if isinstance(self._source, Ready) else 0

    def left(self, size: int = _CHUNK) -> Iterator[list[Item]]:
        """Items that are there and left for the next run."""
        for bunch in self._source.left_bunches(size) if isinstance(self._source, Files) else ():
            yield self._items(bunch, range(len(bunch.values)))

    def describe(self) -> str:
        """What they are, for a person."""
        return self._source.describe()

    def why_none(self) -> str:
        """Where there are none: what to look at."""
        return self._source.why_none()

    def __iter__(self) -> Iterator[Item]:
        """The items in their order; of a stream each as it comes.

        Raises
        ------
        InputError
            A value that has no key or cannot be sent.
        """
        if isinstance(self._source, Stream):
            return self._one_by_one(self._source.values)
        return (item for chunk in self.chunks() for item in chunk)

    def chunks(self, size: int = _CHUNK) -> Iterator[list[Item]]:
        """The items in their order, up to ``size`` at once; a stream is waited for until so many have come."""
        position = 0
        for bunch in self._source.bunches(size):
            yield self._items(bunch, range(position, position + len(bunch.values)))
            position += len(bunch.values)

    def pick(self, positions: Sequence[int]) -> list[Item]:
        """The items at these positions, of inputs that can be counted."""
        return self._items(self._source.pick(positions), positions)

    def hashes(self) -> Iterator[npt.NDArray[np.uint64]]:
        """A hash of each key, good in this process only; cheaper than the items, of inputs that can be counted."""
        position = 0
        for bunch in self._source.bunches(_CHUNK):
            positions = range(position, position + len(bunch.values))
            roots = self._roots(bunch, positions)
            position += len(bunch.values)
            try:
                plain = roots if set(map(type, roots)) <= {str, int} else [_plain(root) for root in roots]
            except KeyDerivationError:
                self._lazy.refuse(bunch.values)
                self._derive_and_tell(roots, positions)
                raise
            yield np.fromiter(map(hash, plain), dtype=np.int64, count=len(plain)).view(np.uint64)

    # -- from values to items ------------------------------------------------------------------------------------------------------

    def _items(self, bunch: Bunch, positions: Sequence[int]) -> list[Item]:
        values = bunch.values
        self._lazy.refuse(values)
        roots = self._roots(bunch, positions)
        keys, prints = self._keys(bunch, roots, positions)
        sizes = list(bunch.sizes) if bunch.sizes is not None else _sizes(values, positions)
        if max(sizes, default=0) > LARGEST_VALUE:
            place = next(place for place, size in enumerate(sizes) if size > LARGEST_VALUE)
            raise _too_large(sizes[place], positions[place], keys[place])
        if bunch.stamps is not None:
            prints = list(bunch.stamps)
        elif roots is not values:
            prints = [fingerprint(value) for value in values]
            if not (self._is_told or all(prints)):
                place = prints.index("")
                self._tell_unseen(values[place], positions[place], keys[place])
        make, count = Item._make, len(values)
        with uncollected():
            return [make(parts) for parts in zip(keys, values, prints, positions, sizes, [False] * count, [()] * count, strict=True)]

    def _keys(self, bunch: Bunch, roots: Sequence[Any], positions: Sequence[int]) -> tuple[list[ItemKey], list[str]]:
        if bunch.named is not None and self._key is None:
            return list(bunch.named), []
        try:
            return derive_many(roots)
        except KeyDerivationError:
            return self._derive_and_tell(roots, positions)

    def _tell_unseen(self, value: Any, position: int, key: ItemKey) -> None:
        self._is_told = True
        log.warning(
            "changes of these inputs cannot be seen: input %s (from 0) with key %r holds a %s, which cannot be compared from run to run; "
            "once finished, such an item stays as it is. Pass plain data (text, numbers, dates, lists, dicts, arrays, dataframes) or a "
            "path and build the object in the workload, or declare a version= and change it with the inputs",
            f"{position:,}",
            _short(key.text),
            uncomparable(value),
            extra={"action": "inputs_unseen"},
        )

    def _one_by_one(self, values: Iterator[Any]) -> Iterator[Item]:
        own_key = self._key is not None
        for position, value in enumerate(values):
            kind = type(value)
            if own_key or not (kind is int or (kind is str and value.isascii())):
                yield self._items(Bunch((value,)), (position,))[0]
                continue
            key = derive(value)
            size = len(key.text) + _FRAME_BYTES
            if size > LARGEST_VALUE:
                raise _too_large(size, position, key)
            yield Item(key, value, digest_of(key), position, size)

    def _roots(self, bunch: Bunch, positions: Sequence[int]) -> Sequence[Any]:
        """What the keys derive from."""
        if self._key is None:
            return bunch.values if bunch.keys is None else bunch.keys
        found = []
        for place, value in enumerate(bunch.values if bunch.shown is None else bunch.shown):
            try:
                found.append(self._key(value))
            except InputError as error:
                raise InputError(f"input {positions[place]:,} (from 0): {error.message}") from None
            except Exception as error:
                raise InputError(f"key= raised {type(error).__name__}: {error} for input {positions[place]:,} (from 0)") from error
        return found

    def _derive_and_tell(self, roots: Sequence[Any], positions: Sequence[int]) -> tuple[list[ItemKey], list[str]]:
        """Find out whose key it is that cannot be derived."""
        for place, root in enumerate(roots):
            try:
                derive(root)
            except KeyDerivationError as error:
                what = f"input {positions[place]:,} (from 0)"
                if self._key is not None:
                    raise KeyDerivationError(f"{what}: key= gives {_short(repr(root))}, and has to give a text or a number") from None
                _size(root, positions[place])  # a key would not help where it cannot be sent
                if (found := instead(root)) is not None:
                    raise KeyDerivationError(f"{what} is or holds a {found.kind}, which makes no input. {found.text}") from None
                raise KeyDerivationError(f"{what}: {error.message}") from None
        return derive_many(roots)


def _plain(root: Any) -> Any:
    """What has the same hash as every value with the same key."""
    if type(root) is int:
        return root
    if isinstance(root, str):
        return str.__str__(root)
    key = derive(root)
    return int(key.text, 0) if key.kind == "int" else key


def _key_function(key: Any, source: Source) -> Callable[[Any], Any] | None:
    levels = source.levels if isinstance(source, (Frame, Partitions)) else ()
    if key is None:
        check_index(levels)
    if key is None or (callable(key) and not isinstance(key, str)):
        return key
    if not isinstance(key, str):
        raise InputError(f"key={key!r}: say a function of the value, or the name of a column")
    if key in levels and _is_index(key, levels, source.names or ()):
        return None
    if isinstance(source, Files):
        raise InputError(f"key={key!r}: files have no columns, and are known by their paths: leave it out, or give a function of the path")
    if source.names is not None and key not in source.names:
        raise InputError(f"key={key!r}: there is no such column; there are {', '.join(source.names)}")

    def member(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise InputError(f"key={key!r} names a member of each input, and this one is of type {type(value).__name__}: give a function")
        if key not in value:
            raise InputError(f"key={key!r} names a member of each input, and this one has {', '.join(map(str, value)) or 'none'}")
        return value[key]

    return member


def _is_index(key: str, levels: Sequence[Any], columns: Sequence[str]) -> bool:
    """Whether a name that an index has means all of the index."""
    if key in columns:
        raise InputError(
            f"key={key!r}: the table has a column and an index of this name, which may differ: rename one, as with .rename_axis()"
        )
    if len(levels) > 1:
        raise InputError(
            f"key={key!r}: this is one of the {len(levels)} levels of the index, which give the keys together: leave key= out, or make it "
            f"a column with .reset_index({key!r})"
        )
    return True


# ------------------------------------------------------------------------------------------------------------------------- sizes


def _sizes(values: Sequence[Any], positions: Sequence[int]) -> list[int]:
    """About how many bytes each value takes when it is sent."""
    kinds = set(map(type, values))
    if kinds == {str} and all(map(str.isascii, values)):
        return [length + _FRAME_BYTES for length in map(len, values)]
    if kinds == {int}:
        return [(length >> 3) + _FRAME_BYTES for length in map(int.bit_length, values)]
    return [_size(value, position) for value, position in zip(values, positions, strict=True)]


def _size(value: Any, position: int) -> int:
    if isinstance(value, (bytes, bytearray, str)):
        return len(value) + _FRAME_BYTES
    held = getattr(value, "nbytes", None)
    if isinstance(held, int) and held > LARGEST_VALUE:
        return held
    try:
        return len(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
    except Exception:  # noqa: BLE001  whatever a value's __reduce__ raises; the second try is by value
        return _size_by_value(value, position)


def _size_by_value(value: Any, position: int) -> int:
    import cloudpickle

    try:
        return len(cloudpickle.dumps(value))
    except Exception as error:
        found = instead(value, is_refused=True)
        raise InputError(
            f"input {position:,} (from 0), a {type(value).__name__}, cannot be sent to workers: {type(error).__name__}: {error}. "
            f"{found.text if found is not None else ''}"
        ) from error


def _too_large(size: int, position: int, key: ItemKey) -> ValueTooLargeError:
    return ValueTooLargeError(
        f"input {position:,} (from 0) with key {_short(key.text)!r} has {size / 1e6:,.1f} MB, and at most {LARGEST_VALUE / 1e6:g} MB go "
        "through the scheduler: pass a path and read it in the workload"
    )


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


# ----------------------------------------------------------------------------------------------------------------------- sources


def _source(inputs: Any) -> Source:
    if isinstance(inputs, Files):
        inputs.check()
        return inputs
    if isinstance(inputs, (Grid, Ready)):
        return inputs
    _refuse_mistakes(inputs)
    table = _table(inputs)
    if table is not None:
        return table
    first = inputs[:1] if isinstance(inputs, (list, tuple)) else ()
    Finder().refuse([inputs] if is_lazy(inputs) else first)
    if isinstance(inputs, (list, tuple, range)) or _is_array(inputs):
        return Values(inputs)
    # a set has no numbered members, a sequence of somebody's own may have slow ones
    if isinstance(inputs, (AbstractSet, Sequence)) or _is_series(inputs):
        return Values(list(inputs))
    try:
        return Stream(iter(inputs))
    except TypeError:
        raise InputError(f"inputs={inputs!r} cannot be iterated: pass a list, dc.files(...), dc.grid(...) or a dataframe") from None


def _refuse_mistakes(inputs: Any) -> None:
    if isinstance(inputs, (str, bytes, PurePath)):
        raise InputError(
            f"inputs={inputs!r} is one value: pass [{inputs!r}] for one input, or dc.files({inputs!r}) for the files that match"
        )
    if isinstance(inputs, Mapping):
        raise InputError("inputs is a mapping: pass its .items(), its list of keys, or dc.grid(**mapping) for all combinations")
    if isinstance(inputs, type) or (callable(inputs) and not hasattr(inputs, "__iter__")):
        raise InputError(f"inputs={inputs!r} is to be called, not iterated: pass what it returns")


def _table(inputs: Any) -> Source | None:
    kind = type(inputs)
    modules = {base.__module__.partition(".")[0] for base in kind.__mro__}
    names = {base.__name__ for base in kind.__mro__}
    if "DataFrame" in names and "pandas" in modules:
        return Frame(inputs)
    if "DataFrame" in names and "dask" in modules:
        return Partitions(inputs)
    if modules & {"polars", "pyarrow"} and hasattr(inputs, "to_pandas") and hasattr(inputs, "columns"):
        raise InputError(f"inputs is a {kind.__module__}.{kind.__qualname__}: pass inputs.to_pandas()")
    return None


def _is_array(inputs: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(inputs, numpy.ndarray) and inputs.ndim > 0


def _is_series(inputs: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(inputs, (pandas.Series, pandas.Index))
