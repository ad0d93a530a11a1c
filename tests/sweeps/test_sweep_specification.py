import itertools
import json
import tomllib

import jax
import numpy as np
import pytest
from grids import TABLE, table_with, with_axes
from hypothesis import given, settings, strategies as st

from gnflow import ConfigError
from gnflow.config import RunSpec, Specification, parse_assignment, read_sweep, to_toml

# Entries that no two axes share, with values that are all valid and all different.
POOL = {
    "tau0": ("model.init_scale", st.floats(1e-3, 1e3)),
    "width": ("model.width", st.integers(1, 50)),
    "samples": ("problem.n_train", st.integers(2, 50)),
    "teacher": ("problem.teacher_width", st.integers(1, 9)),
    "step": ("flows.newton.integration.step_size", st.floats(0.01, 2.0)),
    "activation": ("model.activation", st.sampled_from(["silu", "relu", "tanh"])),
    "damping": ("flows.newton.damping.value", st.floats(1e-6, 1.0)),
}


@st.composite
def grids(draw):
    names = draw(st.lists(st.sampled_from(sorted(POOL)), min_size=1, max_size=3, unique=True))
    axes = {
        name: {"path": POOL[name][0], "values": draw(st.lists(POOL[name][1], min_size=1, max_size=3, unique=True))}
        for name in names
    }
    flows = {"descent": {"kind": "gradient"}, "newton": {"kind": "gauss_newton", "damping": {"kind": "constant"}}}
    flows["newton"]["damping"]["value"] = 0.5
    seeds = draw(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True))
    return table_with(axes=axes, flows=flows, seeds=seeds)


def by_position(spec):
    """Content hash of every position, by its coordinates whatever their order."""
    coordinates = [dict(enumerate(spec.coords()[dim][1].tolist())) for dim in spec.dims]
    return {
        frozenset(
            (dim, coordinates[number][place]) for number, (dim, place) in enumerate(zip(spec.dims, index, strict=True))
        ): (spec.hashes[spec.grid[index]])
        for index in itertools.product(*map(range, spec.grid.shape))
    }


class TestHypothesis:
    @settings(max_examples=40, deadline=None)
    @given(grids(), st.randoms(use_true_random=False))
    def test_cells_do_not_depend_on_the_order_of_anything(self, table, random):
        def shuffled(items):
            items = list(items)
            random.shuffle(items)
            return items

        axes = {name: table["axes"][name] for name in shuffled(table["axes"])}
        axes = {name: {**entries, "values": shuffled(entries["values"])} for name, entries in axes.items()}
        flows = {name: dict(shuffled(table["flows"][name].items())) for name in shuffled(table["flows"])}
        other = {**table, "axes": axes, "flows": flows, "seeds": shuffled(table["seeds"])}
        other = dict(shuffled(other.items()))
        assert by_position(Specification.from_dict(other)) == by_position(Specification.from_dict(table))

    @settings(max_examples=40, deadline=None)
    @given(grids())
    def test_the_file_that_is_written_states_the_same_sweep(self, table):
        spec = Specification.from_dict(table)
        again = Specification.from_dict(tomllib.loads(to_toml(spec.to_dict())))
        assert again == spec
        np.testing.assert_array_equal(again.grid, spec.grid)

    @settings(max_examples=40, deadline=None)
    @given(grids())
    def test_a_cell_is_the_run_that_its_own_table_states(self, table):
        # The grid shares checked sections between cells; each is compared with a sweep of that single position.
        spec = Specification.from_dict(table)
        place = spec.grid.size // 2
        index = np.unravel_index(place, spec.grid.shape)
        axes = {
            axis.name: {**table["axes"][axis.name], "values": [axis.changes[position][0][1]]}
            for axis, position in zip(spec.axes, index[: len(spec.axes)], strict=True)
        }
        alone = Specification.from_dict({**table, "axes": axes})
        there = tuple(0 for _ in spec.axes) + index[-2:]
        assert alone.hashes[alone.grid[there]] == spec.hashes[spec.grid[index]]
        cell = spec.cells[spec.grid[index]]
        assert cell.content_hash() == spec.hashes[spec.grid[index]]
        assert RunSpec.from_dict(json.loads(json.dumps(cell.to_dict()))).content_hash() == cell.content_hash()

    @settings(max_examples=40, deadline=None)
    @given(grids())
    def test_cells_are_equal_exactly_where_their_content_is(self, table):
        spec = Specification.from_dict(table)
        assert len(set(spec.hashes)) == len(spec.cells)
        contents = {json.dumps({**c.to_dict(), "variant": "", "flow_name": ""}, sort_keys=True) for c in spec.cells}
        assert len(contents) == len(spec.cells)
        assert set(spec.grid.flat) == set(range(len(spec.cells)))


