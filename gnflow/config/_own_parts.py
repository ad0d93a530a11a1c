"""Parts of the user's own that a configuration names as "module:Name", and what makes them."""

import contextlib
import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array

from .._core import ConfigError, GnflowError, name_of, nearest_name, shown as shown_object
from ..flows import AbstractFlow
from ..geometry import AbstractOutputMetric
from ..geometry.damping import AbstractDamping
from ..geometry.directions import AbstractDirectionSolver, AbstractPreconditioner
from ..losses import AbstractLoss, from_function
from ..metrics import AbstractMetric
from ..optimisers import AbstractOptimiser
from ..problems import AbstractProblem
from ._modules import Source, imported_module, imported_source, told
from ._plain import shown

_REFERENCE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")
_LARGEST_WHOLE = 2.0**53  # the integers up to here are floating-point numbers, too
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

# What an object is, for messages. Any Equinox module may be a model, so this comes last.
_KINDS: dict[type, str] = {
    AbstractFlow: "flow",
    AbstractLoss: "loss",
    AbstractMetric: "metric",
    AbstractDamping: "damping rule",
    AbstractOutputMetric: "output metric",
    AbstractDirectionSolver: "direction solver",
    AbstractPreconditioner: "preconditioner",
    AbstractOptimiser: "optimiser",
    AbstractProblem: "problem",
    eqx.Module: "model",
}
_NAMES = {  # where users find what they inherit from
    AbstractDamping: "gnflow.damping",
    AbstractDirectionSolver: "gnflow.directions",
    AbstractFlow: "gnflow.flows",
    AbstractLoss: "gnflow.losses",
    AbstractMetric: "gnflow.metrics",
    AbstractOptimiser: "gnflow.optimisers",
    AbstractOutputMetric: "gnflow.geometry",
    AbstractPreconditioner: "gnflow.directions",
    AbstractProblem: "gnflow.problems",
    eqx.Module: "equinox",
}


def is_reference(value: Any) -> bool:
    """Whether `value` is text that names a part of the user's own, or tries to."""
    return isinstance(value, str) and ":" in value


def an(noun: str) -> str:
    """`noun` with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def part_named(reference: str, path: str) -> Any:
    """The object that "module:name" names; None if the module is not imported and may not be.

    **Raises:** `ConfigError` that names `path`: for text of another form, a missing module, a module whose import raises, and a
    name that the module does not have (with the nearest one).
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError(
            f"{path} = {shown(reference)}; expected a module and a name in it, such as 'my_module:MyFlow' for the class MyFlow "
            "in my_module.py."
        )
    module_name, name = match.groups()
    try:
        module = imported_module(module_name)
    except ConfigError as error:
        raise ConfigError(f"{path} = {reference!r}: {error}") from error
    if module is None:
        return None
    try:
        return getattr(module, name)
    except AttributeError as error:
        known = [
            one
            for one, thing in vars(module).items()
            if not one.startswith("_") and getattr(thing, "__module__", None) == module_name
        ]
        raise ConfigError(f"{path}: the module {module_name!r} has no {name!r}; {nearest_name(name, known)}") from error


def imported_part(reference: str, path: str) -> Any:
    """The object that "module:name" names. **Raises:** as `part_named`, and `ConfigError` if the module is not imported."""
    part = part_named(reference, path)
    if part is None:
        module = reference.partition(":")[0]
        raise ConfigError(
            f"{path} = {reference!r}: the module {module} is not imported, since a folder alone imports nothing; give "
            f"--import {module} to gnflow verify, plot or compare, or run the configuration (a script reads it with "
            "imports=True)."
        )
    return part


def constructor_of(reference: str, part: Any, base: type, path: str) -> Callable[..., Any]:
    """The class or function that makes a part of the class `base`.

    **Raises:** `ConfigError` for an object of another kind.
    """
    what = _KINDS[base]
    expected = f"expected {an(what)}: a class that inherits from {_NAMES[base]}.{base.__name__}"
    expected += ", or a function that returns an object of one"
    if inspect.isclass(part):
        if not issubclass(part, base) or (base is eqx.Module and _kind_of(part) != what):
            raise ConfigError(f"{path} = {reference!r} is {_described(part)}; {expected}.")
        if inspect.isabstract(part):
            missing = ", ".join(sorted(getattr(part, "__abstractmethods__", ())))
            raise ConfigError(f"{path}: the class {reference!r} is not complete; it has to define {missing}.")
    elif isinstance(part, base) or not callable(part):
        remedy = " Name its class, or a function that returns it." if isinstance(part, base) else ""
        raise ConfigError(f"{path} = {reference!r} is {_described(part)}; {expected}.{remedy}")
    return part


