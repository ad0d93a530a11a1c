"""Paths as users write them."""

import os
from pathlib import Path
from typing import Any

from ._errors import GnflowError
from ._text import shown

_LONGEST_NAME = 255  # bytes; common file systems allow no more
_LONGEST_PATH = 4096


def as_path(value: Any, what: str, error: type[GnflowError]) -> Path:
    """`value` as a path, with a leading ~ or ~user expanded to the home folder, as shells and xarray do.

    **Arguments:**

    - `value`: text or a path.
    - `what`: its name in messages.
    - `error`: the class of the error to raise.

    **Raises:** `error` for a value that is neither text nor a path, is empty, has a NUL character or a name too long for file
    systems, and for the home folder of an unknown user.
    """
    if not isinstance(value, str | os.PathLike):
        raise error(f"{what} = {shown(value)} is a {type(value).__name__}; expected a path, as text or pathlib.Path.")
    text = os.fspath(value)
    if not isinstance(text, str):
        text = os.fsdecode(text)
    if not text or "\0" in text:
        raise error(f"{what} = {text!r}; expected a path without NUL characters, of at least one character.")
    longest = max((len(os.fsencode(name)) for name in Path(text).parts), default=0)
    if longest > _LONGEST_NAME or len(os.fsencode(text)) > _LONGEST_PATH:
        raise error(
            f"{what} = {text[:40] + '...'!r} has a name of {longest} bytes in a path of {len(os.fsencode(text))}; file systems "
            f"take {_LONGEST_NAME} for a name and {_LONGEST_PATH} for a path. Choose a shorter one."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as cause:
        raise error(f"{what} = {text!r}: {cause}; write the folder out.") from cause
