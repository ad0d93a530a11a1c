"""Describe what `encode` wrote: as settings by name, which people can compare, and as a digest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._serialise import ARRAY, CLASS, FIELDS, OPAQUE, TEXT, TUPLE, short_name


def settings_of(encoded: Any, arrays: Mapping[str, np.ndarray], at: str = "") -> dict[str, Any]:
    """The entries of a tree of `encode`, by dotted path: numbers and texts, names of classes, types and shapes of arrays.

    **Arguments:**

    - `encoded`: the tree.
    - `arrays`: the arrays that `encode` moved out of it, by name.
    - `at`: the path of the tree itself.
    """
    if isinstance(encoded, dict) and TUPLE in encoded:
        encoded = encoded[TUPLE]
    if isinstance(encoded, list):
        if not any(isinstance(item, dict | list) for item in encoded):
            return {at: encoded}
        parts = {f"{at}[{number}]": item for number, item in enumerate(encoded)}
        return {name: entry for path, item in parts.items() for name, entry in settings_of(item, arrays, path).items()}
    if not isinstance(encoded, dict):
        return {at: encoded}
    if ARRAY in encoded:
        array = arrays.get(encoded[ARRAY])
        if array is None:
            return {at: "a missing array"}
        return {at: array.item() if array.size == 1 else f"{array.dtype} {array.shape}"}
    found: dict[str, Any] = {}
    if OPAQUE in encoded:
        found[at], encoded = short_name(encoded[OPAQUE]), encoded.get(FIELDS, {})
    elif CLASS in encoded:
        found[at], encoded = short_name(encoded[CLASS]), {key: item for key, item in encoded.items() if key != CLASS}
    for key, item in encoded.items():
        found |= settings_of(item, arrays, f"{at}.{key}" if at else str(key))
    return found


def digest_of(encoded: Any, arrays: Mapping[str, np.ndarray]) -> str:
    """A checksum of a tree of `encode` with its arrays. Equal content has equal checksums, also if the arrays' names differ."""
    digest = hashlib.sha256()
    _update(digest, encoded, arrays)
    return digest.hexdigest()


def _update(digest: Any, encoded: Any, arrays: Mapping[str, np.ndarray]) -> None:
    if isinstance(encoded, dict) and ARRAY in encoded:
        array = np.ascontiguousarray(arrays[encoded[ARRAY]])
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    elif isinstance(encoded, dict):
        # The text of an object that cannot be rebuilt may hold its address, which is another one in every process.
        for key in sorted(encoded.keys() - ({TEXT} if OPAQUE in encoded else set())):
            digest.update(json.dumps(key).encode())
            _update(digest, encoded[key], arrays)
    elif isinstance(encoded, list):
        digest.update(f"[{len(encoded)}".encode())
        for item in encoded:
            _update(digest, item, arrays)
    else:
        digest.update(json.dumps(encoded).encode())
