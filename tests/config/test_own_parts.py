"""Parts of the user's own in a configuration: found, checked like the house's own kinds, made; and what is refused."""

import hashlib
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from config.own_module import NAME, TABLE, as_in_a_new_process, write

from gnflow import ConfigError
from gnflow.config import Specification, find_module, import_module, read_sweep, to_toml
from gnflow.config._own_parts import WithOptions
from gnflow.models import Centred


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    with as_in_a_new_process():
        yield tmp_path


def spec_of(**sections):
    return Specification.from_dict({**TABLE, **sections}, imports=True)


def made(**sections):
    return spec_of(**sections).cells[0].prepare()


def file_problem(**loss):
    np.savez("data.npz", x_train=np.arange(6.0).reshape(3, 2), y_train=np.arange(3.0))
    return {"kind": "file", "path": "data.npz", "loss": loss}


class TestWhatCanBeNamed:
    def test_a_flow_and_a_problem_with_the_key_of_the_seed(self):
        prepared = made()
        assert type(prepared.flow).__name__ == "Normalised"
        assert prepared.flow.power == 0.5
        assert prepared.problem.num_train == 5
        other = spec_of(seeds=[1]).cells[0].prepare().problem
        assert not np.allclose(other.x_train, prepared.problem.x_train)

    def test_a_flow_takes_the_options_of_every_flow(self):
        flow = {"kind": f"{NAME}:Normalised", "trainable": "output", "weight_decay": 0.1}
        assert made(flows={"mine": flow}).flow.decay is not None

    def test_a_model_gets_the_sizes_of_the_problem(self):
        model = made(model={"kind": f"{NAME}:Network", "width": 3}).model
        assert (model.inner.shape, model.outer.shape) == ((3, 2), (1, 3))
        centred = made(model={"kind": f"{NAME}:Network", "width": 3, "centred": True}).model
        assert type(centred).__name__ == "Centred"

    def test_a_model_of_images_gets_their_shape_and_may_be_centred(self):
        np.savez("data.npz", x_train=np.ones((3, 4, 2)), y_train=np.arange(3.0))
        problem = {"kind": "file", "path": "data.npz"}
        prepared = made(problem=problem, model={"kind": f"{NAME}:OfImages", "centred": True})
        assert isinstance(prepared.model, Centred)
        assert prepared.model.model.weight.shape == (1, 4, 2)

    def test_a_model_of_an_installed_package(self):
        sizes = {"in_size": 2, "out_size": 1, "width_size": 3, "depth": 1}
        model = made(model={"kind": "equinox.nn:MLP", **sizes, "activation": "jax.nn:gelu"}).model
        assert model(jnp.ones(2)).shape == (1,)

    def test_damping_and_metrics(self):
        newton = {"kind": "gauss_newton", "damping": {"kind": f"{NAME}:Relative", "factor": 1}}
        prepared = made(flows={"newton": newton}, metrics=[f"{NAME}:WeightNorm", "kernel_distance"])
        assert prepared.flow.damping.factor == 1.0
        assert prepared.metrics[0].order == 2

    @pytest.mark.parametrize("imports", [False, True])
    def test_parts_within_a_part(self, imports):
        rules = ["constant", {"kind": f"{NAME}:Relative", "factor": 2.0}, {"kind": "smallest_eigenvalue", "floor": 1}]
        axes = {"rule": {"path": "flows.mine.damping", "values": rules[1:], "labels": ["own", "smallest"]}}
        flows = {"mine": {"kind": f"{NAME}:Damped"}}
        with pytest.raises(
            ConfigError, match=r"flows\.mine\.damping: damping rule 'constant' needs the option 'value'"
        ):
            spec_of(flows={"mine": {**flows["mine"], "damping": rules[0]}})
        cells = Specification.from_dict({**TABLE, "flows": flows, "axes": axes}, imports=imports).cells
        found = [cell.prepare().flow.damping for cell in cells]
        assert found[0].factor == 2.0
        assert isinstance(found[0].factor, float)
        assert found[1].floor == 1.0

    def test_an_activation_alone_and_with_options(self):
        model = {**TABLE["model"], "activation": f"{NAME}:swish"}
        z = jnp.asarray([-1.0, 0.5])
        np.testing.assert_allclose(made(model=model).model.activation(z), jax.nn.silu(z), rtol=1e-15)
        model["activation"] = {"kind": f"{NAME}:swish", "beta": 3}
        activation = made(model=model).model.activation
        np.testing.assert_allclose(activation(z), z * jax.nn.sigmoid(3 * z), rtol=1e-15)
        assert activation.name == "swish"

    def test_a_function_of_an_installed_package(self):
        activation = made(model={**TABLE["model"], "activation": "jax.numpy:sin"}).model.activation
        assert float(activation(jnp.asarray(1.0))) == pytest.approx(np.sin(1.0))

    def test_a_loss_that_is_a_class(self):
        loss = made(problem=file_problem(kind=f"{NAME}:LogCosh", scale=2)).problem.loss
        assert loss.scale == 2.0

    def test_a_loss_from_its_value(self):
        problem = made(problem=file_problem(kind=f"{NAME}:power_loss", minimum=0, weight=3)).problem
        f = problem.y_train + 2.0
        assert float(problem.loss.value(f, problem.y_train)) == pytest.approx(12.0)
        assert float(problem.loss.minimum(problem.y_train)) == 0.0

    def test_the_minimum_may_be_a_function_that_shares_options_of_the_value(self):
        options = {"kind": f"{NAME}:offset_loss", "offset": 2.5, "minimum": f"{NAME}:least"}
        problem = made(problem=file_problem(**options)).problem
        assert float(problem.loss.minimum(problem.y_train)) == 2.5
        assert float(problem.loss.value(problem.y_train, problem.y_train)) == pytest.approx(2.5)

    def test_a_problem_with_a_file_whose_content_counts(self, folder):
        (folder / "study").mkdir()
        (folder / "study" / "rows.csv").write_text("1,2,3\n4,5,6\n")
        table = {**TABLE, "problem": {"kind": f"{NAME}:rows", "path": "rows.csv", "columns": [1]}}
        (folder / "study" / "run.toml").write_text(to_toml(table))
        run = read_sweep("study/run.toml").cells[0]
        np.testing.assert_array_equal(run.prepare().problem.x_train, [[2.0], [5.0]])
        before = run.content_hash()
        (folder / "study" / "rows.csv").write_text("1,2,3\n4,5,67\n")
        assert read_sweep("study/run.toml").cells[0].content_hash() != before

    def test_a_problem_of_residuals(self):
        prepared = made(problem={"kind": f"{NAME}:decay", "rate": 2}, model={"kind": f"{NAME}:Network", "width": 3})
        assert prepared.model.inner.shape == (3, 1)
        assert prepared.problem.joined_with(prepared.model).rows == {"equation": 3, "initial": 1}

    def test_options_are_axes(self):
        axes = {
            "power": {"path": "flows.mine.power", "values": [0, 0.5]},
            "beta": {"path": "model.activation.beta", "values": [1, 2]},
        }
        model = {**TABLE["model"], "activation": {"kind": f"{NAME}:swish"}}
        cells = spec_of(axes=axes, model=model).cells
        assert [cell.prepare().flow.power for cell in cells] == [0.0, 0.0, 0.5, 0.5]


