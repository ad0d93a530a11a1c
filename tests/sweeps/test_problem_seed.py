"""Sweeps whose problem stays while the model's seed varies."""

import json
import tomllib

import jax
import numpy as np
import pytest
from grids import TABLE, table_with

import gnflow as gn
from gnflow import ConfigError
from gnflow.config import RunSpec, Specification, parse_assignment, read_sweep, to_toml

UNSEEDED = {key: value for key, value in TABLE.items() if key != "seeds"}
PLAIN = {**UNSEEDED, "axes": {}, "flows": {"descent": {"kind": "gradient"}}, "metrics": []}


def arrays(made):
    return jax.tree.leaves((made.problem.x_train, made.problem.y_train, made.problem.x_test))


def test_the_problem_stays_and_the_model_varies():
    spec = Specification.from_dict({**PLAIN, "problem_seed": 7, "model_seeds": [0, 1, 7]})
    assert spec.seeds == (0, 1, 7)
    made = [cell.prepare() for cell in spec.cells]
    of_seeds = [cell.prepare() for cell in Specification.from_dict({**PLAIN, "seeds": [0, 1, 7]}).cells]
    for one, own in zip(made, of_seeds, strict=True):
        for found, expected in zip(arrays(one), arrays(of_seeds[2]), strict=True):
            np.testing.assert_array_equal(found, expected)
        for found, expected in zip(jax.tree.leaves(one.model), jax.tree.leaves(own.model), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(made[0].model.hidden_weight, made[1].model.hidden_weight)
    assert not np.array_equal(of_seeds[0].problem.x_train, of_seeds[1].problem.x_train)


def test_a_run_with_equal_seeds_is_the_run_without_the_entry():
    # Of the same content, so that folders of either share it and folders of older versions go on.
    spec = Specification.from_dict({**PLAIN, "problem_seed": 3, "model_seeds": [0, 3]})
    plain = Specification.from_dict({**PLAIN, "seeds": [0, 3]})
    assert spec.hashes[1] == plain.hashes[1]
    assert spec.hashes[0] != plain.hashes[0]
    assert "problem_seed" not in spec.cells[1].to_dict()
    assert spec.cells[1] == plain.cells[1]


def test_the_seed_of_the_problem_is_0_unless_it_is_given():
    assert {cell.problem_seed for cell in Specification.from_dict({**PLAIN, "model_seeds": [1, 2]}).cells} == {0}
    varied = Specification.from_dict({**PLAIN, "seeds": [1, 2]})
    assert {cell.problem_seed for cell in varied.cells} == {None}


def test_seeds_beside_a_seed_of_the_problem_are_those_of_the_model():
    stated = Specification.from_dict({**PLAIN, "problem_seed": 4, "model_seeds": [0, 1]})
    assert Specification.from_dict({**PLAIN, "problem_seed": 4, "seeds": [0, 1]}).hashes == stated.hashes


def test_several_problems_are_an_axis():
    axes = {"draw": {"path": "problem_seed", "values": [5, 6]}}
    spec = Specification.from_dict({**PLAIN, "model_seeds": [0, 1], "axes": axes})
    assert spec.dims == ("draw", "flow", "seed")
    assert [(cell.problem_seed, cell.seed) for cell in spec.cells] == [(5, 0), (5, 1), (6, 0), (6, 1)]


def test_the_file_and_the_tables_of_runs_keep_it(tmp_path):
    spec = Specification.from_dict({**PLAIN, "problem_seed": 2, "model_seeds": [0, 1]})
    assert Specification.from_dict(tomllib.loads(to_toml(spec.to_dict()))) == spec
    for cell in spec.cells:
        assert RunSpec.from_dict(json.loads(json.dumps(cell.to_dict()))) == cell
    file = tmp_path / "study.toml"
    file.write_text(to_toml({**PLAIN, "seeds": [8]}), encoding="utf-8")
    changes = [parse_assignment("problem_seed=2"), parse_assignment("model_seeds=[0,1]")]
    assert read_sweep(file, overrides=changes).hashes == spec.hashes


def test_a_sweep_and_its_folder(tmp_path):
    spec = {**PLAIN, "problem_seed": 5, "model_seeds": [0, 1]}
    data = gn.sweep(spec, tmp_path / "kept", keep_trajectories=True)
    runs = [gn.load(tmp_path / "kept" / "runs" / "base" / "descent" / f"seed-{seed}") for seed in (0, 1)]
    np.testing.assert_array_equal(runs[0].problem.x_train, runs[1].problem.x_train)
    assert data.train_loss[0, 0] != data.train_loss[0, 1]
    again = gn.load(tmp_path / "kept")
    np.testing.assert_array_equal(again.train_loss, data.train_loss)
    with pytest.raises(gn.RunFolderError, match="other settings"):
        gn.sweep({**spec, "problem_seed": 6}, tmp_path / "kept", keep_trajectories=True)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"problem_seed": -1}, r"problem_seed = -1; expected an integer of at least 0"),
        ({"problem_seed": 1.5}, r"problem_seed = 1\.5 is a number; expected an integer"),
        ({"problem_seed": [1]}, r"problem_seed = \[1\].*expected an integer"),
        ({"problem_seed": True}, r"problem_seed = True.*expected an integer"),
        ({"model_seeds": []}, r"model_seeds = \[\]; expected at least one integer"),
        ({"model_seeds": [1, 1]}, r"model_seeds = \[1, 1\]; expected"),
        ({"model_seeds": [0], "seeds": [0]}, r"seeds and model_seeds are both given; write model_seeds, if"),
        ({"problem_sed": 1}, r"unknown section 'problem_sed'; did you mean 'problem_seed'"),
        ({"axes": {"s": {"path": "model_seeds", "values": [1, 2]}}}, r"axes\.s sets 'model_seeds', which is common"),
        ({"variants": {"a": {"model_seeds": [1]}}}, r"variants\.a sets 'model_seeds', which is common"),
    ],
)
def test_what_is_wrong_is_named(entries, message):
    with pytest.raises(ConfigError, match=message):
        Specification.from_dict({**PLAIN, **entries})


def test_a_table_of_a_run_with_a_seed_of_another_type_is_refused():
    (cell,) = Specification.from_dict({**PLAIN, "model_seeds": [1]}).cells
    with pytest.raises(ConfigError, match="problem_seed = 'x' in the table of a run is of the wrong type"):
        RunSpec.from_dict({**cell.to_dict(), "problem_seed": "x"})


def test_a_sweep_over_seeds_has_no_such_entry():
    for cell in Specification.from_dict(table_with()).cells:
        assert "problem_seed" not in cell.to_dict()
