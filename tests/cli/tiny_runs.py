"""Parts of the configurations that the tests of the command line run: tiny, and in steps, so that little is compiled."""

PROBLEM_MODEL_FLOW = """\
[problem]
kind = "teacher_student"
n_train = 5
n_test = 4
input_dim = 2

[model]
kind = "mean_field"
width = 6

[flows.descent]
kind = "gradient"
"""
THREE_STEPS = """\
[integration]
method = "iterate"
step_size = 0.5
num_steps = 3
"""