def test_equal_functions_with_equal_options_are_equal():
    """So that the programs that JAX compiled for one serve the other."""
    one, other = (WithOptions.of(np.sin, {"b": [1, 2], "a": 3}) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert WithOptions.of(np.sin, {}) is np.sin


REFUSED = [
    ({"kind": "parts_of_a_tset:Normalised"}, rf"no module 'parts_of_a_tset' in .*; did you mean '{NAME}'\?"),
    ({"kind": f"{NAME}.py:Normalised"}, rf"Write {NAME} for the file"),
    (
        {"kind": f"{NAME}:Normalized"},
        rf"flows\.mine\.kind: the module '{NAME}' has no 'Normalized'; did you mean 'Normalised'",
    ),
    ({"kind": f"{NAME}:"}, r"flows\.mine\.kind = .*; expected a module and a name in it, such as 'my_module:MyFlow'"),
    (
        {"kind": f"{NAME}:LogCosh"},
        r"is the class of a loss; expected a flow: a class that inherits from gnflow\.flows\.Abs",
    ),
    ({"kind": f"{NAME}:loss_object"}, r"is a loss, an object of LogCosh; expected a flow"),
    ({"kind": f"{NAME}:Unfinished"}, r"is not complete; it has to define direction"),
    ({"kind": f"{NAME}:Normalised", "powr": 1}, r"unknown option 'powr' of flow .*; did you mean 'power'"),
    ({"kind": f"{NAME}:Normalised", "power": "1"}, r"flows\.mine\.power = '1' is a string; expected a number"),
    (
        {"kind": f"{NAME}:Taken"},
        r"has a parameter 'stop', and stop is an option of its own there; rename the parameter",
    ),
    ({"kind": f"{NAME}.Normalised"}, r"unknown kind of flow .*A flow of your own is 'module:Name'"),
    ({"kind": "missing_module:Flow"}, r"there is no module 'missing_module'"),
    ({"kind": f"{NAME}.sub:Flow"}, rf"there is no module '{NAME}\.sub' in "),
]


@pytest.mark.parametrize(("flow", "message"), REFUSED, ids=[str(list(flow.values())) for flow, _ in REFUSED])
def test_what_is_no_flow_is_refused_when_the_file_is_read(flow, message):
    with pytest.raises(ConfigError, match=message) as caught:
        spec_of(flows={"mine": flow})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"problem": {"kind": f"{NAME}:sine"}}, r"problem: problem '.*:sine' needs the option 'n_train', an integer"),
        ({"problem": {"kind": f"{NAME}:nothing"}}, r"returns 3; expected a problem"),
        (
            {"problem": {"kind": f"{NAME}:broken", "size": 2}},
            rf"problem: '{NAME}:broken' raises IndexError: list index out of range \(.*{NAME}\.py, line \d+\)\.",
        ),
        ({"problem": {"kind": f"{NAME}:broken"}}, rf"raises KeyError: 'height' \(.*{NAME}\.py, line \d+\)"),
        ({"model": {"kind": f"{NAME}:nothing"}}, r"model: '.*:nothing' returns 3; expected a model"),
        (
            {"model": {"kind": f"{NAME}:Shifted", "width": 3}},
            r"model\.kind: .* has a parameter 'centred'.*rename the parameter",
        ),
        ({"model": {"kind": f"{NAME}:WeightNorm"}}, r"is the class of a metric; expected a model"),
        (
            {"model": {**TABLE["model"], "activation": f"{NAME}:Network"}},
            r"is the class of a model; expected a function",
        ),
        (
            {"model": {**TABLE["model"], "activation": {"kind": f"{NAME}:swish", "gamma": 1}}},
            r"model\.activation: unknown option 'gamma' of the function .*; did you mean 'beta'|Known names: beta, kind",
        ),
        (
            {"model": {**TABLE["model"], "activation": f"{NAME}:swsh"}},
            r"model\.activation: the module .* has no 'swsh'",
        ),
        (
            {"problem": {"kind": "file", "path": "x.npz", "loss": f"{NAME}:power_loss"}},
            r"needs the option 'minimum', a number, or a function|a function of your own, 'module:name', or a number",
        ),
        (
            {"problem": {"kind": "file", "path": "x.npz", "loss": f"{NAME}:Relative"}},
            r"problem\.loss\.kind = .* is the class of a damping rule; expected a loss",
        ),
        (
            {"metrics": [f"{NAME}:Relative"]},
            r"metrics\[0\]\.kind = .* is the class of a damping rule; expected a metric",
        ),
        (
            {"flows": {"n": {"kind": "gauss_newton", "metric": f"{NAME}:Relative"}}},
            r"is the class of a damping rule; expected an output metric",
        ),
    ],
)
def test_what_is_no_other_part_is_refused(sections, message):
    with pytest.raises(ConfigError, match=message):
        spec_of(**sections).check()


