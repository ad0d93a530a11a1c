"""Specifications that are not what they should be: each is refused with one clear line, or rightly accepted."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from oracles.odd_inputs import ODD_TEXTS, ODD_VALUES, broken_text, mutated, toml_text

from gnflow import GnflowError
from gnflow.config import parse_assignment, read_sweep

ROOT = Path(__file__).parents[2]
SMALL = {
    "n_train": 5,
    "n_test": 4,
    "input_dim": 3,
    "teacher_width": 2,
    "width": 4,
    "depth": 2,
    "num_blocks": 2,
    "bottleneck": 3,
}
LONGEST_MESSAGE = 2000

fuzz = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def small(path):
    """A specification of the repository, made small."""
    table = tomllib.loads(path.read_text())
    for section in ("problem", "model"):
        # The width of a reversible network is that of the data.
        kept = {"width"} if table[section]["kind"] == "reversible" else set()
        table[section] = {k: value if k in kept else SMALL.get(k, value) for k, value in table[section].items()}
    if table["problem"]["kind"] == "teacher_student":
        table["problem"].setdefault("n_test", 4)
    if "batch_size" in table.get("integration", {}):
        table["integration"]["batch_size"] = 2
    table["variants"] = dict(list(table.get("variants", {}).items())[:1])
    if "axes" in table:
        del table["variants"]
        table.pop("sizes", None)
        for axis in table["axes"].values():
            if isinstance(axis.get("values"), list):
                axis["values"] = axis["values"][:2]
    return {**table, "seeds": [0]}


FILES = [ROOT / "gnflow" / "cli" / "quick_start.toml", *sorted(ROOT.glob("experiments/*/*.toml"))]
TABLES = [small(file) for file in FILES if "problem" in tomllib.loads(file.read_text())]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "mutant.toml"


def read(file):
    """Up to the first thing that would be computed: objects are made, and no run is begun."""
    read_sweep(file).cells[0].prepare()


def is_refused_clearly(action):
    """Whether `action` raises an error of gnflow's own of one line; False where it succeeds. Another error is the test's."""
    try:
        action()
    except GnflowError as error:
        message = str(error)
        assert message, "an error without words"
        assert "\n" not in message, message
        assert len(message) <= LONGEST_MESSAGE, message
        return True
    return False


def test_the_tables_that_are_mutated_are_accepted(place):
    accepted = []
    for table in TABLES:
        place.write_text(toml_text(table))
        accepted.append(not is_refused_clearly(lambda: read(place)))
    elsewhere = sum(table["problem"]["kind"] in ("mnist", "cifar10") for table in TABLES)  # files not in the repository
    assert sum(accepted) >= len(TABLES) - elsewhere


@settings(fuzz, max_examples=160)
@given(table=st.sampled_from(TABLES).flatmap(mutated))
def test_entries_of_other_types_and_names(place, table):
    place.write_text(toml_text(table), encoding="utf-8", errors="surrogatepass")
    is_refused_clearly(lambda: read(place))


@settings(fuzz, max_examples=80)
@given(content=st.sampled_from(FILES).map(lambda file: file.read_text()).flatmap(broken_text))
def test_files_that_are_cut_or_filled(place, content):
    place.write_bytes(content)
    is_refused_clearly(lambda: read_sweep(place))


@settings(fuzz, max_examples=60)
@given(
    text=st.one_of(
        st.sampled_from(ODD_TEXTS),
        st.sampled_from(ODD_VALUES).map(lambda value: toml_text({"model.width": value}).replace('"', "", 2).strip()),
        st.text("model.widthseeds=[]{}\"'#\\ \n0123e", max_size=30),
        st.text(max_size=12).map(lambda text: f"{text}={text}"),
    )
)
def test_assignments(text):
    is_refused_clearly(lambda: parse_assignment(text))
