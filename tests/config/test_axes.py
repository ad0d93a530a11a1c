import numpy as np
import pytest
from sweeps.grids import TABLE, table_with, with_axes

from gnflow import ConfigError
from gnflow.config import Specification
from gnflow.config._axes import read_axes


def only(**entries):
    (axis,) = read_axes({"axis": entries}, TABLE["flows"])
    return axis


class TestValues:
    def test_a_path_and_values_give_a_position_each(self):
        axis = only(path="model.init_scale", values=[0.1, 1, 10], label="tau0", units="1")
        assert [axis.overrides(position) for position in range(3)] == [
            [(("model", "init_scale"), value)] for value in (0.1, 1, 10)
        ]
        dim, values, attrs = axis.coordinates()["axis"]
        assert dim == "axis"
        np.testing.assert_array_equal(values, [0.1, 1.0, 10.0])
        assert attrs == {"long_name": "tau0", "units": "1"}

    def test_generated_values_are_those_a_person_writes(self):
        assert only(path="model.init_scale", logspace=[0.01, 100, 5]).coordinate == (0.01, 0.1, 1.0, 10.0, 100.0)
        assert only(path="flows.newton.power", linspace=[0, 1, 11]).coordinate == tuple(n / 10 for n in range(11))
        whole = only(path="problem.n_train", linspace=[100, 500, 5]).coordinate
        assert whole == (100, 200, 300, 400, 500)
        assert all(isinstance(value, int) for value in whole)

    def test_generated_values_give_the_cells_of_written_ones(self):
        written = with_axes(tau0={"path": "model.init_scale", "values": [0.1, 1, 10]})
        generated = with_axes(tau0={"path": "model.init_scale", "logspace": [0.1, 10, 3]})
        assert generated.hashes == written.hashes

    def test_text_booleans_and_labelled_tables(self):
        assert only(path="model.activation", values=["relu", "silu"]).coordinates()["axis"][1].tolist() == [
            "relu",
            "silu",
        ]
        assert only(path="model.bias", values=[True, False]).coordinates()["axis"][1].dtype == bool
        rules = [{"kind": "constant", "value": 1e-3}, {"kind": "smallest_eigenvalue"}]
        axis = only(path="flows.newton.damping", values=rules, labels=["constant", "smallest"])
        assert axis.coordinate == ("constant", "smallest")
        assert axis.overrides(1) == [(("flows", "newton", "damping"), rules[1])]
        assert list(axis.coordinates()) == ["axis"]


class TestZipped:
    def test_entries_move_together_and_the_first_is_the_coordinate(self):
        axis = only(values={"problem.n_train": [100, 500], "model.width": [1000, 5000]})
        assert axis.overrides(1) == [(("problem", "n_train"), 500), (("model", "width"), 5000)]
        coordinates = axis.coordinates()
        assert list(coordinates) == ["axis", "width"]
        assert coordinates["width"][0] == "axis"
        assert coordinates["axis"][1].tolist() == [100, 500]

    def test_nested_tables_and_dotted_keys_are_the_same(self):
        nested = only(values={"problem": {"n_train": [100, 500]}, "model": {"width": [1000, 5000]}})
        assert nested == only(values={"problem.n_train": [100, 500], "model.width": [1000, 5000]})

    def test_labels_leave_the_values_beside_them(self):
        axis = only(values={"problem.n_train": [100, 500], "model.width": [1, 2]}, labels=["small", "large"])
        assert {name: along[1].tolist() for name, along in axis.coordinates().items()} == {
            "axis": ["small", "large"],
            "n_train": [100, 500],
            "width": [1, 2],
        }

    def test_equal_last_parts_are_told_apart(self):
        axis = only(values={"flows.descent.mobility": [1, 2], "flows.newton.mobility": [3, 4]}, labels=["a", "b"])
        assert list(axis.coordinates()) == ["axis", "descent_mobility", "newton_mobility"]

    def test_what_would_be_called_as_something_measured_is_called_by_more_of_its_path(self):
        axis = only(
            values={"stop.relative_loss": [1e-1, 1e-2], "stop.test_loss": [3, 4], "flows.newton.median": [1, 2]}
        )
        assert list(axis.coordinates()) == ["axis", "stop_test_loss", "newton_median"]


