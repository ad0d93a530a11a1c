import copy
import dataclasses
import json
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

import gnflow as gn
from gnflow import ConfigError
from gnflow._core import stream
from gnflow.config import RunSpec, Specification, read_sweep, to_toml
from gnflow.config._overrides import apply_overrides, parse_assignment

TABLE = tomllib.loads("""
name = "small"
seeds = [0, 3]
metrics = ["kernel_distance", { kind = "direction_distance", reference = "teacher" }]

[problem]
kind = "teacher_student"
n_train = 6
n_test = 5
input_dim = 3

[model]
kind = "mean_field"
width = 8
init_scale = 1

[flows.descent]
kind = "gradient"
mobility = 2
integration = { method = "iterate", step_size = 1, num_steps = 2 }

[flows.newton]
kind = "gauss_newton"
metric = "hessian"
damping = { kind = "smallest_eigenvalue", floor = 1e-7 }
solver = "cholesky"
stop = { gradient_norm = 1e-3 }

[flows.features]
kind = "spectral"
power = 1
trainable = "output"
integration = { t1 = 2 }

[integration]
rtol = 1e-3
saveat = [1, 2]

[stop]
relative_loss = 0.5
""")


def changed(*assignments):
    return apply_overrides(TABLE, [parse_assignment(text) for text in assignments])


def without(*path):
    table = copy.deepcopy(TABLE)
    inner = table
    for part in path[:-1]:
        inner = inner[part]
    del inner[path[-1]]
    return table


def run_of(table, flow="newton"):
    return next(run for run in Specification.from_dict(table).runs if run.flow_name == flow)


class TestReading:
    def test_runs_are_variants_times_flows_times_seeds(self):
        table = {**TABLE, "variants": {"a": {"model.init_scale": 0.1}, "b": {"model": {"width": 9}}}}
        runs = Specification.from_dict(table).runs
        assert [run.label for run in runs[:3]] == ["a/descent/seed-0", "a/descent/seed-3", "a/newton/seed-0"]
        assert len(runs) == 2 * 3 * 2
        assert {run.variant: (run.model["init_scale"], run.model["width"]) for run in runs} == {
            "a": (0.1, 8),
            "b": (1.0, 9),
        }

    def test_round_trip_through_toml(self):
        table = {**TABLE, "variants": {"a": {"model.init_scale": 0.1}, "b": {"flows.newton.damping": "constant"}}}
        table["variants"]["b"]["flows.newton.damping"] = {"kind": "constant", "value": 1}
        specification = Specification.from_dict(table)
        again = Specification.from_dict(tomllib.loads(to_toml(specification.to_dict())))
        assert again == specification

    def test_run_round_trip_through_json(self):
        for run in Specification.from_dict(TABLE).runs:
            assert RunSpec.from_dict(json.loads(json.dumps(run.to_dict()))) == run

    @pytest.mark.parametrize("change", [{"extra": 1}, {"seed": None}])
    def test_a_run_with_other_entries_is_refused(self, change):
        table = {**run_of(TABLE).to_dict(), **change}
        table = {key: value for key, value in table.items() if value is not None or key == "stop"}
        with pytest.raises(ConfigError, match="a run has the entries"):
            RunSpec.from_dict(table)

    def test_name_is_that_of_the_file_unless_given(self, tmp_path):
        path = tmp_path / "study.toml"
        path.write_text(to_toml(without("name")))
        assert read_sweep(path).name == "study"
        assert read_sweep(path, overrides=[parse_assignment("name=other")]).name == "other"

    def test_data_files_are_relative_to_the_configuration(self, tmp_path):
        table = {**without("metrics"), "problem": {"kind": "file", "path": "data/a.csv", "target": "y"}}
        table["variants"] = {"a": {}, "b": {"problem.path": "b.csv"}, "c": {"problem": {"path": "c.csv"}}}
        path = tmp_path / "study.toml"
        path.write_text(to_toml(table))
        paths = {run.variant: run.problem["path"] for run in read_sweep(path).runs}
        assert paths == {"a": str(tmp_path / "data/a.csv"), "b": str(tmp_path / "b.csv"), "c": str(tmp_path / "c.csv")}
        override = [parse_assignment("problem.path=here.csv")]
        assert read_sweep(path, overrides=override).runs[0].problem["path"] == str(Path("here.csv").resolve())

    def test_errors_name_the_file(self, tmp_path):
        path = tmp_path / "study.toml"
        path.write_text(to_toml(changed("model.widht=3")))
        with pytest.raises(ConfigError, match=r"study\.toml: model: unknown option 'widht'.*did you mean 'width'"):
            read_sweep(path)

    def test_an_override_that_every_variant_overrides_is_refused(self, tmp_path):
        path = tmp_path / "study.toml"
        path.write_text(to_toml({**TABLE, "variants": {"a": {"model": {"width": 2}}, "b": {"model.width": 3}}}))
        with pytest.raises(ConfigError, match=r"setting model\.width has no effect.*set variants\.a\.model\.width"):
            read_sweep(path, overrides=[parse_assignment("model.width=9")])
        overrides = [parse_assignment("model.width=9"), parse_assignment("variants={}")]
        assert read_sweep(path, overrides=overrides).runs[0].model["width"] == 9


