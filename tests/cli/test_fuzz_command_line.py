"""Command lines that are not what they should be: each ends with one clear line and exit code 2, or is rightly accepted."""

import contextlib
import importlib
import io
import shutil
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from oracles.odd_inputs import ODD_TEXTS, ODD_VALUES, broken_text, mutated, toml_text

from gnflow.cli import main
from gnflow.config import RunSpec

OLDER = Path(__file__).parents[1] / "fixtures" / "version_0_1_0"
RUN = """
name = "tiny"

[problem]
kind = "teacher_student"
n_train = 5
n_test = 4
input_dim = 2

[model]
kind = "mean_field"
width = 4

[flows.descent]
kind = "gradient"

[flows.newton]
kind = "gauss_newton"
damping = { kind = "constant", value = 0.1 }

[integration]
t1 = 1.0

[stop]
relative_loss = 1e-2
"""
SWEEP = f"{RUN}\n[axes.tau0]\npath = 'model.init_scale'\nvalues = [0.1, 1.0]\n[sizes.smoke]\n'model.width' = 3\n"

fuzz = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


class Begun(BaseException):
    """What would be computed, or drawn, was reached: the input was accepted."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in, with configurations and folders of each kind; nothing in it computes or draws."""
    place = tmp_path_factory.mktemp("place")
    (place / "run.toml").write_text(RUN)
    (place / "sweep.toml").write_text(SWEEP)
    for kind in ("sweep", "runs", "own_model", "users_model"):
        shutil.copytree(OLDER / kind, place / kind)
    (place / "file").write_text("a note")

    def begin(*arguments, **options):
        raise Begun

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("GNFLOW_COMPILATION_CACHE", "off")
        patch.setenv("HOME", str(place / "home"))
        patch.setattr(RunSpec, "run", begin)
        for module, name in (
            ("gnflow.sweeps._sweep", "_carry_on"),
            ("gnflow.cli._check_theorems", "verify"),
            ("gnflow.cli._draw", "draw_figures"),
            ("gnflow.cli._draw", "draw_run_figures"),
            ("gnflow.cli._compare_folders", "make_writable"),
            ("gnflow.cli._compare_folders", "by_problem"),
        ):
            patch.setattr(importlib.import_module(module), name, begin)
        yield place


def ends_clearly(arguments):
    """Whether a command line is refused with exit code 2 and one line, or by the parser; False where it is accepted."""
    errors, printed = io.StringIO(), io.StringIO()
    shutil.rmtree("new", ignore_errors=True)
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(printed):
            code = main(arguments)
    except Begun:
        return False
    except SystemExit as usage:
        return is_usage_error(usage, errors.getvalue())
    text = errors.getvalue()
    assert "Traceback" not in text, text
    if code in (0, 1):
        return False
    assert code == 2, (arguments, code)
    *before, last = text.splitlines()
    assert last.startswith("gnflow: error: "), text
    assert all(line.startswith("gnflow: ") for line in before), text
    assert len(last) < 2000
    return True


