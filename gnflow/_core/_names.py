"""Look things up by the names configurations give them; suggest the nearest valid name for a mistyped one."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ._errors import ConfigError, GnflowError
from ._text import shown

_Thing = TypeVar("_Thing")


def nearest_name(name: str, valid: Iterable[str]) -> str:
    """Text to end an 'unknown name' error with: the nearest valid name if one is near, and all of them.

    **Arguments:** `name`: what was given; `valid`: the names that would have been accepted.
    """
    known = sorted(valid)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known names: {', '.join(known)}."


def look_up(name: object, known: Mapping[str, _Thing], what: str, error: type[GnflowError] = ConfigError) -> _Thing:
    """The entry of `known` called `name`.

    **Arguments:** `what`: the kind of thing, for the message. **Raises:** `error` for an unknown name, with the nearest
    valid one.
    """
    if not isinstance(name, str) or name not in known:
        raise error(f"unknown {what} {shown(name)}; {nearest_name(name if isinstance(name, str) else '', known)}")
    return known[name]
