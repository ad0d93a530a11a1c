"""Read and write TOML. Messages name the file and the place."""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._core import ConfigError, as_path
from ._plain import require_plain

_LARGEST_FILE = 2**24  # bytes
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The table in a TOML file, with or without a byte-order mark.

    **Raises:** `ConfigError` if the file is missing, larger than 16 MiB, not UTF-8 text, not TOML (with line and column), or
    contains values that no specification can have (`require_plain`).
    """
    file = as_path(path, "the file", ConfigError)
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise ConfigError(
                f"{file} is larger than {_LARGEST_FILE} bytes, which no configuration is; name another file."
            )
        table = parse_toml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except NotTomlError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}.") from error
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {str(file)!r} (looked in {Path.cwd()}).") from error
    except OSError as error:
        raise ConfigError(f"cannot read {str(file)!r}: {error.strerror}.") from error
    try:
        require_plain(table)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return table


class NotTomlError(Exception):
    """Text that is not TOML. The message says why and where."""


def parse_toml(text: str) -> dict[str, Any]:
    """The table in a text. **Raises:** `NotTomlError` if it is not TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise NotTomlError("its arrays or tables are nested too deep") from error
    except ValueError as error:  # also for integers with thousands of digits, which Python refuses
        raise NotTomlError(str(error).rstrip(".")) from error


def to_toml(table: Mapping[str, Any]) -> str:
    """The text of a TOML document from which `tomllib.loads` reads `table` back.

    **Arguments:**

    - `table`: a table of strings, booleans, integers, floats, lists and tables.
    """
    return "\n".join(_section(table, ())).strip() + "\n"


def _section(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    # Tables of tables become [headers] down to the second level, which is how a person writes flows, variants and axes.
    headed = {key: value for key, value in table.items() if isinstance(value, Mapping) and _gets_header(path, value)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if key not in headed]
    if path and (lines or not headed):
        lines = ["", f"[{'.'.join(_key(part) for part in path)}]", *lines]
    for key, value in headed.items():
        lines += _section(value, (*path, key))
    return lines


def _gets_header(path: tuple[str, ...], value: Mapping[str, Any]) -> bool:
    return not path or (path[0] in ("flows", "variants", "axes", "sizes") and len(path) == 1)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    # TOML's basic strings are those of JSON, except for one control character that JSON does not escape.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise ConfigError(f"{value!r} (a {type(value).__name__}) cannot be written to TOML.")