def is_usage_error(usage, text):
    """Whether the parser refused a command line, as parsers do; False for --help."""
    assert usage.code in (0, 2)
    assert "Traceback" not in text
    return usage.code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "run.toml", "--out=new"],
        ["sweep", "sweep.toml", "--out=new", "--workers=1"],
        ["plot", "sweep"],
        ["plot", "own_model"],
        ["plot", "users_model"],
        ["plot", "runs"],
        ["verify", "own_model", "--out=new"],
        ["verify", "runs", "--out=new"],
        ["compare", "runs"],
        ["compare", "own_model", "users_model", "--out=new"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("place")
def test_what_is_right_reaches_its_computation(arguments):
    assert not ends_clearly(arguments)


PLACES = (
    *("run.toml", "sweep.toml", "sweep", "runs", "own_model", "users_model", "file", "new", ".", "/", "/dev/null", ""),
    *("~", "~/x", "~nobody-here/x", "a\0b", "n" * 300, "x/" * 3000, "file/x", "\udcff", "a\nb", "-", "--", "ünï", "*"),
)
ENTRIES = (
    *("model.width", "seeds", "problem.n_train", "model.init_scale", "stop", "integration.t1", "axes.tau0.values"),
    *("flows", "name"),
)
FLAGS = (
    *("--resume", "--quiet", "--check", "--retry-failed", "--full", "--curves", "--help", "--no-quiet", "--ouch", "-q"),
)
ENGINES = ("local", "dask", "slurm", "tcp://", "tcp://nowhere:1", "tls://x", "", "spark", "\0", "x" * 300)
ENGINE_OPTIONS = (
    *("", "=", "a", "retries=-1", "retries=x", "retries=" + "9" * 30, "workers=2", "compilation_cache=[]", "a.b=1"),
    *("compilation_cache='~/c'", "compilation_cache=3", "walltime=02:00:00", "threads=0", "a=\0", "spec=1"),
)
PATHS = st.sampled_from(PLACES)
NUMBERS = st.sampled_from(
    ["0", "1", "-1", "2", "1.5", "nan", "inf", "1e400", "9" * 30, "", "two", "\u0663", "1_0", "True", "\0"]
)
ASSIGNMENTS = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.tuples(
        st.sampled_from(ENTRIES),
        st.sampled_from(ODD_VALUES).map(lambda value: toml_text({"a": value}).removeprefix('"a" = ').strip()),
    ).map("=".join),
)
OPTIONS = st.one_of(
    PATHS.map(lambda path: f"--out={path}"),
    ASSIGNMENTS.map(lambda text: f"--set={text}"),
    st.sampled_from(FLAGS),
    st.sampled_from(ENGINES).map("--engine={}".format),
    NUMBERS.map("--workers={}".format),
    NUMBERS.map("--memory={}".format),
    st.sampled_from(["smoke", "", "paper", "\0", "x" * 300]).map("--size={}".format),
    st.sampled_from(ENGINE_OPTIONS).map("--option={}".format),
    st.sampled_from(["rate", "all", "", "rates", "\0", "x" * 300]).map("--theorem={}".format),
    st.sampled_from(["descent", "newton", "", "\0", "x" * 300]).map("--only={}".format),
    st.tuples(
        st.sampled_from(["x", "y", "over", "variable", "reference"]),
        st.sampled_from(["tau0", "flow", "seed", "target", "test_loss", "descent", "", "\0", "x" * 300, "result"]),
    ).map(lambda pair: f"--{pair[0]}={pair[1]}"),
)  # fmt: skip
WORDS = ["", "run", "sweep", "plot", "--version", "--help", "\0", "-", "--", "=", "runn", "{}", "1"]
OWN_OPTIONS = {
    "run": ("--out", "--set", "--resume", "--quiet"),
    "sweep": ("--out", "--set", "--size", "--engine", "--workers", "--memory", "--option", "--check", "--retry-failed"),
    "verify": ("--out", "--theorem", "--full", "--quiet"),
    "plot": ("--x", "--y", "--over", "--variable", "--reference", "--curves"),
    "compare": ("--only", "--out"),
}


@st.composite
def command_lines(draw):
    verb = draw(st.sampled_from(["run", "run", "sweep", "sweep", "verify", "plot", "plot", "compare"]))
    right = {"run": "run.toml", "sweep": "sweep.toml", "verify": "own_model", "plot": "sweep", "compare": "runs"}[verb]
    subject = draw(st.one_of(st.just(right), st.just(right), PATHS))
    mine = OPTIONS.filter(lambda option: option.startswith(OWN_OPTIONS[verb]))
    options = draw(st.lists(st.one_of(mine, mine, mine, OPTIONS), max_size=3))
    more = draw(st.sampled_from([[], [], [], [], ["more"], [""]]))
    return [verb, subject, *(["--out=new", "--workers=1"] if verb == "sweep" else []), *options, *more]


@settings(fuzz, max_examples=220)
@given(arguments=command_lines())
@pytest.mark.usefixtures("place")
def test_odd_flags_values_and_paths(arguments):
    ends_clearly(arguments)


@settings(fuzz, max_examples=30)
@given(
    arguments=st.lists(
        st.sampled_from(["", "run", "sweep", "plot", "--version", "--help", "\0", "-", "--", "=", "runn", "{}", "1"]),
        max_size=4,
    )
)
@pytest.mark.usefixtures("place")
def test_words_in_any_order(arguments):
    ends_clearly(arguments)


FILES = {
    "runs/config.toml": "runs",
    "runs/runs/base/descent/seed-0/specification.json": "runs",
    "sweep/sweep.toml": "sweep",
    "sweep/index.jsonl": "sweep",
}


@settings(fuzz, max_examples=60)
@given(name=st.sampled_from(sorted(FILES)), data=st.data())
def test_files_in_folders_that_somebody_has_changed(place, name, data):
    file = place / name
    before = file.read_text()
    is_table = name.endswith(".toml") and data.draw(st.booleans())
    try:
        if is_table:
            changed = data.draw(mutated(tomllib.loads(before)))
            file.write_text(toml_text(changed), encoding="utf-8", errors="surrogatepass")
        else:
            file.write_bytes(data.draw(broken_text(before)))
        verb = ["run", "run.toml", "--resume", "--out=runs"] if FILES[name] == "runs" else ["plot", "sweep"]
        ends_clearly(data.draw(st.sampled_from([verb, ["plot", FILES[name]]])))
    finally:
        file.write_text(before)
        shutil.rmtree(place / "sweep" / "set_aside", ignore_errors=True)