class TestHash:
    def test_does_not_depend_on_the_process_or_the_order_of_keys(self):
        # Written out, because a hash that another version computes differently makes --resume refuse every old folder.
        assert run_of(TABLE).content_hash() == "716d54f4fbec9838"
        reordered = {key: TABLE[key] for key in reversed(TABLE)}
        assert run_of(reordered).content_hash() == run_of(TABLE).content_hash()

    def test_equal_meanings_are_equal(self):
        base = run_of(TABLE).content_hash()
        assert run_of(changed("model.init_scale=1.0")).content_hash() == base
        assert run_of(changed('flows.newton.solver={kind="cholesky"}')).content_hash() == base
        assert run_of(changed("name=other", "flows.descent.mobility=3")).content_hash() == base

    @pytest.mark.parametrize(
        "assignment",
        [
            "model.width=9",
            "problem.n_train=7",
            "flows.newton.damping.floor=1e-6",
            "flows.newton.trainable=output",
            "integration.rtol=1e-4",
            "flows.newton.stop.gradient_norm=1e-4",
            'metrics=["kernel_distance"]',
            "seeds=[1]",
        ],
    )
    def test_what_decides_the_result_changes_it(self, assignment):
        assert run_of(changed(assignment)).content_hash() != run_of(TABLE).content_hash()

    def test_a_data_file_is_its_content(self, tmp_path):
        file = tmp_path / "data.csv"
        run = dataclasses.replace(run_of(TABLE), problem={"kind": "file", "path": str(file)})
        absent = run.content_hash()
        file.write_text("x,y\n1,2\n")
        first = run.content_hash()
        file.write_text("x,y\n1,3\n")
        assert len({absent, first, run.content_hash()}) == 3
        file.write_text("x,y\n1,2\n")
        assert run.content_hash() == first

    def test_names_do_not(self):
        run = run_of(TABLE)
        assert dataclasses.replace(run, variant="other", flow_name="other").content_hash() == run.content_hash()