class TestImports:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "import jax\n\nraise ValueError('first line\\nsecond')",
                r"ValueError: first line \(.*broken\.py, line 3\)",
            ),
            ("x = = 1", r"SyntaxError: .* \(.*broken\.py, line 1\)"),
            (
                "import not_there_at_all",
                r"ModuleNotFoundError: No module named 'not_there_at_all' \(.*broken\.py, line 1\)",
            ),
            ("import sys\nsys.exit(4)", r"SystemExit: 4 \(.*broken\.py, line 2\)"),
        ],
    )
    def test_an_import_that_raises_names_the_line(self, folder, text, message):
        write(folder, "broken", text)
        with pytest.raises(ConfigError, match=message):
            spec_of(flows={"mine": {"kind": "broken:Flow"}})
        assert "broken" not in sys.modules

    @pytest.mark.parametrize("name", ["xarray", "tabnanny", "time"])
    def test_a_file_that_would_hide_what_is_installed(self, folder, name):
        write(folder, name)
        with pytest.raises(ConfigError, match=rf"{name}\.py would hide .*'{name}'.*; rename the file"):
            spec_of(flows={"mine": {"kind": f"{name}:Normalised"}})

    def test_a_folder_without_a_module_hides_nothing(self, folder):
        (folder / "xarray").mkdir()
        assert find_module("xarray", [folder]).version is not None

    def test_the_folder_of_the_file_comes_before_the_working_directory(self, folder):
        (folder / "study").mkdir()
        (folder / "study" / "run.toml").write_text(to_toml(TABLE))
        assert read_sweep("study/run.toml").sources[NAME].folder == folder
        with as_in_a_new_process():
            write(folder / "study")
            assert read_sweep("study/run.toml").sources[NAME].folder == folder / "study"
            with pytest.raises(ConfigError, match=r"was imported from .*study.*, and .* is meant; rename one of them"):
                spec_of()

    def test_what_is_installed_comes_before_other_files_of_the_folder(self, folder):
        write(folder, "tabnanny", "raise ValueError")
        write(folder, "helper", "import tabnanny\nfrom parts_of_a_test import Normalised\ntabnanny.check")
        assert made(flows={"mine": {"kind": "helper:Normalised"}}).flow.power == 1.0

    def test_nor_one_that_the_user_imported_before(self, folder, monkeypatch):
        name = "imported_before"  # pytest itself imports what is called like a test, and keeps no bytecode beside it
        monkeypatch.setattr(sys, "dont_write_bytecode", False)
        monkeypatch.setattr(sys, "pycache_prefix", None)
        monkeypatch.syspath_prepend(folder)
        write(folder, name, "first = 1")
        importlib.invalidate_caches()
        importlib.import_module(name)
        try:
            write(folder, name, "second = 22")
            with pytest.raises(ConfigError, match="was changed since this process imported it; start a new process"):
                import_module(find_module(name, [folder]))
            importlib.reload(sys.modules[name])
            assert import_module(find_module(name, [folder])).second == 22
        finally:
            sys.modules.pop(name, None)

    def test_a_module_that_was_changed_since_is_not_taken_for_the_old_one(self, folder):
        spec_of()
        write(folder, text="changed = True")
        with pytest.raises(ConfigError, match=r"was changed since this process imported it \(digest .*\); start a new"):
            spec_of()

    def test_the_digest_is_that_of_the_file_or_of_all_files_of_a_package(self, folder):
        file = folder / f"{NAME}.py"
        assert find_module(NAME, [folder]).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        (folder / "bundle").mkdir()
        for name in ("__init__", "flows", "helpers"):
            write(folder / "bundle", name)
        before = find_module("bundle.flows", [folder])
        write(folder / "bundle", "helpers", "x = 1")
        assert find_module("bundle.flows", [folder]).sha256 != before.sha256
        assert "bundle" not in sys.modules  # found without any import
        assert find_module("xarray.core", []).version == find_module("xarray", []).version


