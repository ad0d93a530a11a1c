"""A small sweep, and outcomes of its cells that cost nothing to make."""

import copy
import tomllib

from gnflow._core import Result, ResultCode
from gnflow.config import Specification
from gnflow.simulate import Trajectory
from gnflow.sweeps._cell import outcome_of

TABLE = tomllib.loads("""
name = "small"
seeds = [0, 3]
metrics = ["kernel_distance", "full_ntk_spectrum"]

[problem]
kind = "teacher_student"
n_train = 6
n_test = 5
input_dim = 3

[model]
kind = "mean_field"
width = 8

[flows.descent]
kind = "gradient"

[flows.newton]
kind = "gauss_newton"

[integration]
method = "iterate"
step_size = 1.0
num_steps = 3

[axes.tau0]
path = "model.init_scale"
values = [0.1, 1, 10]
label = "initialisation scale"

[axes.step_size]
path = "flows.newton.integration.step_size"
values = [0.5, 2.0]
units = "flow time"
""")


def table_with(**sections):
    return {**copy.deepcopy(TABLE), **sections}


def with_axes(**axes):
    return Specification.from_dict(table_with(axes=axes))


def outcome_like(cell, trajectory, code=ResultCode.NUM_STEPS_REACHED, losses=None):
    """What `cell` would have kept, had it run like `trajectory`, with another end and other training losses."""
    data = trajectory.data if losses is None else trajectory.data.assign(train_loss=("step", losses))
    result = Result(code, f"ended with {code}", 3.0)
    made = Trajectory(**{**vars(trajectory), "data": data, "result": result})
    return outcome_of(cell, made, wall_seconds=0.5)
