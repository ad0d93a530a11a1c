"""Look things up by their names in configurations, and suggest the nearest valid name for a mistyped one."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ._errors import ConfigError, GnflowError
from ._text import shown

_Thing = TypeVar("_Thing")


def nearest_name(name: str, valid: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest valid name, if one is near, and all valid names.

    **Arguments:**

    - `name`: the unknown name.
    - `valid`: the valid names.
    """
    known = sorted(valid)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known names: {', '.join(known)}."


def look_up(name: object, known: Mapping[str, _Thing], what: str, error: type[GnflowError] = ConfigError) -> _Thing:
    """The entry of `known` called `name`.

    **Arguments:**

    - `name`: a name; anything that is not text counts as unknown.
    - `known`: the entries, by name.
    - `what`: the kind of thing, for the message.
    - `error`: the class of the error to raise.

    **Raises:** `error` for an unknown name, with the nearest valid one.
    """
    if not isinstance(name, str) or name not in known:
        raise error(f"unknown {what} {shown(name)}; {nearest_name(name if isinstance(name, str) else '', known)}")
    return known[name]
