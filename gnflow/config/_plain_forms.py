"""The forms of plain values: numbers, text, names, arrays and tables."""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._core import ConfigError, nearest_name
from ._plain import require_plain, shown

_NAMES_OF_TYPES = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "a table",
}


class Form(abc.ABC):
    """What a value may look like. `check` enforces it, and `build` makes the object.

    **Attributes:**

    - `expected`: a description for messages.
    """

    expected: str

    @abc.abstractmethod
    def accepts(self, value: Any) -> bool:
        """Whether `value` has the type of this form. Its content may still be wrong."""

    def check(self, value: Any, path: str) -> Any:
        """`value` as the specification keeps it. Equal meanings become equal values, which TOML can hold.

        **Raises:** `ConfigError` that names `path`, the value and what was expected.
        """
        if not self.accepts(value):
            kind = _NAMES_OF_TYPES.get(type(value), f"a {type(value).__name__}")
            raise ConfigError(f"{path} = {shown(value)} is {kind}; expected {self.expected}.{self.hint(value)}")
        return value

    def hint(self, value: Any) -> str:
        """What to write instead of a `value` of another type, as a sentence after a space; empty if that is not known."""
        return ""

    def build(self, value: Any, path: str) -> Any:
        """The object that a checked `value` stands for."""
        return value


@dataclasses.dataclass(frozen=True)
class PlainForm(Form):
    """A value of one of TOML's own types. `convert` turns it into the type that the code expects."""

    types: tuple[type, ...]
    expected: str
    convert: Callable[[Any], Any]

    def accepts(self, value: Any) -> bool:
        """Whether the value has one of the types. A boolean is not an integer, as in TOML."""
        return isinstance(value, self.types) and (bool in self.types or not isinstance(value, bool))

    def check(self, value: Any, path: str) -> Any:
        """The converted value. A number 1 becomes 1.0, so that both give the same content hash.

        **Raises:** `ConfigError`, also for numbers that are not finite.
        """
        require_plain(value, path)  # a script may pass values that no file can hold
        if isinstance(super().check(value, path), float) and not math.isfinite(value):
            raise ConfigError(f"{path} = {value!r}; expected a finite number.")
        return self.convert(value)

    def hint(self, value: Any) -> str:
        """For a number without a fraction in the place of an integer: how to write it as an integer."""
        if int not in self.types or float in self.types or not isinstance(value, float) or not value.is_integer():
            return ""
        return f" Write {int(value)}." if abs(value) < 2**63 else " It is larger than any integer that 64 bits hold."


BOOLEAN = PlainForm((bool,), "true or false", bool)
INTEGER = PlainForm((int,), "an integer", int)
NUMBER = PlainForm((int, float), "a number", float)
TEXT = PlainForm((str,), "a string", str)


@dataclasses.dataclass(frozen=True)
class _PathForm(PlainForm):
    """Text that the code gets as a path."""

    def build(self, value: Any, path: str) -> Path:
        """The path."""
        return Path(value)


@dataclasses.dataclass(frozen=True)
class _AnyForm(Form):
    """Any value that a file can hold, for a parameter of the user's that says nothing of its type."""

    expected: str = "a value"

    def accepts(self, value: Any) -> bool:
        """True for every value."""
        return True


PATH = _PathForm((str,), "a path", str)
ANYTHING = _AnyForm()


@dataclasses.dataclass(frozen=True)
class NameForm(Form):
    """One of the names in `known`. `build` returns the object of that name."""

    known: Mapping[Any, Any]
    what: str

    @property
    def expected(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The names."""
        return f"one of {', '.join(repr(name) for name in self.known)}"

    def accepts(self, value: Any) -> bool:
        """Whether the value is a string."""
        return isinstance(value, str)

    def check(self, value: Any, path: str) -> Any:
        """The name. **Raises:** `ConfigError` for an unknown one, with the nearest valid name."""
        name = super().check(value, path)
        if name not in self.known:
            raise ConfigError(f"{path}: unknown {self.what} {shown(name)}; {nearest_name(name[:80], self.known)}")
        return name

    def build(self, value: Any, path: str) -> Any:
        """The object of this name."""
        return self.known[value]


@dataclasses.dataclass(frozen=True)
class ListForm(Form):
    """An array of values of one form, which is built as `container` (list or tuple)."""

    item: Form
    container: type

    @property
    def expected(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A description for messages."""
        return f"an array, each entry {self.item.expected}"

    def accepts(self, value: Any) -> bool:
        """Whether the value is an array."""
        return isinstance(value, list | tuple)

    def check(self, value: Any, path: str) -> list[Any]:
        """A list of the checked entries."""
        entries = super().check(value, path)
        return [self.item.check(entry, f"{path}[{index}]") for index, entry in enumerate(entries)]

    def build(self, value: Any, path: str) -> Any:
        """The built entries."""
        return self.container(self.item.build(entry, f"{path}[{index}]") for index, entry in enumerate(value))


@dataclasses.dataclass(frozen=True)
class TableForm(Form):
    """A table of values of one form, with any names."""

    item: Form

    @property
    def expected(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A description for messages."""
        return f"a table, each entry {self.item.expected}"

    def accepts(self, value: Any) -> bool:
        """Whether the value is a table."""
        return isinstance(value, Mapping)

    def check(self, value: Any, path: str) -> dict[str, Any]:
        """The checked entries."""
        entries = super().check(value, path)
        return {name: self.item.check(entry, f"{path}.{name}") for name, entry in entries.items()}

    def build(self, value: Any, path: str) -> dict[str, Any]:
        """The built entries."""
        return {name: self.item.build(entry, f"{path}.{name}") for name, entry in value.items()}


@dataclasses.dataclass(frozen=True)
class UnionForm(Form):
    """Any of several forms. The first one that accepts the type of the value is used."""

    forms: tuple[Form, ...]

    @property
    def expected(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A description for messages."""
        return ", or ".join(form.expected for form in self.forms)

    def accepts(self, value: Any) -> bool:
        """Whether one of the forms accepts the value."""
        return any(form.accepts(value) for form in self.forms)

    def _chosen(self, value: Any) -> Form:
        return next(form for form in self.forms if form.accepts(value))

    def check(self, value: Any, path: str) -> Any:
        """The value, checked by the chosen form."""
        return self._chosen(super().check(value, path)).check(value, path)

    def build(self, value: Any, path: str) -> Any:
        """The object, built by the chosen form."""
        return self._chosen(value).build(value, path)


@dataclasses.dataclass(frozen=True)
class NoForm(Form):
    """A parameter that only a script can give, such as a function or an object of the user."""

    expected: str = "nothing: this option can only be given in a script"

    def accepts(self, value: Any) -> bool:
        """False for every value."""
        return False