REFUSED = [
    ({"a": 3}, r"axes\.a = 3; expected a table"),
    ({"a": {"path": "model.width"}}, r"axes\.a has no values; expected exactly one of"),
    (
        {"a": {"path": "model.width", "values": [1], "linspace": [1, 2, 3]}},
        r"has values and linspace; expected exactly",
    ),
    ({"a": {"path": "model.width", "value": [1]}}, r"unknown entry 'value'; did you mean 'values'"),
    ({"a": {"values": [1, 2]}}, r"axes\.a\.path = None; expected a dotted path"),
    ({"a": {"path": "model.width", "values": 3}}, r"the values of model\.width are 3; expected an array"),
    ({"a": {"path": "model.width", "values": []}}, r"axes\.a has no values"),
    ({"a": {"path": "model.width", "values": [8, 8]}}, r"axes\.a\.values = \[8, 8\]; expected each once"),
    ({"a": {"path": "model.width", "values": [8, float("nan")]}}, r"expected finite numbers"),
    ({"a": {"path": "model.width", "values": [8, "x"]}}, r"give labels"),
    ({"a": {"path": "flows.newton.damping", "values": [{"kind": "constant"}]}}, r"give labels"),
    ({"a": {"path": "model.width", "values": [8, 9], "labels": ["x"]}}, r"labels = \['x'\]; expected an array of 2"),
    ({"a": {"path": "model.width", "values": [8], "label": 3}}, r"axes\.a\.label = 3; expected text"),
    ({"a": {"path": "model.width", "logspace": [0, 1, 3]}}, r"needs positive ends"),
    ({"a": {"path": "model.width", "logspace": [1, 2]}}, r"expected \[first, last, number of values\]"),
    ({"a": {"path": "model.width", "linspace": [1, 2, 0]}}, r"expected \[first, last, number of values\]"),
    ({"a": {"path": "seeds", "values": [1, 2]}}, r"common to all cells \(seeds are a dimension"),
    ({"a": {"path": "flows.newtn.power", "values": [1]}}, r"unknown flow: did you mean 'newton'"),
    ({"a": {"path": "model width", "values": [1]}}, r"is not a dotted key"),
    ({"flow": {"path": "model.width", "values": [1]}}, r"'flow' cannot name a dimension"),
    ({"regime": {"path": "model.width", "values": [1]}}, r"'regime' cannot name a dimension"),
    ({"threshold": {"path": "model.width", "values": [1]}}, r"'threshold' cannot name a dimension"),
    ({"my axis": {"path": "model.width", "values": [1]}}, r"'my axis' cannot name a dimension"),
    ({"a": {"values": {"model.width": [1, 2], "problem.n_train": [1]}}}, r"need as many values each"),
    ({"a": {"path": "model.width", "values": {"model.width": [1]}}}, r"leave the path out"),
    (
        {"a": {"path": "model.width", "values": [1]}, "b": {"path": "model.width", "values": [1]}},
        r"axes\.b sets model\.width and axes\.a sets model\.width",
    ),
    (
        {"a": {"path": "flows.newton", "values": ["gradient"]}, "b": {"path": "flows.newton.mobility", "values": [1]}},
        r"which of them holds would depend on their order",
    ),
    *(
        ({name: {"path": "model.width", "values": [1]}}, rf"'{name}' cannot name a dimension.*{name}_axis")
        for name in (
            "test_loss",
            "train_loss",
            "kernel_distance",
            "test_loss_ratio",
            "result",
            "seed",
            "flow_time",
            "median",
        )
    ),
    ({"a" * 300: {"path": "model.width", "values": [1]}}, r"cannot name a dimension; expected at most 100 letters"),
    ({"a": {"path": "model.width", "logspace": [1, 10, 100_000_000]}}, r"axes\.a\.logspace = 100000000 runs"),
    ({"a": {"path": "model.width", "linspace": [1, 10, 10**7]}}, r"10000000 runs; expected at most 1000000"),
    (
        {name: {"path": f"model.{name}", "linspace": [1, 2, 1001]} for name in ("a", "b")},
        r"1001 a x 1001 b x 2 flows = 2004002 runs; expected at most",
    ),
    (
        {"width": {"values": {"problem.n_train": [3, 4], "model.width": [5, 6]}}},
        r"axes\.width is named like its entry model\.width, whose values would be nowhere",
    ),
    (
        {"a": {"path": "model.width", "values": [1]}, "b": {"values": {"problem.n_train": [1], "x.a": [2]}}},
        r"a second coordinate 'a'",
    ),
]


@pytest.mark.parametrize(("axes", "message"), REFUSED)
def test_what_is_refused_is_named(axes, message):
    with pytest.raises(ConfigError, match=message):
        read_axes(axes, TABLE["flows"])


def test_a_wrong_value_is_named_with_its_place_in_the_grid():
    with pytest.raises(ConfigError, match=r"at tau0=1,width=x: model\.width = 'x' is a string"):
        with_axes(
            tau0={"path": "model.init_scale", "values": [1, 2]}, width={"path": "model.width", "values": ["x", "y"]}
        )
    with pytest.raises(ConfigError, match=r"unknown option 'init_scal'.*did you mean 'init_scale'"):
        with_axes(tau0={"path": "model.init_scal", "values": [1, 2]})


def test_an_axis_that_every_flow_overrules_is_refused():
    flows = {"newton": {"kind": "gauss_newton", "stop": {"relative_loss": 1e-3}}}
    axes = {"target": {"path": "stop.relative_loss", "values": [1e-1, 1e-2]}}
    with pytest.raises(ConfigError, match="'target' cannot name"):
        Specification.from_dict(table_with(flows=flows, axes=axes))
    with pytest.raises(ConfigError, match=r"axes\.goal has no effect: stop\.relative_loss is replaced"):
        Specification.from_dict(table_with(flows=flows, axes={"goal": axes["target"]}))
