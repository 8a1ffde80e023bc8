"""Storage that fails for a moment: requests to it are repeated, with growing pauses, and a driver bears with it for a minute."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from dcompute.errors import StoreError

if TYPE_CHECKING:
    from dcompute.dataset.lease import Clock

T = TypeVar("T")

#: A storage that fails for longer than this (seconds) ends a run.
STORE_SECONDS = 60.0
#: Seconds until it is asked again.
_AGAIN_AFTER = 1.0
#: What an HTTP answer says that may be otherwise in a moment; 409 is S3's answer while another conditional write of the name goes on.
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
#: Packages below the storage clients; what they raise themselves is about connections.
_NETWORK = frozenset({"aiohttp", "requests", "urllib3"})
_NETWORK_ERRORS = frozenset({"HTTPClientError", "ConnectionError", "ServiceRequestError", "ServiceResponseError", "IncompleteReadError"})


def insist(act: Callable[[], T], *, sleep: Callable[[float], None] = time.sleep) -> T:
    """What ``act`` returns; it is tried again as the settings ``dcompute.store`` say, while its errors may pass."""
    from dcompute.config import settings

    limits = settings().store
    for number in range(limits.retries):
        try:
            return act()
        except Exception as error:
            if not may_pass(error):
                raise
            # spread, so that workers which were throttled together do not come back together
            sleep(limits.delay * 2**number * random.uniform(0.5, 1.5))  # noqa: S311
    return act()


class Patience:
    """What a driver has with a storage that fails: its errors count from the first to the next answer.

    Parameters
    ----------
    told
        Called with what is wrong, each time, and with nothing when the storage answers again; it may raise to end the waiting.
    clock
        Tells the time and sleeps.
    """

    def __init__(self, told: Callable[[str], None] = lambda _: None, *, clock: Clock = time) -> None:
        self._told = told
        self._clock = clock
        self._since: float | None = None

    def bear(self, error: StoreError) -> None:
        """Raise an error of the storage where it has failed for too long; else it may be asked again."""
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > STORE_SECONDS:
            raise error
        self._told(f"the storage fails, trying again: {error}")

    def answered(self) -> None:
        """The storage works."""
        if self._since is not None:
            self._since = None
            self._told("")

    def insist(self, act: Callable[[], T]) -> T:
        """What ``act`` returns, once it raises no ``StoreError``; it is called again every second."""
        while True:
            try:
                result = act()
            except StoreError as error:
                self.bear(error)
                self._clock.sleep(_AGAIN_AFTER)
            else:
                self.answered()
                return result


def may_pass(error: BaseException) -> bool:
    """Whether a storage client's error may be otherwise in a moment: throttled, overloaded, or not reached."""
    if isinstance(error, FileExistsError | FileNotFoundError | PermissionError):
        return False
    chain = list(_chain(error))
    statuses = [status for one in chain if (status := http_status(one)) is not None]
    if statuses:
        return statuses[0] in _PASSING
    return any(_is_network(one) for one in chain)


def http_status(error: BaseException) -> int | None:
    """The HTTP status in an error of botocore, Azure's SDK or gcsfs; None where there is none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return _whole(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    return _whole(getattr(error, "status_code", None)) or _whole(getattr(error, "code", None))


def cause_status(error: BaseException) -> int | None:
    """The HTTP status of an error, or of the one that it came from."""
    return next((status for one in _chain(error) if (status := http_status(one)) is not None), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdigit()) else None


def _is_network(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    kinds = type(error).__mro__
    return any(kind.__module__.partition(".")[0] in _NETWORK or kind.__name__ in _NETWORK_ERRORS for kind in kinds)
