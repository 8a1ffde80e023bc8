"""What to do it to: files, tables, grids and iterables as keyed items, streamed, never a list of all.

Inputs that can be counted, and read again, say how many they are; all others are streams.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from dcompute.errors import InputError, KeyDerivationError, ValueTooLargeError
from dcompute.garbage import uncollected
from dcompute.inputs.listing import Files
from dcompute.inputs.sources import Bunch, Frame, Grid, Partitions, Source, Stream, Values
from dcompute.keys import derive, derive_many, digest_of, fingerprint
from dcompute.records import Item, ItemKey

__all__ = ["Files", "Grid", "Inputs", "files", "grid"]

#: Bytes that a value may take when it is sent.
LARGEST_VALUE = 1_000_000

_CHUNK = 4096
#: How many bytes a pickled value takes beside its content, about.
_FRAME_BYTES = 5


def files(pattern: str | PurePath | Iterable[str | PurePath], *, storage_options: Mapping[str, Any] | None = None) -> Files:
    """The files that match, as inputs: sorted by path, each with a fingerprint, so that a file that changed is done again.

    Parameters
    ----------
    pattern
        A path or fsspec URL with ``*``, ``?``, ``[...]`` and ``**``, or several of them.
    storage_options
        For the file system of a URL. They are used for listing only: the workload opens its files itself.

    Examples
    --------
    >>> import dcompute as dc
    >>> dc.files("raw/2024/*.csv")
    files('raw/2024/*.csv')
    """
    return Files(pattern, storage_options)


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
        self._key = _key_function(key, source)
        self._known_types: set[type] = set()

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

    def describe(self) -> str:
        """What they are, for a person."""
        return self._source.describe()

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
                self._refuse_lazy(bunch.values)
                self._derive_and_tell(roots, positions)
                raise
            yield np.fromiter(map(hash, plain), dtype=np.int64, count=len(plain)).view(np.uint64)

    # -- from values to items ------------------------------------------------------------------------------------------------------

    def _items(self, bunch: Bunch, positions: Sequence[int]) -> list[Item]:
        values = bunch.values
        self._refuse_lazy(values)
        roots = self._roots(bunch, positions)
        try:
            keys, prints = derive_many(roots)
        except KeyDerivationError:
            keys, prints = self._derive_and_tell(roots, positions)
        if bunch.stamps is not None:
            prints = list(bunch.stamps)
        elif roots is not values:
            prints = [fingerprint(value) for value in values]
        sizes = _sizes(values, positions)
        if max(sizes, default=0) > LARGEST_VALUE:
            place = next(place for place, size in enumerate(sizes) if size > LARGEST_VALUE)
            raise _too_large(sizes[place], positions[place], keys[place])
        make = Item._make
        with uncollected():
            return [make(parts) for parts in zip(keys, values, prints, positions, sizes, _no(len(values)), strict=True)]

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
        for place, value in enumerate(bunch.values):
            try:
                found.append(self._key(value))
            except Exception as error:
                raise InputError(f"key= raised {type(error).__name__}: {error} for input {positions[place]:,} (from 0)") from error
        return found

    def _derive_and_tell(self, roots: Sequence[Any], positions: Sequence[int]) -> tuple[list[ItemKey], list[str]]:
        """Find out whose key it is that cannot be derived."""
        for place, root in enumerate(roots):
            try:
                derive(root)
            except KeyDerivationError as error:
                raise KeyDerivationError(f"input {positions[place]:,} (from 0): {error.message}") from None
        return derive_many(roots)

    def _refuse_lazy(self, values: Sequence[Any]) -> None:
        kinds = set(map(type, values))
        if kinds <= self._known_types:
            return
        for value in values:
            if type(value) not in self._known_types:
                _refuse_lazy(value)
                self._known_types.add(type(value))


def _no(count: int) -> list[bool]:
    return [False] * count


def _plain(root: Any) -> Any:
    """What has the same hash as every value with the same key."""
    if type(root) is int or (type(root) is str and root.isascii()):
        return root
    key = derive(root)
    if key.kind == "int":
        return int(key.text, 0)
    return key.text if key.kind == "str" else key


def _key_function(key: Any, source: Source) -> Callable[[Any], Any] | None:
    if key is None or (callable(key) and not isinstance(key, str)):
        return key
    if not isinstance(key, str):
        raise InputError(f"key={key!r}: say a function of the value, or the name of a column")
    if source.names is not None and key not in source.names:
        if isinstance(source, Frame) and source.key_names == (key,):
            return None
        raise InputError(f"key={key!r}: there is no such column; there are {', '.join(source.names)}")

    def member(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise InputError(f"key={key!r} names a member of each input, and this one is a {type(value).__name__}: give a function")
        return value[key]

    return member


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
        raise InputError(
            f"input {position:,} (from 0), a {type(value).__name__}, cannot be sent to workers: {type(error).__name__}: {error}. "
            "Pass what it is opened or made from"
        ) from error


def _too_large(size: int, position: int, key: ItemKey) -> ValueTooLargeError:
    text = key.text if len(key.text) <= 80 else f"{key.text[:77]}..."
    return ValueTooLargeError(
        f"input {position:,} (from 0) with key {text!r} has {size / 1e6:,.1f} MB, and at most {LARGEST_VALUE / 1e6:g} MB go through the "
        "scheduler: pass a path and read it in the workload"
    )


# ----------------------------------------------------------------------------------------------------------------------- sources


def _source(inputs: Any) -> Source:
    if isinstance(inputs, Files):
        inputs.check()
        return inputs
    if isinstance(inputs, Grid):
        return inputs
    _refuse_mistakes(inputs)
    table = _table(inputs)
    if table is not None:
        return table
    _refuse_lazy(inputs)
    if isinstance(inputs, (list, tuple)) and inputs:
        _refuse_lazy(inputs[0])
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


def _refuse_lazy(value: Any) -> None:
    """Refuse what stands for a value that is not there yet."""
    kind = type(value)
    modules = {base.__module__.partition(".")[0] for base in kind.__mro__}
    if any(base.__name__ == "Future" for base in kind.__mro__):
        line = "client.gather(inputs)" if "distributed" in modules else "[future.result() for future in inputs]"
        raise InputError(f"inputs has a future, whose value lies on a worker: pass {line}, or make its work a part of the workload")
    if "dask" in modules and hasattr(value, "__dask_graph__"):
        raise InputError(
            f"inputs has a {kind.__module__}.{kind.__qualname__}, which is not computed yet: pass dask.compute(*inputs) for a list of "
            "them, inputs.compute() for one, or make its work a part of the workload"
        )