@contextlib.contextmanager
def running(reference: str) -> Iterator[None]:
    """Name the line of the user's in errors that their constructor raises. **Raises:** `ConfigError`."""
    try:
        yield
    except GnflowError:
        raise
    except Exception as error:
        source = imported_source(reference.partition(":")[0])
        if source is None or isinstance(error, MemoryError):
            raise
        raise ConfigError(f"{reference!r} raises {told(error, source)}.") from error


def require_made(made: Any, reference: str, base: type, path: str) -> Any:
    """`made`, if the user's constructor made what is needed. **Raises:** `ConfigError`."""
    what = _KINDS[base]
    if not isinstance(made, base) or (base is eqx.Module and not callable(made)):
        raise ConfigError(f"{path}: {reference!r} returns {_described(made)}; expected {an(what)}.")
    return made


def require_function(reference: str, part: Any, path: str) -> Any:
    """`part`, if it is a function or an object like one. **Raises:** `ConfigError`."""
    if inspect.isclass(part) or not callable(part):
        raise ConfigError(f"{path} = {reference!r} is {_described(part)}; expected a function.")
    return part


def _described(thing: Any) -> str:
    kind = _kind_of(thing if inspect.isclass(thing) else type(thing))
    if inspect.isclass(thing):
        return f"the class of {an(kind)}" if kind else "a class of another kind"
    return f"{an(kind)}, an object of {type(thing).__name__}" if kind else shown_object(thing)


def _kind_of(cls: type) -> str:
    return next((kind for base, kind in _KINDS.items() if issubclass(cls, base)), "")


@dataclasses.dataclass(frozen=True)
class WithOptions:
    """A function with values for some of its parameters. Equal ones share compiled programs, unlike `functools.partial`s."""

    function: Callable[..., Any]
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, function: Callable[..., Any], options: Mapping[str, Any]) -> Any:
        """The function itself if there are no options."""
        if not options:
            return function
        return cls(function, tuple((name, _hashable(value)) for name, value in sorted(options.items())))

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments, **dict(self.options))

    @property
    def __name__(self) -> str:
        return name_of(self.function)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def function_with_options(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The constructor of a function of `number` arguments, whose options are the further parameters of `function`."""
    return _with_parameters(lambda **options: WithOptions.of(function, options), _options_of(function, number))


def loss_of_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """The constructor of the loss whose value is `function`, of outputs and targets.

    Its options are `minimum`, a number or a function of the targets, and the further parameters of `function`. The minimum
    gets the values of those that it has, too.
    """

    def make(*, minimum: float | Callable[[Array], Array], **options: Any) -> AbstractLoss:
        if callable(minimum) and not isinstance(minimum, WithOptions):
            shared = {name: options[name] for name in _options_of(minimum, 1) if name in options}
            minimum = WithOptions.of(minimum, shared)
        return from_function(WithOptions.of(function, options), minimum=minimum)

    hint = typing.get_type_hints(make)["minimum"]
    minimum = inspect.Parameter("minimum", inspect.Parameter.KEYWORD_ONLY, annotation=hint)
    return _with_parameters(make, {"minimum": minimum, **_options_of(function, 2)})


def _options_of(function: Callable[..., Any], number: int) -> dict[str, inspect.Parameter]:
    """The parameters of a function after its first `number` arguments."""
    parameters = inspect.signature(function).parameters
    by_position = [name for name, parameter in parameters.items() if parameter.kind in _BY_POSITION][:number]
    hints = typing.get_type_hints(function)
    return {
        name: parameter.replace(annotation=hints.get(name, inspect.Parameter.empty))
        for name, parameter in parameters.items()
        if name not in by_position
    }


def _with_parameters(make: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> Callable[..., Any]:
    """`make` with a signature of its own."""

    def factory(**options: Any) -> Any:
        return make(**options)

    named = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters.values() if one.kind in _NAMED]
    factory.__signature__ = inspect.Signature(named)  # pyright: ignore[reportFunctionMemberAccess]
    factory.__annotations__ = {
        one.name: one.annotation for one in named if one.annotation is not inspect.Parameter.empty
    }
    return factory


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def canonical(value: Any) -> Any:
    """The options of a user's part as a specification keeps them: as they were written, with 1.0 written as 1.

    The content hash of a run is made of them. It must not depend on whether the module is imported, so they are not converted
    to the types that its parameters have.
    """
    if isinstance(value, Mapping):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_WHOLE
    return int(value) if is_whole else value


def sources_in(table: Any) -> dict[str, Source]:
    """The imported modules that the parts in a checked table are from, by name."""
    if isinstance(table, Mapping):
        table = list(table.values())
    if isinstance(table, list | tuple):
        return {name: source for item in table for name, source in sources_in(item).items()}
    match = _REFERENCE.fullmatch(table) if is_reference(table) else None
    source = None if match is None else imported_source(match.group(1))
    return {} if source is None else {source.name: source}
