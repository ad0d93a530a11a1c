"""Problems and models that runs share, made once in a process: for the check, for every flow, for the run itself."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax

_MOST_BYTES = 2**28  # of all that is kept; what has more by itself is made each time

_lock = threading.Lock()
_kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()  # with their bytes, the last used last


def built_once(key: Hashable, make: Callable[[], Any]) -> Any:
    """What `make` gives, or gave before for this key. Those that were not used for longest are forgotten first.

    **Arguments:** `key`: all that decides what `make` gives; `make`: makes an object whose arrays nobody changes.
    """
    key = (key, jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key][0]
    made = make()
    size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(made))
    with _lock:
        if size <= _MOST_BYTES:
            _kept[key] = (made, size)
        while sum(bytes_ for _, bytes_ in _kept.values()) > _MOST_BYTES:
            _kept.popitem(last=False)
    return made
