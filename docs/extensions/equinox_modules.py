"""Griffe extension for the API pages: constructors of Equinox modules, and docstrings that Markdown leaves alone."""

import re
from typing import Any

from griffe import (
    Class,
    Docstring,
    Expr,
    ExprCall,
    ExprKeyword,
    Extension,
    Function,
    Module,
    Parameter,
    ParameterKind,
    Parameters,
)

_MODULE = "equinox.Module"
_CODE = re.compile(r"(`[^`]*`)", re.DOTALL)
_LONE_STAR = re.compile(r"(?<!\*)\*(?!\*)")
_OPENING_BRACKET = re.compile(r"<(?=[A-Za-z/])")


class EquinoxModules(Extension):
    """Equinox makes a constructor of a module's fields when it runs; here the same is read off the source."""

    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:
        """Go through the package once it is loaded."""
        _visit(pkg)


def _visit(thing: Any) -> None:
    if thing.docstring is not None:
        thing.docstring.value = _literal(thing.docstring)
    if isinstance(thing, Class):
        _add_constructor(thing)
    for member in list(thing.members.values()):
        if not member.is_alias and (member.is_module or member.is_class or member.is_function or member.is_attribute):
            _visit(member)


def _literal(docstring: Docstring) -> str:
    """The docstring with single stars and <letters> escaped outside of code: they are mathematics, not Markdown."""
    paragraphs = docstring.value.split("\n\n")
    return "\n\n".join(text if text.startswith("    ") else _escaped(text) for text in paragraphs)


def _escaped(text: str) -> str:
    # Splitting by a group puts the code at the odd places.
    parts = _CODE.split(text)
    parts[::2] = [_OPENING_BRACKET.sub("&lt;", _LONE_STAR.sub(r"\\*", part)) for part in parts[::2]]
    return "".join(parts)


def _add_constructor(cls: Class) -> None:
    lineage = [cls, *cls.mro()]
    if not any(_canonical(base) == _MODULE for ancestor in lineage for base in ancestor.bases):
        return
    if any("__init__" in ancestor.members for ancestor in lineage):
        return
    fields: dict[str, Parameter] = {}
    for ancestor in reversed(lineage):
        for name, member in ancestor.members.items():
            if not member.is_attribute or "property" in member.labels or not _is_field(member):
                continue
            fields[name] = Parameter(
                name, annotation=member.annotation, kind=_KIND, default=_default(member.value), docstring=None
            )
    if fields:
        parameters = Parameters(Parameter("self", kind=_KIND), *fields.values())
        cls.set_member("__init__", Function("__init__", parameters=parameters))


_KIND = ParameterKind.positional_or_keyword


def _is_field(attribute: Any) -> bool:
    text = str(attribute.annotation)
    return attribute.annotation is not None and not any(word in text for word in ("ClassVar", "AbstractVar"))


def _default(value: Any) -> Any:
    """The default of a field; that of `equinox.field(default=...)` is its keyword."""
    if isinstance(value, ExprCall) and str(value.function).endswith("field"):
        given = [item for item in value.arguments if isinstance(item, ExprKeyword) and item.name == "default"]
        return given[0].value if given else None
    return value


def _canonical(base: Any) -> str:
    return base.canonical_path if isinstance(base, Expr) else str(base)
