import csv
import importlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from facts.interrupting import interrupt_after
from tiny_runs import PROBLEM_MODEL_FLOW, THREE_STEPS

import gnflow as gn
import gnflow.cli
from gnflow.cli import main
from gnflow.config import RunSpec, Specification, read_sweep, to_toml
from gnflow.sweeps import Row, run_cell

CONFIG = (
    """
metrics = ["ntk_spectrum", "kernel_distance", "direction_distance"]

"""
    + PROBLEM_MODEL_FLOW
    + """
[flows.newton]
kind = "gauss_newton"
trainable = "output"
damping = { kind = "constant", value = 0.1 }

"""
    + THREE_STEPS
    + """
[variants.small]
"model.init_scale" = 0.1

[variants.large]
"model.init_scale" = 10.0
"""
)
LABELS = [f"{variant}/{flow}/seed-0" for variant in ("small", "large") for flow in ("descent", "newton")]
FIGURES = [
    *(
        f"{name}-{variant}.png"
        for name in ("directions", "loss", "movement", "ntk-eigenvalues")
        for variant in ("large", "small")
    ),
    "regimes.png",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return path


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def run(config, out, *more):
    return main(["run", str(config), "--out", str(out), "--quiet", *more])


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert run(config, out) == 0
    return out


class TestRun:
    def test_the_folder_holds_everything(self, folder):
        parts = ("arrays.npz", "run.json", "specification.json", "trajectory.nc")
        runs = [f"runs/{label}/{part}" for label in LABELS for part in parts]
        figures = [f"figures/{name}" for name in FIGURES]
        assert files(folder) == sorted(["config.toml", "index.jsonl", "summary.csv", *figures, *runs])

    def test_runs_are_those_of_a_script(self, folder, config):
        spec = read_sweep(config).runs[1]
        saved = gn.load(folder / "runs" / spec.label)
        expected = spec.run()
        np.testing.assert_array_equal(saved.data["train_loss"], expected.data["train_loss"])
        np.testing.assert_array_equal(saved.model.output_weight, expected.model.output_weight)
        stored = RunSpec.from_dict(json.loads((folder / "runs" / spec.label / "specification.json").read_text()))
        assert stored == spec

    def test_summary_is_the_last_state_of_every_run(self, folder):
        with (folder / "summary.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [f"{row['variant']}/{row['flow']}/seed-{row['seed']}" for row in rows] == LABELS
        for row in rows:
            last = gn.load(folder / "runs" / row["variant"] / row["flow"] / "seed-0").data.isel(step=-1)
            for name in ("train_loss", "test_loss", "kernel_distance"):
                assert float(row[name]) == float(last[name])
            assert (row["result"], row["num_steps"], row["flow_time"]) == ("num_steps_reached", "3", "1.5")

    def test_the_stored_configuration_gives_the_same_runs(self, folder, config):
        assert read_sweep(folder / "config.toml").runs == read_sweep(config).runs

    def test_a_second_run_into_the_folder_is_refused(self, folder, config, capsys):
        before = {name: (folder / name).stat().st_mtime_ns for name in files(folder)}
        assert run(config, folder) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert all(remedy in error for remedy in ("already holds a run", "--resume", "--out"))
        assert {name: (folder / name).stat().st_mtime_ns for name in files(folder)} == before

    def test_resume_with_other_settings_is_refused(self, folder, config, capsys):
        assert run(config, folder, "--resume", "--set", "model.width=7") == 2
        error = capsys.readouterr().err
        assert "holds the run large/descent/seed-0, with other settings or data files than this configuration" in error
        assert run(config, folder, "--resume", "--set", "variants={small={}}") == 2
        assert "holds the run large/descent/seed-0, which is not in this configuration" in capsys.readouterr().err

    @pytest.mark.usefixtures("undrawn")
    def test_resume_with_other_data_is_refused(self, config, tmp_path, capsys):
        place = tmp_path / "own"
        place.mkdir()
        rows = np.random.default_rng(0).normal(size=(9, 3))
        np.savez(place / "data.npz", x_train=rows[:, :2], y_train=rows[:, 2])
        own = tomllib.loads(config.read_text())
        own |= {"problem": {"kind": "file", "path": "data.npz", "n_train": 5}, "variants": {}, "metrics": []}
        own["flows"] = {"descent": {"kind": "gradient"}}
        (place / "own.toml").write_text(to_toml(own))
        assert run(place / "own.toml", tmp_path / "out") == 0
        assert run(place / "own.toml", tmp_path / "out", "--resume") == 0
        np.savez(place / "data.npz", x_train=rows[:, :2], y_train=-rows[:, 2])
        assert run(place / "own.toml", tmp_path / "out", "--resume") == 2
        assert "with other settings or data files than this configuration" in capsys.readouterr().err

    def test_resume_refuses_a_damaged_run(self, folder, config, capsys):
        file = folder / "runs" / LABELS[0] / "specification.json"
        text = file.read_text()
        file.write_text("{")
        assert run(config, folder, "--resume") == 2
        assert f"{file} is damaged" in capsys.readouterr().err
        file.write_text(text)

    @pytest.mark.usefixtures("undrawn")
    def test_resume_adds_seeds_and_keeps_what_is_there(self, folder, config, capsys):
        kept = {label: (folder / "runs" / label / "run.json").stat().st_mtime_ns for label in LABELS}
        assert run(config, folder, "--resume", "--set", "seeds=[0, 1]") == 0
        assert {label: (folder / "runs" / label / "run.json").stat().st_mtime_ns for label in LABELS} == kept
        assert tomllib.loads((folder / "config.toml").read_text())["seeds"] == [0, 1]
        assert "8 of 8 runs" in capsys.readouterr().out

    def test_plot_draws_anew(self, folder, capsys):
        for figure in (folder / "figures").iterdir():
            figure.unlink()
        assert main(["plot", str(folder)]) == 0
        assert sorted(Path(line).name for line in capsys.readouterr().out.splitlines()) == FIGURES
        assert sorted(path.name for path in (folder / "figures").iterdir()) == FIGURES

    def test_plot_of_a_single_run(self, folder, tmp_path):
        single = tmp_path / "single"
        gn.load(folder / "runs" / LABELS[0]).save(single)
        assert main(["plot", str(single)]) == 0
        assert sorted(path.name for path in (single / "figures").iterdir()) == [
            "directions.png",
            "loss.png",
            "movement.png",
            "ntk-eigenvalues.png",
        ]


@pytest.fixture
def undrawn():
    """Where figures are not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("gnflow.cli._compute"), "draw_figures", lambda *_, **__: [])
        yield


@pytest.mark.usefixtures("undrawn")
class TestTable:
    def test_columns_are_aligned(self, config, tmp_path, capsys):
        assert run(config, tmp_path / "out", "--set", "metrics=[]") == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        above, heading, names, rule, *rows = captured.out.splitlines()[:8]
        assert above == "seed 0, result num_steps_reached"
        assert heading.split() == ["flow", "train", "test", "kernel", "run", "best", "at"]
        assert names.split() == ["variant", "flow", "steps", "time", "loss", "loss", "dist.", "[s]", "test*", "time"]
        assert all(len(row) == len(rule) <= 80 for row in rows)
        assert [row.split()[:2] for row in rows] == [
            [variant, flow] for variant in ("small", "large") for flow in ("descent", "newton")
        ]
        assert all(row.split()[6] == "-" for row in rows)  # no kernel distance was measured

    def test_the_steps_of_an_optimiser_are_no_flow_time(self, config):
        adam = {"method": "iterate", "optimiser": {"kind": "adam", "learning_rate": 0.1}, "num_steps": 2}
        table = tomllib.loads(config.read_text())
        specs = (
            Specification.from_dict({**table, **more}).runs[0] for more in ({}, {"integration": adam, "metrics": []})
        )
        assert [Row.of(spec, run_cell(spec).record).flow_time for spec in specs] == [1.5, None]

    def test_progress_goes_to_standard_error(self, config, tmp_path, capsys):
        flows = 'flows={descent={kind="gradient"}}'
        arguments = ["run", str(config), "--out", str(tmp_path / "out"), "--set", "metrics=[]", "--set", flows]
        assert main(arguments) == 0
        captured = capsys.readouterr()
        assert "[1/2] small/descent/seed-0: running" in captured.err
        assert not any(text in captured.out for text in ("running", "|", "it/s"))


@pytest.mark.usefixtures("undrawn")
class TestFailure:
    def test_a_failing_run_does_not_stop_the_others(self, config, tmp_path, capsys):
        out = tmp_path / "out"
        assert run(config, out, "--set", "flows.descent.integration={step_size=1e200}", "--set", "metrics=[]") == 1
        table = capsys.readouterr().out
        assert table.count("non_finite") == 2
        assert table.count("num_steps_reached") == 2
        assert "small/descent/seed-0 failed: " in table
        # The trajectory up to the failure is kept, and a resumed run shows the failure again.
        assert gn.load(out / "runs" / LABELS[0]).result.code == gn.ResultCode.NON_FINITE
        assert run(out / "config.toml", out, "--resume") == 1

    def test_an_error_in_one_run_is_shown_and_recorded(self, config, tmp_path, capsys, monkeypatch):
        original = RunSpec.run

        def broken(spec, **options):
            if spec.flow_name == "descent":
                raise RuntimeError("out of memory") if spec.variant == "small" else gn.DataError("bad luck")
            return original(spec, **options)

        monkeypatch.setattr(RunSpec, "run", broken)
        out = tmp_path / "out"
        assert run(config, out, "--set", "metrics=[]") == 1
        captured = capsys.readouterr()
        assert "Traceback" in captured.err
        assert "gnflow: large/descent/seed-0: bad luck" in captured.err
        assert "small/descent/seed-0 failed: RuntimeError: out of memory" in captured.out
        assert "2 of 4 runs" in captured.out
        monkeypatch.undo()
        assert run(config, out, "--set", "metrics=[]", "--resume") == 0
        assert "4 of 4 runs" in capsys.readouterr().out

    def test_ctrl_c_keeps_what_is_finished(self, config, tmp_path, capsys, monkeypatch):
        original = RunSpec.run

        def interrupted(spec, **options):
            if spec.label == LABELS[2]:
                raise KeyboardInterrupt
            return original(spec, **options)

        monkeypatch.setattr(RunSpec, "run", interrupted)
        out = tmp_path / "out"
        assert run(config, out, "--set", "metrics=[]") == 130
        assert "--resume" in capsys.readouterr().err
        assert sorted(str(path.parent.relative_to(out / "runs")) for path in out.rglob("run.json")) == sorted(
            LABELS[:2]
        )
        with (out / "summary.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 2

    def test_ctrl_c_keeps_what_the_run_under_way_came_to(self, config, tmp_path, capsys, monkeypatch):
        course = importlib.import_module("gnflow.simulate._full_batch").FullBatch
        interrupt_after(monkeypatch, course, 2)
        out = tmp_path / "out"
        assert run(config, out, "--set", "metrics=[]") == 130
        assert "the run was interrupted" in capsys.readouterr().err
        (kept,) = (path.parent for path in (out / "interrupted").rglob("run.json"))
        assert gn.load(kept).result.code == gn.ResultCode.INTERRUPTED
        monkeypatch.undo()
        assert run(config, out, "--set", "metrics=[]", "--resume") == 0
        assert "4 of 4 runs" in capsys.readouterr().out

    @pytest.mark.slow
    def test_an_interrupted_integration_goes_on_where_it_stood(self, config, tmp_path, capsys, monkeypatch):
        loop = importlib.import_module("gnflow.simulate._integrate")
        for name in ("_FIRST_STEPS", "_MOST_STEPS"):
            monkeypatch.setattr(loop, name, 1)
        out = tmp_path / "out"
        settings = [
            *("--set", "metrics=[]", "--set", "variants={}", "--set", "integration={method='simulate'}"),
            *("--set", "stop.relative_loss=1e-2"),
        ]
        interrupt_after(monkeypatch, loop.Loop, 4)
        assert run(config, out, *settings) == 130
        assert [path.name for path in (out / "unfinished").rglob("*.npz")] == ["solution_1.npz"]
        assert len(list((out / "interrupted").rglob("run.json"))) == 1
        capsys.readouterr()
        steps = []

        def counted(course):
            steps.append(course.standing.num_steps)
            advance(course)

        monkeypatch.undo()
        for name in ("_FIRST_STEPS", "_MOST_STEPS"):
            monkeypatch.setattr(loop, name, 1)
        advance = loop.Loop.advance
        monkeypatch.setattr(loop.Loop, "advance", counted)
        assert run(config, out, *settings, "--resume") == 0
        assert steps[0] == 4
        assert not (out / "unfinished").exists()


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--set", "model.widht=3"], "did you mean 'width'"),
            (["--set", "model.width"], "expected path.to.key=value"),
            (["--set", "model.output_init_scale=-1"], "output_init_scale = -1.0"),
            (["--set", "problem.n_train=many"], "expected an integer"),
        ],
    )
    def test_one_clear_line_and_nothing_written(self, config, tmp_path, capsys, arguments, message):
        out = tmp_path / "out"
        assert run(config, out, *arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("gnflow: error: ")
        assert captured.err.count("\n") == 1
        assert message in captured.err
        assert captured.out == ""
        assert not out.exists()

    def test_missing_configuration(self, tmp_path, capsys):
        assert run(tmp_path / "none.toml", tmp_path / "out") == 2
        assert "there is no file" in capsys.readouterr().err

    def test_folder_of_something_else(self, config, tmp_path, capsys):
        (tmp_path / "thesis.tex").write_text("years of work")
        assert run(config, tmp_path, "--resume") == 2
        assert "holds other files" in capsys.readouterr().err
        assert run(config, tmp_path / "thesis.tex") == 2
        assert "is a file" in capsys.readouterr().err
        assert files(tmp_path) == ["thesis.tex"]

    def test_plot_of_no_run(self, tmp_path, capsys):
        assert main(["plot", str(tmp_path)]) == 2
        assert "holds no runs" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [["sweeep"], [], ["run", "--ouch"]])
    def test_unknown_verbs_and_options(self, arguments, capsys):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2

    @pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["plot", "--help"]])
    def test_help(self, arguments, capsys):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert "gnflow" in capsys.readouterr().out


class TestQuickStart:
    PATH = Path(gnflow.cli.__file__).parent / "quick_start.toml"

    def test_it_is_the_comparison_of_the_paper(self):
        specification = read_sweep(self.PATH)
        (variants,) = specification.axes
        assert variants.name == "variant"
        assert variants.beside == {"init_scale": (0.1, 1.0, 10.0)}
        assert {run.flow_name for run in specification.runs} == {"gradient_flow", "gauss_newton", "random_features"}
        assert len(specification.runs) == 9
        made = {run.flow_name: run.prepare().flow for run in specification.runs[:3]}
        assert isinstance(made["gradient_flow"], gn.flows.GradientFlow)
        assert isinstance(made["gauss_newton"], gn.flows.GaussNewtonFlow)
        assert made["random_features"].trainable == "output"

    @pytest.mark.parametrize(
        ("method", "result"),
        [
            (('integration={method="iterate", step_size=1.0, num_steps=3}', "stop={}"), "num_steps_reached"),
            pytest.param(("stop.relative_loss=0.3",), "stop_rule_met", marks=pytest.mark.slow),
        ],
        ids=["steps", "flows"],
    )
    def test_it_runs_without_a_configuration(self, method, result, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        smaller = ("problem.n_train=6", "problem.n_test=5", "model.width=8", *method)
        assert main(["run", "--quiet", *(part for text in smaller for part in ("--set", text))]) == 0
        folder = tmp_path / "gnflow-runs" / "quick_start"
        assert (folder / "figures" / "regimes.png").stat().st_size > 0
        assert len(list((folder / "figures").iterdir())) == 13
        assert f"seed 0, result {result}" in capsys.readouterr().out


def test_python_m_gnflow_turns_double_precision_on(config, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    arguments = ["run", str(config), "--out", str(tmp_path / "out")]
    for override in ('flows={descent={kind="gradient"}}', "metrics=[]", "variants={}"):
        arguments += ["--set", override]
    done = subprocess.run(
        [sys.executable, "-m", "gnflow", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "base" in done.stdout
    assert gn.load(tmp_path / "out" / "runs" / "base" / "descent" / "seed-0").data["train_loss"].dtype == np.float64
    failed = subprocess.run([sys.executable, "-m", "gnflow", "plot", str(tmp_path)], capture_output=True, check=False)
    assert failed.returncode == 2
