"""Forms: what a value in a specification may look like, taken from the annotations of the code that receives it.

The names and types that a TOML file may use are those of the constructors themselves, so the two cannot drift apart.
"""

import abc
import contextlib
import dataclasses
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from .._core import ConfigError, GnflowError, nearest_name, on_one_line
from ..flows import AbstractFlow, flow_kinds
from ..geometry import AbstractOutputMetric, output_metrics
from ..geometry.damping import AbstractDamping, damping_kinds
from ..geometry.directions import (
    AbstractDirectionSolver,
    AbstractPreconditioner,
    direction_solver_kinds,
    preconditioner_kinds,
)
from ..losses import AbstractLoss, loss_kinds
from ..optimisers import AbstractOptimiser, optimiser_kinds
from ._plain import require_plain, shown

_LONGEST_REASON = 300  # characters of a message from another library
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


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a constructor or function, by name, taken from its signature.

    **Arguments:**

    - `factory`: the constructor or function.
    - `supplied`: parameters that gnflow fills in if the specification leaves them out.
    - `hidden`: parameters that only gnflow gives.
    - `refined`: forms by name, for parameters whose annotation does not say everything.
    """

    factory: Callable[..., Any]
    supplied: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ("key",)
    refined: Mapping[str, Form] = dataclasses.field(default_factory=dict)

    def forms(self) -> dict[str, Form]:
        """The form of every option."""
        is_class = inspect.isclass(self.factory)
        hints = typing.get_type_hints(self.factory.__init__ if is_class else self.factory)
        # In the signature a field with a converter has the type that the converter takes, which may be Any. Then the
        # annotation of the field itself tells what it is.
        fields = typing.get_type_hints(self.factory) if is_class else {}
        return {
            name: self.refined.get(name)
            or form_of(name, hints[name] if hints.get(name, Any) is not Any else fields.get(name, Any))
            for name, parameter in inspect.signature(self.factory).parameters.items()
            if parameter.kind in _BY_NAME and name not in self.hidden
        }

    def check(self, options: Mapping[str, Any], path: str, what: str, also: tuple[str, ...] = ()) -> dict[str, Any]:
        """The options as the specification keeps them.

        **Arguments:**

        - `options`: the options as they were given.
        - `path`: where they stand in the specification, for messages.
        - `what`: what the options belong to, for messages.
        - `also`: other names that are valid at `path`, for messages.

        **Raises:** `ConfigError` for an option that does not exist (with the nearest one), that has the wrong type or contains
        a wrong name, or that is missing and has no default.
        """
        forms = self.forms()
        checked = {}
        for key, option in options.items():
            if key not in forms:
                raise ConfigError(
                    f"{path}: unknown option {shown(key)} of {what}; {nearest_name(str(key)[:80], (*forms, *also))}"
                )
            checked[key] = forms[key].check(option, f"{path}.{key}")
        parameters = inspect.signature(self.factory).parameters
        for name, form in forms.items():
            if parameters[name].default is inspect.Parameter.empty and name not in (*checked, *self.supplied):
                raise ConfigError(f"{path}: {what} needs the option {name!r}, {form.expected}.")
        return checked

    def build(self, options: Mapping[str, Any], path: str) -> dict[str, Any]:
        """The objects that checked options stand for, by parameter name."""
        forms = self.forms()
        return {key: forms[key].build(option, f"{path}.{key}") for key, option in options.items()}


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclasses.dataclass(frozen=True)
class ComponentForm(Form):
    """A table `{ kind = "...", options }`, or the kind alone. `kinds` maps each kind to its constructor."""

    kinds: Mapping[str, Callable[..., Any]]
    what: str
    supplied: tuple[str, ...] = ()

    @property
    def expected(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A description for messages."""
        return f"a {self.what}: a table with kind = {', '.join(repr(kind) for kind in self.kinds)}"

    def accepts(self, value: Any) -> bool:
        """Whether the value is a table or a string."""
        return isinstance(value, Mapping | str)

    def check(self, value: Any, path: str) -> dict[str, Any]:
        """The table, with every option checked against the signature of the constructor."""
        table = super().check(value, path)
        table = {"kind": table} if isinstance(table, str) else table
        if "kind" not in table:
            raise ConfigError(f"{path} has no 'kind'; expected {self.expected}.")
        kind = NameForm(self.kinds, f"kind of {self.what}").check(table["kind"], f"{path}.kind")
        options = {key: option for key, option in table.items() if key != "kind"}
        return {"kind": kind, **self._options(kind).check(options, path, f"{self.what} {kind!r}", also=("kind",))}

    def build(self, value: Any, path: str, **given: Any) -> Any:
        """The object.

        **Arguments:**

        - `value`: the checked table.
        - `path`: where it stands in the specification, for messages.
        - `given`: arguments for parameters that the table leaves out. Those that the constructor does not have are ignored.

        **Raises:** `ConfigError` that names `path` if the constructor refuses the options.
        """
        factory = self.kinds[value["kind"]]
        keywords = {name: thing for name, thing in given.items() if self.asks_for(value, name)}
        options = {key: option for key, option in value.items() if key != "kind"}
        built = self._options(value["kind"]).build(options, path)
        with at(path):
            return factory(**built, **keywords)

    def asks_for(self, value: Mapping[str, Any], name: str) -> bool:
        """Whether the constructor has a parameter `name` that a checked `value` leaves out."""
        return name not in value and name in inspect.signature(self.kinds[value["kind"]]).parameters

    def identity(self, value: Mapping[str, Any]) -> Hashable:
        """Everything that decides the object of a checked `value`, except the arguments `given` to `build`."""
        return self.kinds[value["kind"]], json.dumps(value, sort_keys=True)

    def _options(self, kind: str) -> Options:
        return Options(self.kinds[kind], self.supplied)


