"""The table of `gnflow run`: narrow enough for a terminal, and what it says about directions that are, or are not, exact."""

import itertools

import pytest

from gnflow.cli._table import format_table
from gnflow.sweeps import Row
from gnflow.sweeps._cell import _direction
from gnflow.sweeps._summary import as_csv


def row(variant="base", flow="flow", seed=0, result="num_steps_reached", **changes):
    given = {"failed": False, "num_steps": 1, "train_loss": 0.5, **changes}
    return Row(variant, flow, seed, result, **given)


def full(**changes):
    """A row with something in every column, as wide as numbers come."""
    numbers = {
        "num_steps": 16384,
        "flow_time": 1.2345e-5,
        "train_loss": 1.2345e-8,
        "test_loss": 2.3456e-3,
        "kernel_distance": 8.2345e-5,
        "wall_seconds": 1234.5,
        "compile_seconds": 34.5,
    }
    return row(**{**numbers, **changes})


def widest(text):
    return max(map(len, text.splitlines()))


def test_a_small_table_has_every_column():
    heading, names, rule, line = format_table([row()]).splitlines()
    assert heading.split() == ["flow", "train", "test", "kernel", "run"]
    assert names.split() == ["variant", "flow", "seed", "result", "steps", "time", "loss", "loss", "dist.", "[s]"]
    assert line.split() == ["base", "flow", "0", "num_steps_reached", "1", "-", "5.00e-01", "-", "-", "-"]
    assert len(rule) == len(names)


def test_what_is_the_same_in_every_row_stands_above_where_there_is_no_room():
    rows = [
        full(variant=f"tau0={tau}", flow=flow) for tau in (0.1, 10) for flow in ("gradient_flow", "random_features")
    ]
    above, heading, names, rule, first, *_ = format_table(rows).splitlines()
    assert above == "seed 0, result num_steps_reached"
    assert names.split()[:2] == ["variant", "flow"]
    assert "seed" not in names
    assert first.split()[:2] == ["tau0=0.1", "gradient_flow"]
    assert widest(format_table(rows)) <= 80
    assert len(heading) <= len(names) == len(rule)


def test_rows_stand_together_where_that_is_not_enough():
    rows = [
        full(variant=variant, flow=flow, seed=seed, result=result)
        for (variant, seed), (flow, result) in itertools.product(
            itertools.product(("initialisation_scale=0.1", "b"), (0, 1)),
            (("random_features", "stop_rule_met_at_start"), ("gauss_newton", "stationary")),
        )
    ]
    text = format_table(rows)
    assert "variant initialisation_scale=0.1, seed 1" in text.splitlines()
    assert text.count("variant b, seed 0") == 1
    assert text.count("rand~ures") == 4  # beside the longest of all result codes
    assert widest(text) <= 80


@pytest.mark.parametrize("name", ["n" * 200, "a" * 40])
def test_long_names_of_flows_are_cut(name):
    text = format_table([full(flow=name, result="time_reached"), full(flow="b", result="stationary")])
    assert widest(text) <= 80
    assert f"{name[:7]}" in text
    assert f"~{name[-7:]}" in text
    assert name not in text


def test_the_numbers_are_those_of_the_progress_bar():
    assert all(text in format_table([full()]) for text in (" 1.23e-05 ", " 1.23e-08 ", " 16384 "))


def test_compiling_is_told_below():
    text = format_table([full(), full(seed=1)])
    assert "compiling took 69.0 s more" in text.splitlines()
    assert " 1200.0" in text
    assert "compiling" not in format_table([row()])


def test_failures_are_told_below():
    text = format_table([row(failed=True, message="the loss is not finite"), row(seed=1)])
    assert "base/flow/seed-0 failed: the loss is not finite" in text.splitlines()


def test_a_truncated_direction_is_never_called_exact():
    assert _direction({"final_truncated": True, "final_relative_residual": 0.52}) == "truncated, residual 5.2e-01"
    assert _direction({"final_truncated": False, "final_relative_residual": 1e-15}) == "exact"
    assert _direction({"final_relative_residual": 1e-15}) is None


def test_directions_are_told_where_a_flow_claims_to_be_exact():
    assert "last direction" not in format_table([row()])
    text = format_table([row(direction="exact"), row(seed=1), row(seed=2, direction="truncated, residual 5.2e-01")])
    assert "last direction exact in 1 of 3 runs" in text.splitlines()
    assert "base/flow/seed-2: last direction truncated, residual 5.2e-01" in text.splitlines()


