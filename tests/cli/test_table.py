"""The table of `gnflow run`: what it says about directions that are, or are not, exact."""

from gnflow.cli._table import Row, _direction, format_table


def row(**changes):
    return Row("base", "flow", 0, "num_steps_reached", failed=False, num_steps=1, train_loss=0.5, **changes)


def test_a_truncated_direction_is_never_called_exact():
    assert _direction({"final_truncated": True, "final_relative_residual": 0.52}) == "truncated, residual 5.2e-01"
    assert _direction({"final_truncated": False, "final_relative_residual": 1e-15}) == "exact"
    assert _direction({"final_relative_residual": 1e-15}) is None


def test_the_column_is_there_where_a_flow_claims_to_be_exact():
    assert "last direction" not in format_table([row()])
    both = format_table([row(direction="exact"), row()]).splitlines()
    assert both[0].index("last direction") == both[2].index("exact")
    assert "  -" in both[3]
