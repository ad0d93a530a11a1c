"""Forms: what a value in a specification may look like, taken from the annotations of the code that receives it.

The names and types that a TOML file may use are those of the constructors themselves, so the two cannot drift apart.
"""

import contextlib
import dataclasses
import inspect
import json
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
from ..optimisers import AbstractOptimiser, AdaptiveGamma, gamma_kinds, optimiser_kinds
from ._own_parts import (
    an,
    canonical,
    constructor_of,
    function_with_options,
    imported_part,
    is_reference,
    loss_of_value,
    part_named,
    require_function,
    require_made,
    running,
)
from ._plain import shown
from ._plain_forms import (
    ANYTHING,
    BOOLEAN as BOOLEAN,
    INTEGER as INTEGER,
    NUMBER as NUMBER,
    PATH,
    TEXT as TEXT,
    Form as Form,
    ListForm as ListForm,
    NameForm as NameForm,
    NoForm,
    TableForm as TableForm,
    UnionForm as UnionForm,
)

_LONGEST_REASON = 300  # characters of a message from another library


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a constructor or function, by name, taken from its signature.

    **Arguments:**

    - `factory`: the constructor or function.
    - `supplied`: parameters that gnflow fills in if the specification leaves them out.
    - `hidden`: parameters that only gnflow gives.
    - `refined`: forms by name, for parameters whose annotation does not say everything.
    - `is_own`: whether the factory is the user's. Its parameters need no annotations.
    """

    factory: Callable[..., Any]
    supplied: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ("key",)
    refined: Mapping[str, Form] = dataclasses.field(default_factory=dict)
    is_own: bool = False

    def forms(self) -> dict[str, Form]:
        """The form of every option."""
        is_class = inspect.isclass(self.factory)
        hints = typing.get_type_hints(self.factory.__init__ if is_class else self.factory)
        # In the signature a field with a converter has the type that the converter takes, which may be Any. Then the
        # annotation of the field itself tells what it is.
        fields = typing.get_type_hints(self.factory) if is_class else {}
        return {
            name: self.refined.get(name)
            or self._form(name, hints[name] if hints.get(name, Any) is not Any else fields.get(name, Any), parameter)
            for name, parameter in inspect.signature(self.factory).parameters.items()
            if parameter.kind in _BY_NAME and name not in self.hidden
        }

    def _form(self, name: str, annotation: Any, parameter: inspect.Parameter) -> Form:
        if annotation is Any and self.is_own:
            return {bool: BOOLEAN, float: NUMBER, str: TEXT}.get(type(parameter.default), ANYTHING)
        return PATH if annotation is Path else form_of(name, annotation)

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
class OwnForm(Form):
    """A table `{ kind = "module:Name", options }` for a part of the user's own, or the text "module:Name" alone.

    The options are the fields of the class, or the parameters of the function. They are checked if the module is imported or
    may be (`importing_from`), and anyhow before the part is made.

    **Arguments:**

    - `base`: the class that the part must have.
    - `what`: what it is, for messages.
    - `supplied`: parameters that gnflow fills in if the specification leaves them out.
    - `reserved`: names that mean something else where the part is named, so that no parameter may have them.
    - `of_function`: what makes the part of a function; None for functions that return the part.
    """

    base: type
    what: str
    supplied: tuple[str, ...] = ()
    reserved: tuple[str, ...] = ()
    of_function: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None

    @property
    def expected(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A description for messages."""
        return f"{an(self.what)} of your own, 'module:Name'"

    def accepts(self, value: Any) -> bool:
        """Whether the value is text with a colon, or a table whose kind is."""
        return is_reference(value.get("kind") if isinstance(value, Mapping) else value)

    def check(self, value: Any, path: str) -> dict[str, Any]:
        """The table, with the options as they were written."""
        table = {"kind": value} if isinstance(value, str) else dict(value)
        part = part_named(table["kind"], f"{path}.kind")
        if part is not None:
            self._checked(self._factory(table["kind"], part, path), table, path)
        return canonical(table)

    def build(self, value: Any, path: str, **given: Any) -> Any:
        """The object. The arguments and errors are those of `ComponentForm.build`."""
        reference = value["kind"]
        factory = self._factory(reference, imported_part(reference, f"{path}.kind"), path)
        options = self._checked(factory, value, path)
        built = self._options(factory).build(options, path)
        keywords = {name: thing for name, thing in given.items() if self.asks_for(value, name, path)}
        with at(path), running(reference):
            made = factory(**built, **keywords)
        return require_made(made, reference, self.base, path)

    def asks_for(self, value: Mapping[str, Any], name: str, path: str) -> bool:
        """Whether the part has a parameter `name` that `value` leaves out."""
        factory = self._factory(value["kind"], imported_part(value["kind"], f"{path}.kind"), path)
        return name not in value and name in inspect.signature(factory).parameters

    def _factory(self, reference: str, part: Any, path: str) -> Callable[..., Any]:
        path = f"{path}.kind"
        is_function = not inspect.isclass(part) and callable(part) and not isinstance(part, self.base)
        with _readable(reference, path):
            if self.of_function is not None and is_function:
                factory = self.of_function(part)
            else:
                factory = constructor_of(reference, part, self.base, path)
            names = self._options(factory).forms()
        taken = next((name for name in names if name in (*self.reserved, "kind")), None)
        if taken is not None:
            raise ConfigError(
                f"{path}: {reference!r} has a parameter {taken!r}, and {taken} is an option of its own there; rename the "
                "parameter."
            )
        return factory

    def _checked(self, factory: Callable[..., Any], table: Mapping[str, Any], path: str) -> dict[str, Any]:
        options = {key: option for key, option in table.items() if key != "kind"}
        return self._options(factory).check(options, path, f"{self.what} {table['kind']!r}", also=("kind",))

    def _options(self, factory: Callable[..., Any]) -> Options:
        return Options(factory, self.supplied, is_own=True)


