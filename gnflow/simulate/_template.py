"""Save and restore models of the user's own classes: gnflow keeps their arrays and puts them into a model that is given."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._core import RunFolderError, class_name, is_key, short_name, warn


def describe_leaves(model: Any, arrays: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    """The class of `model` and the places, shapes and dtypes of its arrays. The arrays are added to `arrays` under `name`."""
    leaves = _leaves(model)
    for number, (_, leaf) in enumerate(leaves):
        arrays[_key(name, number)] = _plain(leaf)
    described = [{"path": path, "shape": list(leaf.shape), "dtype": str(leaf.dtype)} for path, leaf in leaves]
    return {"class": class_name(type(model)), "leaves": described}


def filled(template: Any, described: Any, recorded_class: str, arrays: dict[str, np.ndarray], name: str) -> Any:
    """`template` with the saved arrays in their places.

    **Arguments:**

    - `template`: a model of the same class and structure.
    - `described`: the result of `describe_leaves`. It is None in folders of versions up to 0.1.0: then only the class and the
      number, shapes and dtypes of the arrays are compared, with a warning.
    - `recorded_class`: the class that `encode` noted.
    - `arrays`: the arrays of the run folder.
    - `name`: the name of the model in the folder.

    **Raises:** `RunFolderError` for a model of another class, with other arrays or with arrays in other places.
    """
    saved_class = recorded_class if described is None else str(_entry(described, "class"))
    own_class = class_name(type(template))
    if short_name(saved_class) != short_name(own_class):
        raise RunFolderError(
            f"the model given is a {short_name(own_class)}, the one saved is a {saved_class}; pass one of that class, with the "
            "same arrays in it."
        )
    leaves = _leaves(template)
    if described is None:
        wanted = sum(key.startswith(f"{name}_leaf.") for key in arrays)
        saved = [(path, _saved(arrays, name, number)) for number, (path, _) in enumerate(leaves)]
        if wanted == len(leaves):
            warn(
                "the run was saved with gnflow 0.1.0 or earlier, which did not keep the places of a model's arrays: the saved "
                f"ones are put into {short_name(own_class)} in the order of its fields. Check that these have not been "
                "reordered since, and save the run again."
            )
    else:
        entries = _entry(described, "leaves")
        wanted = len(entries)
        saved = [(str(_entry(entry, "path")), _saved(arrays, name, number)) for number, entry in enumerate(entries)]
    if wanted != len(leaves):
        raise RunFolderError(
            f"the model given has {len(leaves)} arrays, the one saved has {wanted}; pass the same model."
        )
    for (path, leaf), (saved_path, array) in zip(leaves, saved, strict=True):
        own = _plain(leaf)
        if path != saved_path or own.shape != array.shape or own.dtype != array.dtype:
            raise RunFolderError(
                f"the model given has {_what(path, own)} where the one saved has {_what(saved_path, array)}; pass a model with "
                "the same fields in the same order and of the same sizes."
            )
    dynamic, static = eqx.partition(template, eqx.is_array)
    back = [_like(leaf, array) for (_, leaf), (_, array) in zip(leaves, saved, strict=True)]
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(dynamic), back), static)


def _leaves(model: Any) -> list[tuple[str, Any]]:
    """Places and arrays, in the order of the tree."""
    flat = jax.tree_util.tree_flatten_with_path(eqx.filter(model, eqx.is_array))[0]
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in flat]


def _saved(arrays: dict[str, np.ndarray], name: str, number: int) -> np.ndarray:
    array = arrays.get(_key(name, number))
    return np.zeros((0,), dtype="V1") if array is None else array


def _key(name: str, number: int) -> str:
    return f"{name}_leaf.{number}"


def _entry(described: Any, key: str) -> Any:
    if not isinstance(described, dict) or key not in described:
        raise RunFolderError(f"the run file has no {key!r} of the model; it is damaged.")
    return described[key]


def _what(path: str, array: np.ndarray) -> str:
    return f"{path} {array.shape} {array.dtype}"


def _plain(leaf: Any) -> np.ndarray:
    """The leaf as an array that a file can hold. For a random key this is its data."""
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    # NumPy's files do not know bfloat16 and the like, so their bits are stored.
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _like(leaf: Any, array: np.ndarray) -> Any:
    if is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return jnp.asarray(array.view(leaf.dtype) if np.dtype(leaf.dtype).kind == "V" else array)