class TestMaking:
    def test_objects_are_those_the_tables_say(self):
        made = run_of(TABLE).prepare()
        assert made.flow == gn.flows.GaussNewtonFlow(
            metric="hessian", damping=gn.damping.SmallestEigenvalue(floor=1e-7), solver=gn.directions.Cholesky()
        )
        assert made.metrics == (gn.metrics.KernelDistance(), gn.metrics.DirectionDistance("teacher"))
        assert made.settings == {"rtol": 1e-3, "saveat": [1.0, 2.0], "stop": (gn.GradientNorm(1e-3),)}
        assert made.method is gn.simulate
        assert made.model.hidden_weight.shape == (8, 3)

    def test_weights_are_kept_at_flow_times_or_at_steps(self):
        change = ["integration.saveat_weights=[0.5, 1]", "flows.descent.integration.saveat_weights=[0, 1]"]
        kept = {
            flow: run_of(changed(*change), flow).prepare().settings["saveat_weights"] for flow in ("newton", "descent")
        }
        assert kept == {"newton": [0.5, 1.0], "descent": [0, 1]}
        assert run_of(changed(change[0]), "newton").content_hash() != run_of(TABLE, "newton").content_hash()

    def test_a_preconditioner_is_named_within_its_solver(self):
        solver = "{kind='conjugate_gradients', rtol=1e-2, preconditioner={kind='nystrom', rank=8}}"
        flow = f"{{kind='gauss_newton', damping={{kind='largest_eigenvalue', factor=1e-3}}, solver={solver}}}"
        made = run_of(changed(f"flows.matrix_free={flow}"), "matrix_free").prepare()
        assert made.flow == gn.flows.GaussNewtonFlow(
            damping=gn.damping.LargestEigenvalue(1e-3),
            solver=gn.directions.ConjugateGradients(rtol=1e-2, preconditioner=gn.directions.Nystrom(8)),
        )

    def test_damping_by_the_trace(self):
        made = run_of(changed("flows.newton.damping={kind='trace', factor=1e-3}"), "newton").prepare()
        assert made.flow.damping == gn.damping.Trace(factor=1e-3, floor=0.0)

    def test_trainable_wraps_the_flow(self):
        made = run_of(TABLE, "features").prepare()
        assert made.flow == gn.flows.Frozen(gn.flows.SpectralFlow(power=1.0), trainable="output")
        assert made.settings == {"rtol": 1e-3, "saveat": [1.0, 2.0], "t1": 2.0, "stop": (gn.RelativeLoss(0.5),)}

    def test_weight_decay_wraps_the_flow(self):
        """One rate, or a table of them; also of weights of which only some move."""
        made = run_of(changed("flows.newton.weight_decay=0.1"), "newton").prepare()
        assert made.flow == gn.flows.WeightDecay(made.flow.flow, 0.1)
        assert isinstance(made.flow.flow, gn.flows.GaussNewtonFlow)
        made = run_of(changed("flows.features.weight_decay={output=1}"), "features").prepare()
        features = gn.flows.Frozen(gn.flows.SpectralFlow(power=1.0), trainable="output")
        assert made.flow == gn.flows.WeightDecay(features, {"output": 1.0})

    def test_scales_wrap_the_flow(self):
        made = run_of(changed("flows.newton.scale_velocity=0.1"), "newton").prepare()
        assert made.flow == gn.flows.Scaled(made.flow.flow, 0.1)
        made = run_of(changed("flows.features.scale_metric={output=2}", "flows.features.weight_decay=0.1"), "features")
        features = gn.flows.Frozen(gn.flows.SpectralFlow(power=1.0), trainable="output")
        scaled = gn.flows.Scaled(features, {"output": 2.0}, where="metric")
        assert made.prepare().flow == gn.flows.WeightDecay(scaled, 0.1)

    def test_features_first_is_a_method_with_a_rule(self):
        choose = "{kind='hold_out', fraction=0.25, seed=3, cutoffs=[1e-8]}"
        made = run_of(
            changed(f"flows.newton.integration={{method='train_features_first', choose={choose}, cycles=2}}"), "newton"
        ).prepare()
        assert made.method is gn.train_features_first
        assert made.settings["choose"] == gn.HoldOut(0.25, seed=3, cutoffs=(1e-8,))
        assert made.settings["cycles"] == 2
        rule = "{kind='relative_loss', tolerance=0.9}"
        table = changed(f"flows.newton.integration={{method='train_features_first', choose={rule}}}")
        assert run_of(table, "newton").prepare().settings["choose"] == gn.RelativeLoss(0.9)

    def test_another_method_takes_nothing_of_the_common_integration(self):
        made = run_of(TABLE, "descent").prepare()
        assert made.method is gn.iterate
        assert made.settings == {"step_size": 1.0, "num_steps": 2, "stop": (gn.RelativeLoss(0.5),)}

    def test_batches_are_drawn_from_the_seed_unless_there_is_a_key(self):
        steps = "{method='iterate', optimiser={kind='adam', learning_rate=1e-3}, num_epochs=2, batch_size=4}"
        table = changed(f"flows.descent.integration={steps}")
        for run in Specification.from_dict(table).runs[:2]:
            made = run.prepare()
            assert made.settings["optimiser"] == gn.optimisers.Adam(1e-3)
            assert made.settings["key"] == stream(jax.random.key(run.seed), "batches")
            assert (made.settings["batch_size"], made.settings["num_epochs"]) == (4, 2)
            keyed = run_of(apply_overrides(table, [parse_assignment("flows.descent.integration.key=7")]), "descent")
            assert keyed.prepare().settings["key"] == 7
        trajectory = Specification.from_dict(table).runs[1].run()
        expected = gn.iterate(
            made.problem,
            made.model,
            made.flow,
            optimiser=gn.optimisers.Adam(1e-3),
            num_epochs=2,
            batch_size=4,
            key=made.settings["key"],
        )
        np.testing.assert_array_equal(trajectory.data["batch_loss"], expected.data["batch_loss"])

    def test_batches_have_a_short_end_an_order_and_a_schedule(self):
        order = [[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]]
        own = {
            "method": "iterate",
            "step_size": 0.1,
            "num_epochs": 2,
            "batch_size": 4,
            "keep_last": True,
            "batch_order": order,
            "schedule": {"kind": "exponential_decay", "factor": 0.5, "every": 2},
        }
        made = run_of({**TABLE, "flows": {"descent": {"kind": "gradient", "integration": own}}}, "descent").prepare()
        assert "key" not in made.settings
        assert made.settings["batch_order"] == order
        assert made.settings["schedule"] == gn.optimisers.ExponentialDecay(0.5, every=2)
        assert made.settings["keep_last"] is True
        wrong = {**own, "schedule": {"kind": "cosine", "num_steps": 2}}
        with pytest.raises(ConfigError, match=r"schedule.kind.*did you mean 'cosine_decay'"):
            Specification.from_dict({**TABLE, "flows": {"descent": {"kind": "gradient", "integration": wrong}}})

    def test_an_optimiser_of_its_own_replaces_the_common_step_size(self):
        common = {"method": "iterate", "step_size": 1.0, "num_steps": 3, "save_every": 2}
        own = {"optimiser": {"kind": "sgd", "learning_rate": 1, "momentum": 0.9, "nesterov": True}, "num_epochs": 4}
        flows = {"a": {"kind": "gradient"}, "b": {"kind": "gradient", "integration": own}}
        first, second = Specification.from_dict({**TABLE, "integration": common, "flows": flows, "seeds": [0]}).runs
        assert first.integration == common
        sgd = {"kind": "sgd", "learning_rate": 1.0, "momentum": 0.9, "nesterov": True}
        assert second.integration == {"method": "iterate", "save_every": 2, "optimiser": sgd, "num_epochs": 4}
        assert second.prepare().settings["optimiser"] == gn.optimisers.SGD(1.0, momentum=0.9, nesterov=True)

    def test_without_stop_the_method_keeps_its_own_rule_and_an_empty_one_has_none(self):
        assert "stop" not in run_of(without("stop"), "features").prepare().settings
        assert run_of({**TABLE, "stop": {}}, "features").prepare().settings["stop"] == ()
        rules = {"loss_plateau": {"fall": 0.1}, "test_loss": 0.25, "velocity_norm": 1, "stationary": {}}
        made = run_of({**TABLE, "stop": rules}, "features").prepare()
        assert made.settings["stop"] == (
            gn.LossPlateau(fall=0.1),
            gn.TestLoss(0.25),
            gn.VelocityNorm(1.0),
            gn.Stationary(),
        )

    def test_sizes_are_the_problems_unless_given(self):
        table = {**TABLE, "problem": {"kind": "digits", "n_train": 4, "n_test": 3}, "metrics": []}
        made = run_of(table).prepare()
        assert made.model.output_weight.shape == (8, 10)
        with pytest.raises(ConfigError, match=r"flows\.descent: .*build the model with output_dim=10"):
            Specification.from_dict({**table, "model": {**table["model"], "output_dim": 2}}).check()

    def test_variants_share_data_and_unscaled_draws(self):
        table = {**TABLE, "variants": {"small": {"model.init_scale": 0.1}, "large": {"model.init_scale": 10}}}
        runs = Specification.from_dict(table).runs
        small, large = (next(r for r in runs if r.variant == name).prepare() for name in ("small", "large"))
        np.testing.assert_array_equal(small.problem.x_train, large.problem.x_train)
        np.testing.assert_allclose(100 * small.model.hidden_weight, large.model.hidden_weight, rtol=1e-14)
        key = jax.random.key(0)
        expected = gn.problems.teacher_student(n_train=6, n_test=5, input_dim=3, key=stream(key, "problem"))
        np.testing.assert_array_equal(small.problem.x_train, expected.x_train)
        model = gn.models.MeanFieldNetwork(3, 8, init_scale=10.0, key=stream(key, "model"))
        np.testing.assert_array_equal(large.model.hidden_weight, model.hidden_weight)

    def test_what_runs_share_is_made_once(self):
        table = {**TABLE, "variants": {"small": {"model.init_scale": 0.1}, "large": {"model.init_scale": 10}}}
        specification = Specification.from_dict({**table, "seeds": [17]})
        specification.check()  # what is made for the check is taken for the runs
        made = {run.label: run.prepare() for run in specification.runs}
        first = made["small/descent/seed-17"]
        assert all(other.problem is first.problem for other in made.values())
        assert made["small/newton/seed-17"].model is first.model
        assert made["large/newton/seed-17"].model is not first.model
        (other,) = (run for run in Specification.from_dict({**table, "seeds": [18]}).runs[:1])
        assert other.prepare().problem is not first.problem

    def test_a_data_file_that_changed_is_read_again(self, tmp_path):
        file = tmp_path / "d.csv"
        run = run_of({**TABLE, "problem": {"kind": "file", "path": str(file), "target": "y"}, "metrics": []})
        targets = []
        for last in (2.5, 3.5):
            file.write_text(f"a,b,y\n1,2,3.5\n2,0,1.5\n0,1,{last}\n")
            targets.append(float(run.prepare().problem.y_train[-1, 0]))
        assert targets == [2.5, 3.5]

    def test_seeds_differ_in_problem_and_model(self):
        first, second = (run.prepare() for run in Specification.from_dict(TABLE).runs[:2])
        assert not np.allclose(first.problem.x_train, second.problem.x_train)
        assert not np.allclose(first.model.hidden_weight, second.model.hidden_weight)

    def test_run_is_what_a_script_would_do(self):
        trajectory = run_of(TABLE, "descent").run()
        made = run_of(TABLE, "descent").prepare()
        expected = gn.iterate(made.problem, made.model, gn.flows.GradientFlow(2.0), step_size=1.0, num_steps=2)
        np.testing.assert_array_equal(trajectory.data["train_loss"], expected.data["train_loss"])
        assert trajectory.data["step"].size == 3
        assert "kernel_distance" in trajectory.data

    def test_a_file_with_a_named_loss(self, tmp_path):
        (tmp_path / "d.csv").write_text("a,b,y\n1,2,3.5\n2,0,1.5\n0,1,2.5\n")
        problem = {
            "kind": "file",
            "path": str(tmp_path / "d.csv"),
            "target": "y",
            "loss": {"kind": "huber", "delta": 2},
        }
        made = run_of({**TABLE, "problem": problem, "metrics": []}).prepare()
        assert made.problem.loss == gn.losses.HuberLoss(2.0)


