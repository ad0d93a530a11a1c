"""Names for groups of a model's weights: those that every model has, and its own."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._core import ModelError, shown

# What a name that every model knows means for the path of a leaf, such as "layers[0].bias" or "hidden_bias".
_COMMON: dict[str, Callable[[str], bool]] = {
    "biases": lambda path: path == "bias" or path.endswith((".bias", "_bias")),
}


def weight_groups(model: Any, paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The names of groups of weights, each with the paths of its leaves: "biases", and the model's own `weight_groups`.

    **Arguments:**

    - `model`: any model; a name of its own goes before a common one.
    - `paths`: of the leaves that the common names are looked for in.

    **Raises:** `ModelError` unless the model's `weight_groups`, where it has some, is a dictionary of names and paths.
    """
    paths = tuple(paths)
    common = {name: tuple(filter(belongs, paths)) for name, belongs in _COMMON.items()}
    return {name: found for name, found in common.items() if found} | _own_groups(model)


def layers_of(model: Any, paths: Iterable[str]) -> list[str]:
    """The name of the layer that each leaf belongs to.

    That is the model's own group that lists the leaf by its whole path ("hidden" of a `MeanFieldNetwork`), else the module that
    holds the leaf ("layers[0]" for "layers[0].bias"), else the leaf itself.
    """
    groups = _own_groups(model)

    def layer(path: str) -> str:
        own = next((name for name, members in groups.items() if path in members), None)
        return own or path.rpartition(".")[0] or path

    return [layer(path) for path in paths]


def _own_groups(model: Any) -> dict[str, tuple[str, ...]]:
    own = getattr(model, "weight_groups", {})
    expected = "expected a dictionary of names, each with the paths of its leaves: {'output': ('weight', 'bias')}"
    if not isinstance(own, Mapping) or not all(isinstance(name, str) for name in own):
        raise ModelError(f"{type(model).__name__}.weight_groups = {shown(own)}; {expected}.")
    groups = {name: (paths,) if isinstance(paths, str) else paths for name, paths in own.items()}
    for name, paths in groups.items():
        if not isinstance(paths, tuple | list) or not all(isinstance(path, str) for path in paths):
            raise ModelError(f"{type(model).__name__}.weight_groups[{name!r}] = {shown(paths)}; {expected}.")
    return {name: tuple(paths) for name, paths in groups.items()}