class TestDraws:
    """Named streams: what one axis changes, no other thing feels."""

    def prepared(self, **axis):
        (spec,) = (with_axes(axis=axis),)
        return [spec.cells[place].prepare() for place in spec.grid[:, 0, 0]]

    @pytest.mark.parametrize(
        "axis",
        [
            {"path": "model.width", "values": [4, 9]},
            {"path": "model.init_scale", "values": [0.1, 10.0]},
            {"path": "model.activation", "values": ["silu", "tanh"]},
            {"path": "flows.descent.mobility", "values": [1.0, 2.0]},
            {"path": "integration.num_steps", "values": [3, 4]},
        ],
    )
    def test_the_data_do_not_depend_on_the_rest(self, axis):
        first, second = (made.problem for made in self.prepared(**axis))
        for name in ("x_train", "y_train", "x_test", "y_test"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))

    @pytest.mark.parametrize(
        "axis",
        [
            {"path": "problem.n_train", "values": [4, 7]},
            {"path": "problem.teacher_width", "values": [2, 3]},
            {"path": "flows.descent.mobility", "values": [1.0, 2.0]},
        ],
    )
    def test_the_model_does_not_depend_on_the_rest(self, axis):
        first, second = (jax.tree.leaves(made.model) for made in self.prepared(**axis))
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_the_initial_weights_are_one_draw_scaled(self):
        first, second = (made.model for made in self.prepared(path="model.init_scale", values=[0.5, 2.0]))
        np.testing.assert_allclose(second.hidden_weight, 4.0 * first.hidden_weight, rtol=1e-12)

    def test_training_sets_nest_over_their_size(self):
        sets = [made.problem for made in self.prepared(path="problem.n_train", values=[3, 6, 11])]
        for smaller, larger in itertools.pairwise(sets):
            number = len(smaller.x_train)
            np.testing.assert_array_equal(smaller.x_train, larger.x_train[:number])
            np.testing.assert_array_equal(smaller.y_train, larger.y_train[:number])
            np.testing.assert_array_equal(smaller.x_test, larger.x_test)


class TestGrid:
    def test_dimensions_are_axes_flow_seed_in_the_order_of_the_file(self):
        spec = Specification.from_dict(TABLE)
        assert spec.dims == ("tau0", "step_size", "flow", "seed")
        assert spec.grid.shape == (3, 2, 2, 2)
        cell = spec.cells[spec.grid[2, 1, 1, 0]]
        assert (cell.model["init_scale"], cell.integration["step_size"], cell.flow_name, cell.seed) == (
            10,
            2,
            "newton",
            0,
        )
        assert cell.label == "tau0=10,step_size=2.0/newton/seed-0"

    def test_a_flow_that_an_axis_does_not_touch_is_computed_once_along_it(self):
        spec = Specification.from_dict(TABLE)
        np.testing.assert_array_equal(spec.grid[:, 0, 0], spec.grid[:, 1, 0])
        assert np.all(spec.grid[:, 0, 1] != spec.grid[:, 1, 1])
        assert len(spec.cells) == 3 * (1 + 2) * 2

    def test_without_axes_there_are_flows_and_seeds(self):
        spec = Specification.from_dict({key: value for key, value in TABLE.items() if key != "axes"})
        assert spec.grid.shape == (2, 2)
        assert spec.cells[0].variant == "base"

    def test_variants_are_an_axis_of_their_own_before_the_others(self):
        variants = {"tanh": {"model.activation": "tanh"}, "wide": {"model": {"width": 20}, "flows.descent.mobility": 2}}
        spec = Specification.from_dict(table_with(variants=variants))
        assert spec.dims == ("variant", "tau0", "step_size", "flow", "seed")
        assert spec.coords()["variant"][1].tolist() == ["tanh", "wide"]
        assert [run.label for run in spec.runs[:2]] == [
            "tanh,tau0=0.1,step_size=0.5/descent/seed-0",
            "tanh,tau0=0.1,step_size=0.5/descent/seed-3",
        ]
        assert len(spec.runs) == spec.grid.size
        cell = spec.cells[spec.grid[1, 2, 1, 1, 0]]
        assert (cell.model["width"], cell.model["init_scale"], cell.variant) == (20, 10.0, "wide,tau0=10,step_size=2.0")

    def test_variants_that_set_one_entry_have_its_values_beside_their_names(self):
        variants = {"small": {"model.init_scale": 0.1}, "large": {"model.init_scale": 10}}
        coords = Specification.from_dict({**TABLE, "axes": {}, "variants": variants}).coords()
        assert coords["init_scale"][0] == "variant"
        assert coords["init_scale"][1].tolist() == [0.1, 10.0]
        assert coords["variant"][2]["long_name"] == "model.init_scale"

    def test_a_variant_and_an_axis_that_set_the_same_entry_are_refused(self):
        variants = {"small": {"model.init_scale": 0.1}, "wide": {"model.width": 20}}
        with pytest.raises(
            ConfigError, match=r"axes\.tau0 sets model\.init_scale and a variant sets model\.init_scale"
        ):
            Specification.from_dict(table_with(variants=variants))
        axes = {"variant": {"path": "model.bias", "values": [True, False]}}
        with pytest.raises(ConfigError, match=r"axes\.variant stands beside \[variants\]"):
            Specification.from_dict(table_with(variants={"wide": {"model.width": 20}}, axes=axes))

    def test_hashes_are_those_of_single_runs_and_stay(self):
        # Written out: with other hashes every folder of an older version would be computed anew.
        assert Specification.from_dict(TABLE).hashes[:2] == ("f56e467976b81ce9", "01c37b73e55e9bf7")

    def test_the_table_is_kept_as_it_was(self):
        table = table_with()
        spec = Specification.from_dict(table)
        assert table == TABLE
        assert spec.table == TABLE

    def test_numbers_of_numpy_are_numbers(self):
        axes = {"tau0": {"path": "model.init_scale", "values": np.array([0.1, 1.0])}}
        spec = Specification.from_dict(table_with(axes=axes, seeds=np.arange(2)))
        assert spec == Specification.from_dict(tomllib.loads(to_toml(spec.to_dict())))


