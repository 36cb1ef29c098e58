"""Waiting for a condition, with what was seen last in the error."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(what: str, probe: Callable[[], T], timeout: float = 120, interval: float = 0.3) -> T:
    """Calls probe() until it returns something true; a LookupError or AssertionError counts as "not yet"."""
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            last = probe()
            if last:
                return last
        except (AssertionError, LookupError) as error:
            last = repr(error)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {timeout:.0f} s; last seen: {last}")
        time.sleep(interval)