def test_flows_that_damping_makes_gradient_flow_are_named():
    """Where they were so all along every run."""
    near = [row(distance_to_gradient_flow=distance, seed=seed) for seed, distance in enumerate((0.02, 0.0312))]
    far = [row(flow="far", distance_to_gradient_flow=distance, seed=seed) for seed, distance in enumerate((0.02, 0.3))]
    lines = format_table([*near, *far, row(flow="gradient")]).splitlines()
    assert lines[-1] == "base/flow is gradient flow on the clock of its damping, to 3.1%"
    assert not [line for line in lines if "clock" in line][1:]
    many = format_table([row(flow=str(number), distance_to_gradient_flow=0.0) for number in range(6)])
    assert many.splitlines()[-1] == "... and 2 more"
    assert "clock" not in format_table(far)


def test_runs_of_equal_content_are_compiled_once_and_named():
    rows = [full(variant=variant, content_hash=key) for variant, key in (("a", "x"), ("b", "x"), ("c", "y"))]
    text = format_table(rows)
    assert "compiling took 69.0 s more" in text
    assert text.splitlines()[-1] == "b/flow has the runs of a/flow, and no folder of its own"
    many = format_table([full(variant=str(number), content_hash="x") for number in range(8)])
    assert many.splitlines()[-2:] == [
        "4/flow has the runs of 0/flow, and no folder of its own",
        "... and 3 more",
    ]


def test_the_lowest_test_loss_is_told_as_selected_on_the_test_set():
    best = {"best_test_loss": 0.2751, "best_test_loss_time": 12.34}
    text = format_table([row(**best), row(flow="other")])
    above, heading, names, _, first, second, *_ = text.splitlines()
    assert above == "variant base, seed 0, result num_steps_reached"
    assert (heading.split()[-2:], names.split()[-2:]) == (["best", "at"], ["test*", "time"])
    assert first.split()[-2:] == ["2.75e-01", "12.3"]
    assert second.split()[-2:] == ["-", "-"]
    assert "* lowest test loss along the run: selected on the test set" in text.splitlines()


def test_beside_validation_data_the_lowest_test_loss_is_not_shown():
    best = {"best_test_loss": 0.1, "best_test_loss_time": 3.0, "best_validation_loss": 0.4}
    text = format_table([row(**best, best_validation_loss_time=56.7, test_loss_at_best_validation=0.3)])
    _, heading, names, _, line = text.splitlines()
    assert (heading.split()[-3:], names.split()[-3:]) == (["best", "at", "test"], ["valid.", "time", "there"])
    assert line.split()[-3:] == ["4.00e-01", "56.7", "3.00e-01"]
    assert "*" not in text


def test_the_best_losses_have_a_table_of_their_own_where_there_is_no_room():
    best = {"best_validation_loss": 1e-3, "best_validation_loss_time": 1.2345e-5, "test_loss_at_best_validation": 2e-3}
    rows = [
        full(variant=f"tau0={tau}", flow=flow, seed=seed, result=result, **best)
        for tau, (flow, result) in itertools.product((0.1, 10), (("gradient", "stationary"), ("newton", "diverged")))
        for seed in (0, 1)
    ]
    text = format_table(rows)
    assert widest(text) <= 80
    second = text.split("\n\n")[1].splitlines()
    assert second[1].split() == ["variant", "flow", "seed", "valid.", "time", "there"]
    assert second[-1].split() == ["tau0=10", "newton", "1", "1.00e-03", "1.23e-05", "2.00e-03"]


def test_error_functionals_of_residual_problems_are_shown():
    errors = {"relative_l2": 1.234e-5, "diffusivity": 0.25}
    _, heading, names, _, line = format_table([row(errors=errors)]).splitlines()
    assert heading.split() == [
        "flow",
        "train",
        "relative",
        "run",
    ]  # neither test loss nor kernel distance were measured
    assert names.split()[-5:] == ["time", "loss", "l2", "diffusivity", "[s]"]
    assert line.split()[-3:-1] == ["1.23e-05", "2.50e-01"]
    many = {f"a_rather_long_error_{number}": 0.1 * number for number in range(6)}
    lines = format_table([full(errors=many, seed=seed) for seed in (0, 1)]).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(cell == "5.00e-01" for one in lines for cell in one.split()) == 2


def test_the_summary_has_error_functionals_under_names_that_are_free():
    header, first, second = as_csv([row(errors={"relative_l2": 1e-5, "seed": 3.0}), row()]).decode().splitlines()
    with_errors = dict(zip(header.split(","), first.split(","), strict=True))
    assert (with_errors["relative_l2"], with_errors["final_seed"], with_errors["seed"]) == ("1e-05", "3.0", "0")
    assert "errors" not in with_errors
    assert dict(zip(header.split(","), second.split(","), strict=True))["relative_l2"] == ""
