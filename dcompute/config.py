"""Settings: what can be tuned, in Dask's configuration under ``dcompute``, checked before it is used.

The defaults, with what each means, are in ``dcompute.yaml`` beside this file. This module costs pydantic and, at the first
:func:`settings`, Dask: import it where it is used.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dcompute.errors import SettingsError

#: The sections whose names are the user's.
_FREE = frozenset({("storage",), ("clusters",), ("limits",), ("worker", "labels")})
DEFAULTS_FILE = Path(__file__).with_name("dcompute.yaml")


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    from dask.utils import parse_timedelta

    try:
        # Dask knows "m" and "minutes" but not "min", which a workload's timeout takes.
        return float(parse_timedelta(re.sub(r"(?i)mins?$", "minutes", value.strip())))
    except (KeyError, ValueError, IndexError):
        raise ValueError('must be a time such as "30 s", "10 min" or "2 h"') from None


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    from dask.utils import parse_bytes

    try:
        return parse_bytes(value)
    except ValueError:
        raise ValueError('must be a size such as "64 KiB" or "128 MB"') from None


def _off(value: Any) -> Any:
    # An unquoted `off` in YAML is the boolean false.
    return "off" if value is False else value


def _profiles(value: Any) -> Any:
    # what stands here may be a password: no message repeats it
    if not isinstance(value, Mapping) or not all(isinstance(options, Mapping) for options in value.values()):
        raise ValueError("must be a mapping of URL prefixes, such as s3://lab/, to options for fsspec")
    if not all(isinstance(prefix, str) and "://" in prefix for prefix in value):
        raise ValueError("has a name that is no URL prefix: write it with its protocol, such as s3://lab/")
    return {prefix: {str(name): option for name, option in options.items()} for prefix, options in value.items()}


def _clusters(value: Any) -> Any:
    # what a kind of cluster needs is checked when one is used; what stands here may be a secret
    if not isinstance(value, Mapping) or not all(isinstance(profile, Mapping) for profile in value.values()):
        raise ValueError("must be a mapping of names to profiles, each with a kind")
    return {str(name): {str(setting): given for setting, given in profile.items()} for name, profile in value.items()}


def _labels(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping of names to texts, such as {room: b12}")  # noqa: TRY004  pydantic's way
    for name, text in value.items():
        if isinstance(text, bool) or not isinstance(text, str | int):  # YAML makes them of yes, 1.10 and nothing
            raise ValueError(f"has {name}: {text!r}, which is no text: put it in quotes")  # noqa: TRY004
    return {str(name): str(text) for name, text in value.items()}


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False, strict=True)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Profiles = Annotated[dict[str, dict[str, Any]], BeforeValidator(_profiles), Field(repr=False)]
Clusters = Annotated[dict[str, dict[str, Any]], BeforeValidator(_clusters), Field(repr=False)]


Labels = Annotated[dict[str, str], BeforeValidator(_labels)]
Limits = dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)] | str]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, alias_generator=lambda name: name.replace("_", "-"))


class Batch(_Section):
    """How large a batch grows, where ``batch_size="auto"``."""

    min: Seconds
    max: Seconds
    long: Seconds
    items: Count
    bytes: Bytes

    @model_validator(mode="after")
    def _ordered(self) -> Batch:
        if not 0 < self.min <= self.max <= self.long:
            raise ValueError(f"needs 0 < min <= max <= long, and these are {self.min:g}, {self.max:g} and {self.long:g} s")
        return self


class Window(_Section):
    """What is in flight, and when a run pauses."""

    ahead: Seconds
    waiting: Count
    alike_share: Annotated[float, Field(gt=0, le=1)]
    alike_of: Count
    twins: bool
    setup_failures: Count


class Driver(_Section):
    """How often the driver commits, leaves checkpoints, shows that it lives and looks for requests."""

    commit_interval: Seconds
    checkpoint: Count
    heartbeat: Annotated[Seconds, Field(gt=0)]
    requests: Annotated[Seconds, Field(gt=0)]


class Local(_Section):
    """The cluster that is started where no Client exists."""

    workers: Count | None
    threads: Count | None


class Worker(_Section):
    """What holds on each worker."""

    idle: Seconds
    setup_timeout: Annotated[Seconds, Field(gt=0)]
    scratch: str | None
    threads: Literal["set", "keep"]
    affinity: Annotated[Literal["auto", "off"], BeforeValidator(_off)]
    devices: Literal["auto"] | tuple[str, ...]
    hide_devices: bool
    device_memory: Bytes
    device_wait: Seconds
    claims: str
    labels: Labels
    walltime: Seconds | None


class Logs(_Section):
    """How much is kept of what items print, beside the beginning and the end that their rows have."""

    item: Bytes
    batch: Bytes
    live: bool


class Store(_Section):
    """How storage is spoken to."""

    retries: Annotated[int, Field(ge=0, strict=True)]
    delay: Seconds


class Settings(_Section):
    """All settings; an attribute has the name of the setting with ``_`` for ``-``. Times are seconds, sizes bytes."""

    progress: Literal["auto", "bar", "log", "html", "quiet"]
    metrics: Annotated[Literal["full", "basic", "off"], BeforeValidator(_off)]
    compact: Annotated[Literal["auto", "off"], BeforeValidator(_off)]
    batch: Batch
    window: Window
    driver: Driver
    local: Local
    worker: Worker
    logs: Logs
    store: Store
    limits: Limits
    storage: Profiles
    clusters: Clusters


_known: tuple[dict[str, Any], Settings] | None = None
_defaults: dict[str, Any] | None = None


def settings() -> Settings:
    """The settings as they are now.

    Cheap to ask often: they are checked again only after Dask's configuration changed under ``dcompute``.

    Raises
    ------
    SettingsError
        A name or value is wrong; the message says where it was set and which right name is nearest. Or a file cannot be read.
    """
    global _known
    dask = _dask()
    given = dask.config.config.get("dcompute", {})
    known = _known
    if known is not None and known[0] == given:
        return known[1]
    found = _checked(given)
    _register()
    _known = (_copied(dask.config.config["dcompute"]), found)
    return found


def _dask() -> Any:
    try:
        import dask
    except ValueError as error:  # Dask reads its files when it is imported first
        raise SettingsError(f"Dask's settings, and with them those of dcompute, cannot be read. Correct the file: {error}") from error
    return dask


def storage_options(url: str) -> dict[str, Any]:
    """Options for fsspec that the settings hold for a URL: those of the longest prefix that covers it, which may be secrets."""
    profiles = settings().storage
    prefixes = [prefix for prefix in profiles if _covers(prefix, url)]
    return dict(profiles[max(prefixes, key=len)]) if prefixes else {}


def _covers(prefix: str, url: str) -> bool:
    # s3://lab covers s3://lab/flux, and not s3://laboratory
    return url == prefix.rstrip("/") or url.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


def defaults() -> dict[str, Any]:
    """The values of ``dcompute.yaml``, by section, as written there."""
    global _defaults
    if _defaults is None:
        import yaml

        _defaults = yaml.safe_load(DEFAULTS_FILE.read_text(encoding="utf-8"))["dcompute"]
    copy: dict[str, Any] = _copied(_defaults)
    return copy


def _register() -> None:
    """Let ``dask.config.get`` and ``dask config list`` know the defaults too."""
    import dask

    if not any("dcompute" in known for known in dask.config.defaults):
        dask.config.update_defaults({"dcompute": defaults()})
    # The end of a `with dask.config.set(...)` takes away all that was added since its start.
    dask.config.update(dask.config.config, {"dcompute": defaults()}, priority="old")


def _copied(tree: Any) -> Any:
    return {key: _copied(value) for key, value in tree.items()} if isinstance(tree, Mapping) else tree


def _checked(given: Any) -> Settings:
    merged = _merged(defaults(), given, ())
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsError("\n".join(_complaint(detail) for detail in error.errors())) from error


def _merged(base: Any, given: Any, path: tuple[str, ...]) -> Any:
    if given is None:  # an empty section in a YAML file
        return base
    if not isinstance(given, Mapping):
        raise SettingsError(f"{_dotted(path)} is {given!r}, but it is a section with names below it. {_place(path, given)}")
    out = dict(base)
    for raw, value in given.items():
        name = str(raw).replace("_", "-")
        # the names below those are the user's, URLs some of them: nothing about their spelling is ours
        inside = isinstance(base.get(name), Mapping) and (value is None or (*path, name) not in _FREE)
        out[name] = _merged(base[name], value, (*path, name)) if inside else value
    return out


def _complaint(detail: Any) -> str:
    path = tuple(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{_dotted(path)} is not a setting.{_nearest_name(path)} {_place(path, detail['input'])}"
    if isinstance(detail["input"], Mapping) or len(path) == 0 or path[:1] in _FREE:
        return f"{_dotted(path)} {_reason(detail)}. {_place(path, None)}"
    return f"{_dotted(path)} is {detail['input']!r}, but {_reason(detail)}.{_nearest_value(detail)} {_place(path, detail['input'])}"


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(("dcompute", *path))


def _reason(detail: Any) -> str:
    """What is wrong, to stand after a name or after `but`."""
    if detail["type"] == "literal_error":
        return f"must be {detail['ctx']['expected']}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return str(detail["msg"]).replace("Input should", "must")


def _nearest_name(path: tuple[str, ...]) -> str:
    names = list(_leaves(defaults(), ()))
    wanted = ".".join(path)
    # A right name alone or under the wrong section is close to no full name; its last word is a full name's.
    lasts = {name.rpartition(".")[2]: name for name in names}
    close = [lasts[path[-1]]] if path[-1] in lasts else difflib.get_close_matches(wanted, names, n=1, cutoff=0.75)
    close = close or [lasts[last] for last in difflib.get_close_matches(path[-1], lasts, n=1, cutoff=0.75)]
    close = close or difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    return f" The nearest right name is dcompute.{close[0]}." if close else f" These are: {', '.join(names)}."


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for name, value in tree.items():
        yield ".".join((*path, name))
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))


def _nearest_value(detail: Any) -> str:
    if detail["type"] != "literal_error":
        return ""
    allowed = [word.strip("'") for word in detail["ctx"]["expected"].replace(" or ", ", ").split(", ")]
    close = difflib.get_close_matches(str(detail["input"]), allowed, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _place(path: tuple[str, ...], value: Any) -> str:
    """Where a setting was set: the last of Dask's sources that holds it with this value."""
    holders = [source for source, tree in _sources() if (held := _held(tree, path))[0] and (value is None or held[1] == value)]
    return f"Set in {holders[-1]}." if holders else "Set in this program (dask.config.set)."


def _held(tree: Any, path: tuple[str, ...]) -> tuple[bool, Any]:
    for name in path:
        spelled = {str(key).replace("_", "-"): key for key in tree} if isinstance(tree, Mapping) else {}
        if name not in spelled:
            return False, None
        tree = tree[spelled[name]]
    return True, tree


def _sources() -> Iterator[tuple[str, Any]]:
    """Everything Dask reads settings from, weakest first, each cut to what it says of dcompute."""
    import os

    import dask

    for path, tree in dask.config.collect_yaml(dask.config.paths, return_paths=True):
        yield str(path), tree.get("dcompute", {}) if isinstance(tree, Mapping) else {}
    for name in sorted(os.environ):
        if name.startswith("DASK_DCOMPUTE"):
            tree = dask.config.collect_env({name: os.environ[name]})
            yield f"the environment variable {name}", tree.get("dcompute", {})