@contextlib.contextmanager
def at(path: str) -> Iterator[None]:
    """Name the entry `path` of the specification in errors that are raised within.

    **Raises:** `ConfigError` in the place of any `Exception`.
    """
    try:
        yield
    except GnflowError as error:
        raise ConfigError(f"{path}: {error}") from error
    except MemoryError as error:
        raise ConfigError(f"{path} asks for more memory than there is; make it smaller.") from error
    except Exception as error:  # from NumPy, JAX or a constructor that does not check: the entry is still the cause
        raise ConfigError(
            f"{path} cannot be made of these options ({type(error).__name__}: {shown_error(error)})."
        ) from error


def shown_error(error: BaseException) -> str:
    """The message of an error from another library, shortened to a part of one line."""
    text = on_one_line(error, None).rstrip(".")
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


# The abstract classes whose objects a specification can name, wherever an annotation asks for one.
_BY_CLASS: dict[type, Form] = {
    AbstractDamping: ComponentForm(damping_kinds, "damping rule"),
    AbstractDirectionSolver: ComponentForm(direction_solver_kinds, "direction solver"),
    AbstractFlow: ComponentForm(flow_kinds, "flow"),
    AbstractLoss: ComponentForm(loss_kinds, "loss"),
    AbstractOptimiser: ComponentForm(optimiser_kinds, "optimiser"),
    AbstractPreconditioner: ComponentForm(preconditioner_kinds, "preconditioner"),
    AbstractOutputMetric: NameForm(output_metrics, "output metric"),
}


def form_of(name: str, annotation: Any) -> Form:
    """The form of values for a parameter called `name` with this annotation."""
    if annotation in _BY_CLASS:
        return _BY_CLASS[annotation]
    plain = {bool: BOOLEAN, int: INTEGER, float: NUMBER, str: TEXT}
    if annotation in plain:
        return plain[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return NameForm({choice: choice for choice in arguments}, name)
    if origin in (list, tuple, Sequence):
        return ListForm(form_of(name, arguments[0]), list if origin is list else tuple)
    if origin in (Union, types.UnionType):
        forms = [form_of(name, argument) for argument in arguments if argument not in (types.NoneType, Path)]
        forms = [form for form in forms if not isinstance(form, NoForm)]
        # Known names come before plain strings, which would accept every name.
        forms.sort(key=lambda form: not isinstance(form, ComponentForm | NameForm))
        return forms[0] if len(forms) == 1 else UnionForm(tuple(forms)) if forms else NoForm()
    return NoForm()