class TestSizes:
    SIZED = table_with(
        sizes={
            "smoke": {"problem.n_train": 4, "axes.tau0.logspace": [0.1, 10, 2], "seeds": [0]},
            "wide": {"model": {"width": 20}, "axes": {"tau0": {"values": [1.0]}}},
        }
    )

    def test_a_size_overrides_entries(self):
        spec = Specification.from_dict(self.SIZED, size="smoke")
        assert spec.grid.shape == (2, 2, 2, 1)
        assert {cell.problem["n_train"] for cell in spec.cells} == {4}
        assert "sizes" not in spec.table
        assert spec.table["size"] == "smoke"
        assert Specification.from_dict(spec.to_dict()) == spec

    def test_nested_and_dotted_are_the_same_and_none_is_the_base(self):
        assert Specification.from_dict(self.SIZED, size="wide").cells[0].model["width"] == 20
        assert Specification.from_dict(self.SIZED).hashes == Specification.from_dict(TABLE).hashes

    def test_a_size_in_the_file_is_the_default(self):
        table = {**self.SIZED, "size": "smoke"}
        assert Specification.from_dict(table) == Specification.from_dict(self.SIZED, "smoke")
        assert Specification.from_dict(table, "wide") == Specification.from_dict(self.SIZED, "wide")

    def test_zipped_axes_can_be_sized(self):
        axes = {"size_": {"values": {"problem.n_train": [5, 6], "model.width": [7, 8]}}}
        sizes = {"one": {"axes.size_.values": {"problem.n_train": [5], "model.width": [9]}}}
        (cell,) = Specification.from_dict(
            table_with(axes=axes, sizes=sizes, seeds=[0], flows={"d": {"kind": "gradient"}}), "one"
        ).cells
        assert (cell.problem["n_train"], cell.model["width"]) == (5, 9)

    @pytest.mark.parametrize(
        ("table", "size", "message"),
        [
            (SIZED, "smok", r"unknown size 'smok'; did you mean 'smoke'"),
            (TABLE, "smoke", r"size = 'smoke', but there are no \[sizes\]"),
            ({**TABLE, "sizes": {"a": 3}}, "a", r"expected a table for each: \[sizes\.NAME\]"),
            ({**TABLE, "sizes": {"a": {"sizes.b.seeds": [1]}}}, "a", r"a size cannot choose a size"),
            ({**TABLE, "variants": {"a": {"axes.tau0": 1}}}, None, r"variants\.a sets 'axes\.tau0', which is common"),
            ({**TABLE, "seeds": [1, 1]}, None, r"seeds = \[1, 1\]; expected"),
            ({**TABLE, "flows": 3}, None, r"flows = 3; expected a table"),
            ({**TABLE, "modl": {}}, None, r"unknown section 'modl'; did you mean 'model'"),
        ],
    )
    def test_what_is_wrong_is_named(self, table, size, message):
        with pytest.raises(ConfigError, match=message):
            Specification.from_dict(table, size)