class TestWithoutImports:
    def test_nothing_is_imported_and_the_hashes_are_the_same(self):
        table = {
            **TABLE,
            "model": {**TABLE["model"], "activation": {"kind": f"{NAME}:swish", "beta": 2.0}},
            "flows": {
                "mine": {"kind": f"{NAME}:Normalised"},
                "newton": {"kind": "gauss_newton", "damping": f"{NAME}:Relative"},
            },
            "metrics": [{"kind": f"{NAME}:WeightNorm", "order": 1}],
            "axes": {"frequency": {"path": "problem.frequency", "linspace": [1.0, 2.0, 3]}},
        }
        unread = Specification.from_dict(table)
        assert NAME not in sys.modules
        assert unread.sources == {}
        with pytest.raises(
            ConfigError, match=rf"is not imported, since a folder alone imports nothing; give --import {NAME}"
        ):
            unread.cells[0].prepare()
        assert Specification.from_dict(table, imports=True).hashes == unread.hashes
        assert unread.cells[0].prepare().problem.num_train == 5  # now that somebody else has had it imported

    @pytest.mark.parametrize("imports", [False, True])
    def test_a_whole_number_is_the_same_with_and_without_a_point(self, imports):
        flows = [{"mine": {"kind": f"{NAME}:Normalised", "power": power}} for power in (1, 1.0, 1.5)]
        hashes = [Specification.from_dict({**TABLE, "flows": flow}, imports=imports).hashes for flow in flows]
        assert hashes[0] == hashes[1] != hashes[2]

    def test_a_module_that_a_script_imported_is_not_used_either(self, folder, monkeypatch):
        monkeypatch.syspath_prepend(folder)
        __import__(NAME)
        try:
            with pytest.raises(ConfigError, match="is not imported"):
                Specification.from_dict(TABLE).cells[0].prepare()
        finally:
            del sys.modules[NAME]
