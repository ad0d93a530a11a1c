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

# The modules of other packages that gnflow's are made of, and the fields that they bring.
_MODULES = {
    "equinox.Module": (),
    "diffrax.AbstractAdaptiveSolver": (),
    "diffrax.AbstractImplicitSolver": (),
    "diffrax.AbstractTerm": (),
    "diffrax.ODETerm": ("vector_field",),
}
_CODE = re.compile(r"(`[^`]*`)", re.DOTALL)
# Emphasis is of words alone. Any other single star, and an underscore that begins or ends a word, is mathematics.
_EMPHASIS = re.compile(r"(?<![^\s(])(\*[A-Za-z][A-Za-z' ,\n-]*\*)(?![\w*])")
_LONE_STAR = re.compile(r"(?<!\*)\*(?!\*)")
_EDGE_UNDERSCORE = re.compile(r"\b_|_\b|(?<!\w)_|_(?!\w)")
_OPENING_BRACKET = re.compile(r"<(?=[A-Za-z/!?])")


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
    """The docstring with stars, underscores and <letters> escaped outside of code, where they are mathematics."""
    paragraphs = docstring.value.split("\n\n")
    return "\n\n".join(text if text.startswith("    ") else _escaped(text) for text in paragraphs)


def _escaped(text: str) -> str:
    # Splitting by a group puts what it finds, the code and the emphasis, at the odd places.
    parts = _CODE.split(text)
    for place in range(0, len(parts), 2):
        pieces = _EMPHASIS.split(parts[place])
        pieces[::2] = [_plain(piece) for piece in pieces[::2]]
        parts[place] = "".join(pieces)
    return "".join(parts)


def _plain(text: str) -> str:
    text = _OPENING_BRACKET.sub("&lt;", _LONE_STAR.sub(r"\\*", text))
    return _EDGE_UNDERSCORE.sub(r"\\_", text)


def _add_constructor(cls: Class) -> None:
    lineage = [cls, *cls.mro()]
    modules = [_canonical(base) for ancestor in lineage for base in ancestor.bases if _canonical(base) in _MODULES]
    if not modules:
        return
    if any("__init__" in ancestor.members for ancestor in lineage):
        return
    fields = {name: Parameter(name, kind=_KIND) for module in modules for name in _MODULES[module]}
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
    """Annotated, and neither a `ClassVar` nor an `AbstractVar`, which a subclass defines.

    Of `ClassVar[...]` Griffe leaves what is within the brackets, and the label tells; a bare `ClassVar` it leaves as it is.
    """
    field = attribute.annotation is not None and "instance-attribute" in attribute.labels
    return field and not any(word in str(attribute.annotation) for word in ("ClassVar", "AbstractVar"))


def _default(value: Any) -> Any:
    """The default of a field; that of `equinox.field(default=...)` is its keyword."""
    if isinstance(value, ExprCall) and str(value.function).endswith("field"):
        given = [item for item in value.arguments if isinstance(item, ExprKeyword) and item.name == "default"]
        return given[0].value if given else None
    return value


def _canonical(base: Any) -> str:
    return base.canonical_path if isinstance(base, Expr) else str(base)
