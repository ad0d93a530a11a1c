import pytest

from gnflow import ConfigError
from gnflow.config import parse_assignment
from gnflow.config._overrides import apply_overrides, flatten_overrides


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("model.width=200", ("model", "width"), 200),
        ("model.init_scale = 1e-1", ("model", "init_scale"), 0.1),
        ("model.bias=false", ("model", "bias"), False),
        ("model.activation=relu", ("model", "activation"), "relu"),
        ('model.activation="relu"', ("model", "activation"), "relu"),
        ("problem.path=/data/a=b.csv", ("problem", "path"), "/data/a=b.csv"),
        ("seeds=[0, 1]", ("seeds",), [0, 1]),
        ('flows."a.b".power=0.5', ("flows", "a.b", "power"), 0.5),
        ('flows.gn.damping={kind="constant", value=1}', ("flows", "gn", "damping"), {"kind": "constant", "value": 1}),
        ("name=one\ntwo = 2", ("name",), "one\ntwo = 2"),
        ("name=", ("name",), ""),
    ],
)
def test_assignments_are_read_as_toml_or_as_text(text, path, value):
    parsed = parse_assignment(text)
    assert parsed == (path, value)
    assert type(parsed[1]) is type(value)


@pytest.mark.parametrize("text", ["model.width", "=3", "model..width=3", "a b=3", "[a]=3"])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(ConfigError, match=r"model\.width"):
        parse_assignment(text)


def test_both_ways_to_write_a_variant_are_the_same():
    dotted = flatten_overrides({"model.init_scale": 0.1, "flows.gn.damping": {"kind": "constant", "value": 1}})
    nested = flatten_overrides(
        {"model": {"init_scale": 0.1}, "flows": {"gn": {"damping": {"kind": "constant", "value": 1}}}}
    )
    assert dotted == nested
    assert (("flows", "gn", "damping"), {"kind": "constant", "value": 1}) in dotted


def test_overrides_change_a_copy_and_make_tables():
    table = {"model": {"width": 3}}
    changed = apply_overrides(table, [(("model", "width"), 4), (("stop", "relative_loss"), 0.1)])
    assert changed == {"model": {"width": 4}, "stop": {"relative_loss": 0.1}}
    assert table == {"model": {"width": 3}}


def test_a_path_through_a_number_is_refused():
    with pytest.raises(ConfigError, match=r"model\.width is 3, which is not a table"):
        apply_overrides({"model": {"width": 3}}, [(("model", "width", "deep"), 4)])