UNKNOWN = [
    ("modle.width=3", r"unknown section 'modle'; did you mean 'model'\?"),
    (
        "problem.kind=teacher_studnet",
        r"problem\.kind: unknown kind of problem 'teacher_studnet'; did you mean 'teacher_student'",
    ),
    ("problem.n_trian=3", r"problem: unknown option 'n_trian' of problem 'teacher_student'; did you mean 'n_train'"),
    ("model.kind=meanfield", r"model\.kind: unknown kind of model 'meanfield'; did you mean 'mean_field'"),
    ("model.key=3", r"model: unknown option 'key'"),
    ("model.activation=sliu", r"model: unknown activation 'sliu'; did you mean 'silu'"),
    (
        "flows.newton.kind=gauss_newtom",
        r"flows\.newton\.kind: unknown kind of flow 'gauss_newtom'; did you mean 'gauss_newton'",
    ),
    ("flows.newton.metric=hesian", r"flows\.newton\.metric: unknown output metric 'hesian'; did you mean 'hessian'"),
    ("flows.newton.damping.kind=constnat", r"flows\.newton\.damping\.kind: .*'constnat'; did you mean 'constant'"),
    ("flows.newton.damping.flor=1", r"flows\.newton\.damping: unknown option 'flor'.*did you mean 'floor'"),
    ("flows.newton.solver=colesky", r"flows\.newton\.solver\.kind: .*'colesky'; did you mean 'cholesky'"),
    ("flows.descent.mobility=modle", r"flows\.descent\.mobility: unknown mobility 'modle'; did you mean 'model'"),
    ("flows.features.trainable=outptu", r"flows\.features: .*'outptu'; did you mean 'output'"),
    ("flows.features.weight_decay={outptu=0.1}", r"flows\.features: .*'outptu' that move; did you mean 'output'"),
    ("flows.features.weight_decay={hidden=0.1}", r"flows\.features: .*'hidden' that move"),
    ("flows.features.scale_metric={hidden=2}", r"flows\.features: .*'hidden' that move"),
    ("flows.features.scale_velocity=0", r"flows\.features\.scale_velocity: scale = 0.*above 0"),
    (
        "flows.features.weight_decay=-1",
        r"flows\.features\.weight_decay: rate = -1.0; expected a finite number of at least 0",
    ),
    ("integration.method=simualte", r"integration\.method: unknown method 'simualte'; did you mean 'simulate'"),
    ("integration.rtl=1", r"integration: unknown option 'rtl' of method 'simulate'; did you mean 'rtol'"),
    ("integration.progress=true", r"integration: unknown option 'progress'"),
    ("integration.solver=tsti5", r"integration\.solver: unknown solver 'tsti5'; did you mean 'tsit5'"),
    ("integration.error_norm=weigths", r"integration\.error_norm: .*'weigths'; did you mean 'weights'"),
    ("stop.relativ_loss=1", r"stop: unknown stop rule 'relativ_loss'; did you mean 'relative_loss'"),
    ('metrics=["kernel_dstance"]', r"metrics\[0\]\.kind: .*'kernel_dstance'; did you mean 'kernel_distance'"),
    (
        'metrics=[{kind="direction_distance", reference="teachr"}]',
        r"metrics\[0\]: unknown reference.*'teachr'; did you mean 'teacher'",
    ),
]
WRONG = [
    ("problem=3", r"problem = 3 is an integer; expected a problem: a table with kind = 'teacher_student'"),
    ("problem.n_train=many", r"problem\.n_train = 'many' is a string; expected an integer"),
    ("problem.n_train=3.5", r"problem\.n_train = 3\.5 is a number; expected an integer"),
    ("problem.n_train=true", r"problem\.n_train = True is a boolean; expected an integer"),
    ("problem.n_train=0", r"problem: n_train"),
    ("model.bias=1", r"model\.bias = 1 is an integer; expected true or false"),
    ("model.init_scale=[1]", r"model\.init_scale = \[1\] is an array; expected a number"),
    ("model.init_scale=-1", r"model: init_scale = -1\.0"),
    ("flows=3", r"flows = 3; expected a table"),
    ("flows={}", r"\[flows\] is empty"),
    ("flows.newton=3", r"flows\.newton = 3; expected a table"),
    ("flows.newton.damping=3", r"flows\.newton\.damping = 3 is an integer; expected a damping rule: a table with kind"),
    ("flows.newton.damping={}", r"flows\.newton\.damping has no 'kind'; expected a damping rule"),
    (
        "flows.newton.damping=constant",
        r"flows\.newton\.damping: damping rule 'constant' needs the option 'value', a number",
    ),
    ("flows.newton.damping.floor=-1", r"flows\.newton\.damping: SmallestEigenvalue: floor = -1\.0"),
    (
        "flows.descent.mobility=[1]",
        r"flows\.descent\.mobility = \[1\] is an array; expected one of 'model', or a number",
    ),
    ("flows.features.trainable=1", r"flows\.features\.trainable = 1 is an integer; expected a string, or an array"),
    (
        "flows.features.weight_decay=much",
        r"flows\.features\.weight_decay = 'much' is a string; expected a number, or a table",
    ),
    (
        "flows.features.weight_decay={output=true}",
        r"flows\.features\.weight_decay\.output = True is a boolean; expected a number",
    ),
    ("flows.features.power=2", r"flows\.features: power = 2\.0"),
    (
        "flows.descent.integration={method='iterate'}",
        r"flows\.descent\.integration: .* needs the option 'step_size', a number",
    ),
    (
        "flows.descent.integration={method='iterate', step_size=1, optimiser='adam', num_steps=1}",
        r"flows\.descent\.integration\.optimiser: optimiser 'adam' needs the option 'learning_rate', a number",
    ),
    (
        "flows.descent.integration.optimiser={kind='adam', learning_rate=1}",
        r"flows\.descent\.integration: .* takes 'step_size' or 'optimiser', and both are given",
    ),
    (
        "flows.descent.integration.optimiser={kind='adma', learning_rate=1}",
        r"integration\.optimiser\.kind: unknown kind of optimiser 'adma'; did you mean 'adam'",
    ),
    (
        "flows.descent.integration={method='iterate', num_steps=1, optimiser={kind='adam', learning_rate=-1}}",
        r"flows\.descent\.integration\.optimiser: Adam: learning_rate = -1\.0",
    ),
    ("flows.descent.integration.batch_size=7", r"flows\.descent\.integration: batch_size = 7, .* 6 training samples"),
    ("flows.descent.integration.batch_size=0", r"flows\.descent\.integration: batch_size = 0"),
    ("flows.descent.integration.key=0", r"flows\.descent\.integration: key = 0 without batch_size"),
    ("flows.descent.integration=3", r"flows\.descent\.integration = 3; expected a table"),
    ('flows."a/b".kind=gradient', r"flows: 'a/b' names a folder"),
    ("integration.saveat=[1, true]", r"integration\.saveat\[1\] = True is a boolean; expected a number"),
    ("flows.descent.integration.saveat_weights=[1.5]", r"saveat_weights\[0\] = 1\.5 is a number; expected an integer"),
    (
        "flows.descent.integration.saveat_weights=[100000]",
        r"flows\.descent\.integration: saveat_weights ends at step 100000",
    ),
    (
        "flows.features.integration.saveat_weights=[3]",
        r"flows\.features\.integration: saveat_weights ends at 3\.0, after t1",
    ),
    ("stop.relative_loss=small", r"stop\.relative_loss = 'small' is a string; expected a number"),
    (
        "stop.loss_plateau={decade=1}",
        r"stop\.loss_plateau: unknown option 'decade' of stop rule.*did you mean 'decades'",
    ),
    ("stop.test_loss={decades=true}", r"stop\.test_loss\.decades = True is a boolean; expected a number"),
    ("stop.relative_loss=-1", r"stop\.relative_loss: RelativeLoss: tolerance = -1\.0"),
    ("stop=3", r"stop = 3; expected a table"),
    ("metrics=kernel_distance", r"metrics = 'kernel_distance' is a string; expected an array, each entry a metric"),
    ('metrics=["kernel_distance", "kernel_distance"]', r"metrics\[1\] = .* is named twice"),
    ("seeds=[]", r"seeds = \[\]; expected at least one integer"),
    ("seeds=[1, 1]", r"seeds = \[1, 1\]; expected .* each once"),
    ("seeds=[-1]", r"seeds = \[-1\]; expected"),
    ("seeds=3", r"seeds = 3 is an integer; expected an array, each entry an integer"),
    ("name=3", r"name = 3 is an integer; expected a string"),
    ("name=../escape", r"name: '\.\./escape' names a folder"),
    ("variants=3", r"variants = 3; expected a table for each"),
    ("variants={a=3}", r"variants = \{'a': 3\}; expected a table for each"),
    ("variants={a={seeds=[1]}}", r"variants\.a sets 'seeds', which is common to all variants"),
    ("variants.a.model.widht=3", r"in variant 'a': model: unknown option 'widht'.*did you mean 'width'"),
    ("variants.a.model.init_scale=-3", r"in variant 'a': model: init_scale = -3\.0"),
    ('problem={kind="file", path="/nowhere.csv"}', r"problem: there is no file '/nowhere\.csv'"),
    ('model={kind="mlp", width=3}', r"model: model 'mlp' needs the option 'depth', an integer"),
    ('metrics=["accuracy"]', r"metrics\[0\]: .*classification"),
]


@pytest.mark.parametrize(("assignment", "message"), UNKNOWN + WRONG)
def test_bad_input_is_refused_before_any_run(assignment, message):
    with pytest.raises(ConfigError, match=message):
        Specification.from_dict(changed(assignment)).check()


@pytest.mark.parametrize("section", ["problem", "model", "flows"])
def test_missing_sections(section):
    with pytest.raises(ConfigError, match=rf"there is no \[{section}\] section"):
        Specification.from_dict(without(section))


def test_the_good_table_passes_the_same_check():
    Specification.from_dict(TABLE).check()