@dataclasses.dataclass(frozen=True)
class FunctionForm(Form):
    """A function of the user's own, "module:name", or a table `{ kind = "module:name", options }`.

    The options are its parameters after the first `number`, which are its arguments.
    """

    number: int
    expected: str = "a function of your own, 'module:name'"

    def accepts(self, value: Any) -> bool:
        """Whether the value is text with a colon, or a table whose kind is."""
        return is_reference(value.get("kind") if isinstance(value, Mapping) else value)

    def check(self, value: Any, path: str) -> Any:
        """The text or the table, with the options as they were written."""
        at_kind = f"{path}.kind" if isinstance(value, Mapping) else path
        part = part_named(value["kind"] if isinstance(value, Mapping) else value, at_kind)
        if part is not None:
            self._make(part, value, path)
        return canonical(value)

    def build(self, value: Any, path: str) -> Any:
        """The function, with its options."""
        at_kind = f"{path}.kind" if isinstance(value, Mapping) else path
        return self._make(imported_part(value["kind"] if isinstance(value, Mapping) else value, at_kind), value, path)

    def _make(self, part: Any, value: Any, path: str) -> Any:
        if isinstance(value, str):
            return require_function(value, part, path)
        reference = value["kind"]
        function = require_function(reference, part, f"{path}.kind")
        with _readable(reference, f"{path}.kind"):
            options = Options(function_with_options(function, self.number), is_own=True)
        given = {key: option for key, option in value.items() if key != "kind"}
        checked = options.check(given, path, f"the function {reference!r}", also=("kind",))
        return options.factory(**options.build(checked, path))


@contextlib.contextmanager
def _readable(reference: str, path: str) -> Iterator[None]:
    """Turn errors of Python while it reads a signature into a `ConfigError`."""
    try:
        yield
    except GnflowError:
        raise
    except (TypeError, ValueError, NameError, AttributeError) as error:
        raise ConfigError(
            f"{path}: the parameters of {reference!r} cannot be read ({type(error).__name__}: {shown_error(error)})."
        ) from error