class TestReading:
    def write(self, folder, table):
        file = folder / "study.toml"
        file.write_text(to_toml(table), encoding="utf-8")
        return file

    def test_size_then_overrides(self, tmp_path):
        table = {key: value for key, value in TestSizes.SIZED.items() if key != "name"}
        changes = [parse_assignment("seeds=[1,2]"), parse_assignment("axes.tau0.values=[3.0]")]
        spec = read_sweep(self.write(tmp_path, table), "smoke", changes)
        assert spec.name == "study"
        assert spec.seeds == (1, 2)
        assert spec.axes[0].coordinate == (3.0,)
        assert {cell.problem["n_train"] for cell in spec.cells} == {4}

    def test_an_override_may_change_or_choose_a_size(self, tmp_path):
        changes = [parse_assignment("size=smoke"), parse_assignment("sizes.smoke.seeds=[7]")]
        assert read_sweep(self.write(tmp_path, TestSizes.SIZED), overrides=changes).seeds == (7,)

    def test_an_override_that_an_axis_overrides_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"setting model\.init_scale has no effect, because axes\.tau0 sets it"):
            read_sweep(self.write(tmp_path, TABLE), overrides=[parse_assignment("model.init_scale=9")])

    def test_an_entry_of_a_variant_can_be_set_and_is_its_coordinate(self, tmp_path):
        variants = {"small": {"model.init_scale": 0.1}, "large": {"model.init_scale": 10.0}}
        change = [parse_assignment("variants.large.model.init_scale=20.0")]
        spec = read_sweep(self.write(tmp_path, {**TABLE, "axes": {}, "variants": variants}), overrides=change)
        assert spec.coords()["init_scale"][1].tolist() == [0.1, 20.0]
        assert {run.variant: run.model["init_scale"] for run in spec.runs} == {"small": 0.1, "large": 20.0}

    def test_errors_name_the_file(self, tmp_path):
        with pytest.raises(ConfigError, match=r"study\.toml: unknown section"):
            read_sweep(self.write(tmp_path, {**TABLE, "x": {}}))
        with pytest.raises(ConfigError, match="there is no file"):
            read_sweep(tmp_path / "other.toml")

    def test_data_files_are_relative_to_the_file_wherever_they_stand(self, tmp_path):
        axes = {"data": {"path": "problem.path", "values": ["b.csv", "c.csv"]}}
        problem = {"kind": "file", "path": "a.csv", "target": "y", "n_train": 3}
        table = table_with(
            problem=problem, axes=axes, sizes={"s": {"axes.data.values": ["d.csv"], "problem.path": "e.csv"}}
        )
        spec = read_sweep(self.write(tmp_path, table))
        assert spec.table["problem"]["path"] == str(tmp_path / "a.csv")
        assert {cell.problem["path"] for cell in spec.cells} == {str(tmp_path / "b.csv"), str(tmp_path / "c.csv")}
        sized = read_sweep(tmp_path / "study.toml", "s")
        assert {cell.problem["path"] for cell in sized.cells} == {str(tmp_path / "d.csv")}


class TestCheck:
    def test_each_table_is_made_once_and_the_first_failure_is_located(self, monkeypatch):
        made = []
        monkeypatch.setattr(RunSpec, "prepare", lambda cell: made.append(cell.label))
        spec = Specification.from_dict(TABLE)
        spec.check()
        # Three models, of which each is made with the first flow; the two settings of the other flow; no second seed.
        assert len(made) == 5
        assert all(label.endswith("seed-0") for label in made)

    def test_only_what_is_pending_is_tried(self, monkeypatch):
        made = []
        monkeypatch.setattr(RunSpec, "prepare", lambda cell: made.append(cell))
        spec = Specification.from_dict(TABLE)
        spec.check(spec.cells[-1:])
        assert made == [spec.cells[-1]]

    def test_what_cannot_be_made_is_named_with_its_cell(self):
        spec = with_axes(tau0={"path": "model.init_scale", "values": [1.0, -1.0]})
        with pytest.raises(ConfigError, match=r"in the cell tau0=-1\.0/descent/seed-0: model: .*init_scale"):
            spec.check()
