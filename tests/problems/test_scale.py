"""Raw data of a large scale: a warning that names the option, and none of ordinary data."""

import os
import re
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes

import gnflow as gn

X, Y = (np.asarray(a) for a in load_diabetes(return_X_y=True, scaled=False))
OWN = gn.losses.from_function(lambda f, y: jnp.mean(jnp.sum((f - y) ** 4, axis=1)), minimum=0.0)
SMALL = np.random.default_rng(0).standard_normal((20, 2))


def warned(*arguments, **options):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gn.Problem(*arguments, **options)
    assert all(one.category is gn.DataWarning and one.filename == __file__ for one in told)
    return [str(one.message) for one in told]


@pytest.mark.slow
def test_raw_measurements_and_targets():
    (text,) = warned(X, Y)
    assert re.search(r"columns of x have a root mean square of \S+ to 1.9e\+02", text)
    assert "the columns of y have a root mean square of 1.7e+02" in text
    assert "standardise x and y, with standardise=True in gnflow.Problem" in text
    assert "standardise = true under [problem]" in text
    assert warned(X, Y, standardise=True) == []


@pytest.mark.parametrize(
    ("x", "y", "loss", "remedy"),
    [
        (SMALL, 152 + 77 * SMALL[:, 0], gn.losses.SquaredLoss(), "standardise y, with standardise=True"),
        (SMALL, 152 + 77 * SMALL[:, 0], OWN, r'standardise y, with standardise="targets" .* if the loss allows'),
        (
            SMALL + np.array([0.0, 50.0]),
            SMALL,
            gn.losses.SquaredLoss(),
            "column 1 of x has a mean .* standardise x, with",
        ),
        (1e3 * SMALL, np.arange(20) % 2, gn.losses.SoftmaxCrossEntropy(), "standardise x, with"),
        (1e3 * SMALL, 1e3 * SMALL, OWN, 'standardise x and y, with standardise="both"'),
    ],
)
def test_what_is_large_is_named(x, y, loss, remedy):
    (text,) = warned(x, y, loss=loss)
    assert re.search(remedy, text)
    option = re.search(r"standardise=(True|\"\w+\")", text)
    assert option is not None
    assert warned(x, y, loss=loss, standardise={"True": True}.get(option[1], option[1].strip('"'))) == []


@pytest.mark.parametrize(
    ("x", "y", "standardise", "option"),
    [
        (1e3 * SMALL, 1e3 * SMALL, "inputs", "both"),
        (SMALL, 1e3 * SMALL, "inputs", "both"),
        (1e3 * SMALL, 1e3 * SMALL, "targets", "both"),
    ],
)
def test_what_is_standardised_stays_so_with_what_is_advised(x, y, standardise, option):
    (text,) = warned(x, y, loss=OWN, standardise=standardise)
    assert f'standardise="{option}"' in text
    assert f'standardise = "{option}"' in text


def test_ordinary_data_and_what_jax_traces_pass_in_silence():
    images = np.random.default_rng(1).random((30, 64)) * (np.arange(64) > 3)
    for x in (SMALL, 30 * SMALL, 1e-4 * SMALL, np.column_stack([SMALL, np.ones(20)]), images, pd.DataFrame(SMALL)):
        assert warned(x, np.zeros(len(x))) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(lambda x: gn.Problem(x, jnp.zeros(20)).x_train)(1e4 * SMALL)


def test_the_command_line_says_it_once_in_one_line(tmp_path):
    pd.DataFrame(X[:9]).add_prefix("a").assign(y=Y[:9]).to_csv(tmp_path / "raw.csv", index=False)
    (tmp_path / "raw.toml").write_text(
        "seeds = [0, 1, 2]\n[problem]\nkind = 'file'\npath = 'raw.csv'\ntarget = 'y'\nn_train = 6\n"
        "[model]\nkind = 'mean_field'\nwidth = 4\n[flows.descent]\nkind = 'gradient'\n"
        "[integration]\nmethod = 'iterate'\nstep_size = 1e-9\nnum_steps = 1\n"
    )
    command = [sys.executable, "-m", "gnflow", "sweep", "raw.toml", "--out", "runs", "--quiet", "--engine", "serial"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "warning" in line.lower()]
    assert len(told) == 1
    assert told[0].startswith("gnflow: warning: ")
    assert "standardise = true under [problem]" in told[0]