@dataclasses.dataclass(frozen=True)
class ComponentForm(Form):
    """A table `{ kind = "...", options }`, or the kind alone. `kinds` maps each kind to its constructor.

    A kind with a colon is a part of the user's own (`OwnForm`, which takes the other fields).
    """

    kinds: Mapping[str, Callable[..., Any]]
    what: str
    base: type
    supplied: tuple[str, ...] = ()
    reserved: tuple[str, ...] = ()
    of_function: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None

    @property
    def expected(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A description for messages."""
        return f"{an(self.what)}: a table with kind = {', '.join(repr(kind) for kind in self.kinds)}"

    def accepts(self, value: Any) -> bool:
        """Whether the value is a table or a string."""
        return isinstance(value, Mapping | str)

    def check(self, value: Any, path: str) -> dict[str, Any]:
        """The table, with every option checked against the signature of the constructor."""
        table = super().check(value, path)
        table = {"kind": table} if isinstance(table, str) else table
        if "kind" not in table:
            raise ConfigError(f"{path} has no 'kind'; expected {self.expected}.")
        if self._own.accepts(table):
            return self._own.check(table, path)
        kind = self._known_kind(table["kind"], f"{path}.kind")
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
        if self._own.accepts(value):
            return self._own.build(value, path, **given)
        factory = self.kinds[value["kind"]]
        keywords = {name: thing for name, thing in given.items() if self.asks_for(value, name, path)}
        options = {key: option for key, option in value.items() if key != "kind"}
        built = self._options(value["kind"]).build(options, path)
        with at(path):
            return factory(**built, **keywords)

    def asks_for(self, value: Mapping[str, Any], name: str, path: str) -> bool:
        """Whether the constructor has a parameter `name` that a checked `value` leaves out."""
        if self._own.accepts(value):
            return self._own.asks_for(value, name, path)
        return name not in value and name in inspect.signature(self.kinds[value["kind"]]).parameters

    def identity(self, value: Mapping[str, Any]) -> Hashable:
        """Everything that decides the object of a checked `value`, except the arguments `given` to `build`.

        A module of the user's is imported once in a process, so that its parts are decided by their names.
        """
        return self.kinds.get(value["kind"]), json.dumps(value, sort_keys=True)

    def _known_kind(self, kind: Any, path: str) -> str:
        try:
            return NameForm(self.kinds, f"kind of {self.what}").check(kind, path)
        except ConfigError as error:
            raise ConfigError(f"{error} {an(self.what).capitalize()} of your own is 'module:Name'.") from error

    def _options(self, kind: str) -> Options:
        return Options(self.kinds[kind], self.supplied)

    @property
    def _own(self) -> OwnForm:
        return OwnForm(self.base, self.what, self.supplied, self.reserved, self.of_function)


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
    AbstractDamping: ComponentForm(damping_kinds, "damping rule", AbstractDamping),
    AbstractDirectionSolver: ComponentForm(direction_solver_kinds, "direction solver", AbstractDirectionSolver),
    AbstractFlow: ComponentForm(flow_kinds, "flow", AbstractFlow),
    AbstractLoss: ComponentForm(loss_kinds, "loss", AbstractLoss, of_function=loss_of_value),
    AbstractOptimiser: ComponentForm(optimiser_kinds, "optimiser", AbstractOptimiser),
    AdaptiveGamma: ComponentForm(gamma_kinds, "rule for gamma", AdaptiveGamma),
    AbstractPreconditioner: ComponentForm(preconditioner_kinds, "preconditioner", AbstractPreconditioner),
    AbstractOutputMetric: UnionForm(
        (OwnForm(AbstractOutputMetric, "output metric"), NameForm(output_metrics, "output metric"))
    ),
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
    if origin is Callable or annotation in (Callable, typing.Callable):
        return FunctionForm(len(arguments[0]) if arguments and isinstance(arguments[0], list) else 1)
    if origin in (list, tuple, Sequence):
        return ListForm(form_of(name, arguments[0]), list if origin is list else tuple)
    if origin in (Union, types.UnionType):
        forms = [form_of(name, argument) for argument in arguments if argument not in (types.NoneType, Path)]
        forms = [form for form in forms if not isinstance(form, NoForm)]
        # Known names come before plain strings, which would accept every name.
        forms.sort(key=lambda form: not isinstance(form, ComponentForm | NameForm | FunctionForm | UnionForm))
        return forms[0] if len(forms) == 1 else UnionForm(tuple(forms)) if forms else NoForm()
    return NoForm()
