"""Problems and models that several runs share are made once in a process: for the check, for every flow, for the runs."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax

_MOST_BYTES = 2**28  # of all objects that are kept; a larger object is made each time

_lock = threading.Lock()
_kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()  # objects and their bytes, the last used last


def built_once(key: Hashable, make: Callable[[], Any]) -> Any:
    """The object that `make` returns, or returned before for this key. The least recently used objects are forgotten first.

    **Arguments:**

    - `key`: everything that decides what `make` returns.
    - `make`: makes an object with arrays that nobody changes.
    """
    # The same key makes other arrays in single precision.
    key = (key, jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key][0]
    # Made without the lock, which would make other threads wait. At worst two of them make the same object.
    made = make()
    size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(made))
    with _lock:
        if size <= _MOST_BYTES:
            _kept[key] = (made, size)
        while sum(bytes_ for _, bytes_ in _kept.values()) > _MOST_BYTES:
            _kept.popitem(last=False)
    return made
