"""Python's search for cyclic garbage, which looks at every object of the process and can take half a second."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def pause_collection() -> Callable[[], None]:
    """Put the search off, which the making of many small objects starts; returns what lets it go on, if it did."""
    was_on = gc.isenabled()
    gc.disable()
    return gc.enable if was_on else lambda: None


@contextmanager
def no_collection() -> Iterator[None]:
    """`pause_collection` for a block or a function."""
    resume = pause_collection()
    try:
        yield
    finally:
        resume()
