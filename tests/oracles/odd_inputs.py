"""Odd and malformed inputs, for tests that nobody's slip ends in a traceback from somebody else's library."""

import copy
import datetime
import json
import math
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

_LONG = "w" * 300
ODD_VALUES: tuple[Any, ...] = (
    *(math.nan, math.inf, -math.inf, -1, 0, -0.0, 1, 2, 0.5, 1e300, 1e-300, 5e-324, 1e22, 300.0),
    *(2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**12, 10**25, 10**400),
    *(
        "",
        " ",
        "\0",
        "a\nb",
        "nan",
        "1e3",
        "\u0663",
        "1_0",
        _LONG,
        "x" * 5000,
        "../../etc/passwd",
        "~/x",
        "~nobody/x",
        "é",
        "squared",
    ),
    *(True, False, datetime.date(2020, 1, 1), datetime.time(2, 0), datetime.datetime(2020, 1, 1, 2)),
    *([], [[]], [1, 2], [1, "a", True], ["y", "y"], [None], list(range(300)), {}, {"kind": "x"}, {"kind": 3}),
    *(
        {"kind": "constant", "value": -1},
        {"": 1},
        {"a.b": {"c": 1}},
        [{"kind": "kernel_distance"}] * 2,
        {"a": {"b": {"c": []}}},
    ),
)
ODD_KEYS = ("", " ", "a.b", "kind", "path", "width", "seeds", "ünï", "a\nb", "\0", _LONG, "flows", "model.init_scale")
ODD_TEXTS = (
    *(
        "=",
        "a",
        "a=",
        "=1",
        "model",
        "model.width",
        "a.=1",
        ".a=1",
        "a b=1",
        '"="=1',
        "a\nb=1",
        "[a]\nb=1",
        "#=1",
        "a=#",
        "a==1",
    ),
    *(
        "model.width=",
        "model.width=nan",
        "model.width=1e400",
        "model.width=" + "9" * 5000,
        "model.width=2020-01-01",
        "seeds=[",
        "seeds=[]",
    ),
    *(
        "seeds=" + "[" * 3000,
        "a=" + "{a=" * 500,
        "model.width=\0",
        "model.width=\ud800",
        ".".join("a" * 500) + "=1",
        "seeds=-1",
    ),
    *(
        "problem.n_train=99999999999999999999",
        "model={}",
        "model=3",
        "flows={}",
        "flows=1",
        "variants={'': {}}",
        "variants=[1]",
    ),
    *(
        "problem={kind='file', path='~/x'}",
        "problem.path=~/x",
        "stop={relative_loss=2}",
        "stop.relative_loss={tolerance=[]}",
    ),
    *(
        "model.init_scale=0",
        "integration.max_steps=1e22",
        "integration.t1=0",
        "name=",
        "name=/",
        "name=" + "n" * 300,
        "model.activation=relu\u0301",
    ),
    *(
        "metrics=['kernel_distance','kernel_distance']",
        "metrics={}",
        "metrics=[[]]",
        "model.width=1_0",
        "model.width=\u0663",
        "model.width=007",
    ),
)


def toml_text(table: dict[str, Any]) -> str:
    """`table` as TOML, whatever it holds that TOML can hold."""
    return "".join(f"{json.dumps(key)} = {_value(value)}\n" for key, value in table.items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items() if item is not None)
            + " }"
        )
    return "[" + ", ".join(_value(item) for item in value if item is not None) + "]"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every entry, however deep."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        yield (*path, key)
        yield from places(item, (*path, key))


@st.composite
def mutated(draw: st.DrawFn, table: dict[str, Any]) -> dict[str, Any]:
    """`table` with one or two of its entries replaced, removed, renamed, repeated or added to."""
    changed = json.loads(json.dumps(table))
    for _ in range(draw(st.integers(1, 2))):
        known = list(places(changed))
        if not known:
            break
        *above, last = draw(st.sampled_from(known))
        inside = changed
        for key in above:
            inside = inside[key]
        change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "add", "wrap"]))
        if change == "replace":
            inside[last] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
        elif change == "wrap":
            inside[last] = draw(st.sampled_from([[inside[last]], {"value": inside[last]}]))
        elif isinstance(inside, dict):
            value = inside.pop(last) if change in ("remove", "rename") else inside[last]
            if change != "remove":
                inside[draw(st.sampled_from(ODD_KEYS))] = value
    return changed


@st.composite
def broken_text(draw: st.DrawFn, text: str) -> bytes:
    """`text` cut, with a part repeated, or with bytes put in."""
    content = text.encode()
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 80)))
    inserted = draw(
        st.sampled_from(
            [
                b"",
                b"\0",
                b"\xff\xfe",
                b"\xef\xbb\xbf",
                b"[",
                b"]]",
                b"=",
                b'"""',
                b"\r",
                b"[[a]]\n",
                b"a.a.a = 1\n",
                b"9" * 5000,
            ]
        )
    )
    way = draw(st.sampled_from(["cut", "put in", "repeat", "replace"]))
    if way == "cut":
        return content[:start]
    if way == "put in":
        return content[:start] + inserted + content[start:]
    if way == "repeat":
        return content[:end] + content[start:end] + content[end:]
    return content[:start] + inserted + content[end:]
