"""The documentation holds: its examples run, its configurations are valid, its references lead somewhere."""

import contextlib
import io
import re
import tomllib
from pathlib import Path

import pytest

from gnflow.cli import main
from gnflow.config import Specification, read_toml
from gnflow.flows import flow_kinds
from gnflow.geometry import output_metrics
from gnflow.geometry.damping import damping_kinds
from gnflow.geometry.directions import direction_solver_kinds
from gnflow.losses import loss_kinds
from gnflow.metrics import metric_kinds
from gnflow.models import model_kinds
from gnflow.optimisers import optimiser_kinds
from gnflow.problems import problem_kinds
from gnflow.simulate import error_norm_kinds, stop_kinds
from gnflow.solvers import solver_kinds

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    return [code for info, code in FENCE.findall(PAGES[page]) if info == language]


def pages_with(language):
    return [page for page in PAGES if blocks(page, language)]


@pytest.mark.slow  # each has programs of its own; the next test runs one page
@pytest.mark.parametrize("page", pages_with("python"))
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    for number, code in enumerate(blocks(page, "python")):
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, f"{page}, example {number}", "exec"), names)


def test_the_examples_end_as_the_text_says(tmp_path, monkeypatch):
    # time_units.md: one undamped step of length h multiplies the squared residual by (1 - h/N)^2.
    monkeypatch.chdir(tmp_path)
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec("\n".join(blocks("docs/time_units.md", "python")), names)
    assert names["ratio"] == pytest.approx((1 - 2.0 / 20) ** 2, rel=0.01)


@pytest.mark.parametrize("page", pages_with("toml"))
def test_configurations_are_valid(page):
    quick_start = read_toml(ROOT / "gnflow" / "cli" / "quick_start.toml")
    for code in blocks(page, "toml"):
        # A fragment stands for the quick start with these sections replaced.
        table = {**quick_start, **tomllib.loads(code)}
        if "axes" in table:
            table = {key: section for key, section in table.items() if key != "variants"}
        if "model_seeds" in table:
            table.pop("seeds")
        for size in (None, *table.get("sizes", ())):
            assert Specification.from_dict(table, size).cells


def test_every_name_of_a_configuration_is_documented():
    known = [
        *(problem_kinds, model_kinds, flow_kinds, loss_kinds, damping_kinds, direction_solver_kinds),
        *(output_metrics, metric_kinds, solver_kinds, error_norm_kinds, stop_kinds, optimiser_kinds),
    ]
    page = PAGES["docs/cli.md"]
    # What a configuration calls `trainable` is the flow kind "frozen" of the library, `scale_velocity` and `scale_metric` are
    # "scaled"; `weight_decay` is an option, too.
    names = {name for kinds in known for name in kinds} - {"frozen", "scaled"}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_every_option_in_the_page_of_the_command_line_exists(capsys):
    for verb in ([], ["run"], ["verify"], ["sweep"], ["plot"], ["compare"]):
        with pytest.raises(SystemExit):
            main([*verb, "--help"])
    accepted = set(re.findall(r"--[a-z-]*[a-z]", capsys.readouterr().out))
    documented = set(re.findall(r"--[a-z-]*[a-z]", PAGES["docs/cli.md"]))
    assert documented == accepted


def anchors(text):
    """The ids that MkDocs gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", PAGES[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), f"{page} links to {target}, which is no file"
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), (
            f"{page} links to {target}, no heading"
        )


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    assert [page for page in pages if f": {page}\n" not in menu] == []


def test_references_from_the_code_lead_somewhere():
    theory = PAGES["docs/theory.md"]
    found = 0
    for file in sorted((ROOT / "gnflow").rglob("*.py")):
        code = re.sub(r"\s+", " ", file.read_text(encoding="utf-8"))
        for page, section in re.findall(r"(docs/[\w/]+\.md)(?:, (\w+))?", code):
            found += 1
            assert page in PAGES, f"{file} refers to {page}, which does not exist"
            # The first word of a heading stands for the whole.
            headings = {anchor.partition("-")[0] for anchor in anchors(PAGES[page])}
            heading = section.lower() if section and section[0].isupper() else None
            assert heading is None or heading in headings, f"{file} refers to {section} of {page}"
        for fact in re.findall(r"fact (\d) of docs/theory.md", code):
            assert f"\n{fact}. **" in theory, f"{file} refers to fact {fact}"
    assert found > 5


def test_the_table_of_contributing_names_what_exists():
    rows = [line for line in PAGES["CONTRIBUTING.md"].splitlines() if line.startswith("| ")]
    paths = {path for row in rows for path in re.findall(r"`((?:gnflow|tests|docs|experiments)/[\w/.]*)`", row)}
    missing = [path for path in sorted(paths) if "_my_" not in path and not (ROOT / path).exists()]
    assert len(paths) > 20
    assert missing == []
    assert [path for path in paths if not (ROOT / path).parent.is_dir()] == []


def public_names(package):
    """What the `__init__` of a package defines or re-exports as `X as X`, but for subpackages and tables of names."""
    text = (ROOT / "gnflow" / package / "__init__.py").read_text(encoding="utf-8")
    exported = {name for name, again in re.findall(r"\b(\w+) as (\w+)\b", text) if name == again}
    names = exported | set(re.findall(r"^def (\w+)", text, re.MULTILINE))
    return {name for name in names if not name.endswith(("_kinds", "_names", "_metrics")) and name not in _NOT_NAMES}


_NOT_NAMES = (
    "__dir__",
    "__getattr__",
    "config",
    "damping",
    "directions",
    "dual",
    "flows",
    "geometry",
    "losses",
    "metrics",
    "models",
    "optimisers",
    "plots",
    "problems",
    "regimes",
    "solvers",
    "sweeps",
    "theory",
    "Override",
)


@pytest.mark.parametrize(
    ("package", "page", "elsewhere"),
    [
        *(
            (name, name, set())
            for name in (
                "losses",
                "models",
                "flows",
                "metrics",
                "solvers",
                "optimisers",
                "theory",
                "plots",
                "regimes",
            )
        ),
        ("config", "config", {"read_sweep"}),
        ("sweeps", "sweeps", {"sweep", "load"}),
        ("problems", "problems", {"Problem", "ResidualProblem", "ResidualTerm"}),
        ("geometry", "geometry", {"System", "Direction", "SolveDiagnostics"}),
        ("geometry/damping", "damping", set()),
        ("geometry/directions", "directions", set()),
        ("geometry/dual", "dual", set()),
    ],
)
def test_every_public_name_has_its_place_in_the_reference(package, page, elsewhere):
    shown = set(re.findall(r"^ +- (\w+)$", PAGES[f"docs/api/{page}.md"], re.MULTILINE))
    assert public_names(package) - elsewhere == shown


def test_every_name_of_the_package_itself_is_in_the_reference():
    shown = set(re.findall(r"^::: gnflow(?:\.simulate)?\.(\w+)$", PAGES["docs/api/gnflow.md"], re.MULTILINE))
    assert public_names("") == shown
