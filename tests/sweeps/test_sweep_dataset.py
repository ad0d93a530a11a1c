import json
import math

import numpy as np
import pytest
import xarray as xr
from grids import TABLE, outcome_like, table_with, with_axes

import gnflow as gn
from gnflow import ConfigError, ResultCode, RunFolderError
from gnflow.config import RunSpec, Specification
from gnflow.sweeps import SweepStore, load_curves, load_sweep, run_cell
from gnflow.sweeps._cell import has_failed, outcome_of_code
from gnflow.sweeps._dataset import dataset_of

SPEC = Specification.from_dict(TABLE)
RATE = "flows.newton.integration.step_size"


@pytest.fixture(scope="module")
def trajectory():
    return SPEC.cells[0].run()


@pytest.fixture(scope="module")
def records(trajectory):
    """A record of every cell, each with final values of its own."""
    made = {}
    for number, cell in enumerate(SPEC.cells):
        record = outcome_like(cell, trajectory).record
        made[cell.content_hash()] = {**record, "finals": {"train_loss": float(number), "ntk_largest_eigenvalue": "inf"}}
    return made


class TestDataset:
    def test_values_stand_at_the_positions_of_their_cells(self, records):
        data = dataset_of(SPEC, records)
        assert data["train_loss"].dims == ("tau0", "step_size", "flow", "seed")
        for tau0 in (0.1, 1.0, 10.0):
            for step_size in (0.5, 2.0):
                for flow in ("descent", "newton"):
                    for seed in (0, 3):
                        there = data.sel(tau0=tau0, step_size=step_size, flow=flow, seed=seed)
                        cell = SPEC.cells[int(there["train_loss"])]
                        assert (cell.model["init_scale"], cell.flow_name, cell.seed) == (tau0, flow, seed)
                        assert flow == "descent" or cell.integration["step_size"] == step_size
                        assert there["cell"].item() == cell.content_hash()

    def test_a_measured_variable_does_not_replace_what_the_data_set_has_of_its_own(self, records):
        taken = {"target": 7.0, "time_to_target": 8.0, "best_test_loss": 9.0, "failed": 10.0}
        data = dataset_of(SPEC, {key: {**one, "finals": {**one["finals"], **taken}} for key, one in records.items()})
        assert data["time_to_target"].dims == ("tau0", "step_size", "flow", "seed", "target")
        assert data["failed"].dtype == bool
        for name, value in taken.items():
            np.testing.assert_array_equal(data[f"final_{name}"], value)

    def test_coordinates_and_variables_describe_themselves(self, records):
        described = {"train_loss": {"long_name": "training loss", "units": "1"}}
        data = dataset_of(SPEC, records, described)
        assert data["tau0"].attrs == {"long_name": "initialisation scale", "units": "1"}
        assert data["step_size"].attrs["units"] == "flow time"
        assert data["train_loss"].attrs == described["train_loss"]
        assert data.attrs["name"] == "small"
        assert Specification.from_dict(json.loads(data.attrs["configuration"])) == SPEC

    def test_what_is_missing_or_failed_says_so_and_nothing_else_is_nan(self, trajectory):
        gone, failed, error, died, *rest = SPEC.cells
        outcomes = [outcome_like(cell, trajectory) for cell in rest]
        outcomes.append(outcome_like(failed, trajectory, ResultCode.MAX_STEPS_REACHED))
        outcomes.append(outcome_of_code(died, "worker_died", "signal 9"))
        outcomes.append(outcome_of_code(error, "error", "ValueError: no"))
        data = dataset_of(SPEC, {outcome.content_hash: outcome.record for outcome in outcomes})
        for cell, code, is_failed in [
            (gone, "missing", False),
            (failed, "max_steps_reached", True),
            (error, "error", True),
            (died, "worker_died", True),
        ]:
            there = data.where(data["cell"] == cell.content_hash(), drop=True).isel(step_size=0).squeeze()
            assert there["result"].item() == code
            assert bool(there["failed"]) == is_failed
            assert math.isnan(there["train_loss"])
            assert np.isnan(there["time_to_target"]).all()
            # How far a failed run got is known all the same.
            assert math.isnan(there["flow_time"]) == (code != "max_steps_reached")
        bad = data["failed"] | (data["result"] == "missing")
        assert int(bad.isel(step_size=0).sum()) == 4
        for name in ("train_loss", "test_loss", "kernel_distance", "flow_time", "num_steps", "wall_seconds"):
            assert not np.isnan(data[name].where(~bad, 0.0)).any()
        assert not np.isnan(data["time_to_target"].where(~bad, 0.0)).any()

    def test_numbers_that_are_not_finite_come_back(self, records):
        assert np.all(dataset_of(SPEC, records)["ntk_largest_eigenvalue"] == math.inf)

    def test_a_variable_with_the_name_of_a_coordinate_is_renamed(self, records):
        axes = {"ntk_largest_eigenvalue": {"path": "model.width", "values": [3, 4]}}
        spec = Specification.from_dict(table_with(axes=axes))
        made = {key: next(iter(records.values())) for key in spec.hashes}
        data = dataset_of(spec, made)
        assert data["ntk_largest_eigenvalue"].to_numpy().tolist() == [3, 4]
        assert data["final_ntk_largest_eigenvalue"].dims == ("ntk_largest_eigenvalue", "flow", "seed")

    def test_it_can_be_written_and_read(self, records, tmp_path):
        data = dataset_of(SPEC, records)
        data.to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
        again = xr.load_dataset(tmp_path / "results.nc", engine="h5netcdf")
        xr.testing.assert_equal(again, data)


class TestTimeToTarget:
    def times(self, trajectory, losses, **changes):
        outcome = outcome_like(SPEC.cells[0], trajectory, losses=np.asarray(losses), **changes)
        data = dataset_of(SPEC, {outcome.content_hash: outcome.record})
        return data["time_to_target"].isel(tau0=0, step_size=0, flow=0, seed=0).to_numpy()

    def test_the_logarithm_is_interpolated(self, trajectory):
        # Steps of length 1: from 1 to 1e-2 between 0 and 1, to 1e-3 at 2 exactly, to 1e-7 at 3.
        times = self.times(trajectory, [7.0, 7e-2, 7e-3, 7e-7])
        np.testing.assert_allclose(times, [0.5, 1.0, 2.0, 2.25, 2.5, 2.75, 3.0, math.inf], rtol=1e-12)

    def test_a_loss_that_rises_again_counts_from_its_first_time(self, trajectory):
        assert self.times(trajectory, [1.0, 1e-1, 1.0, 1e-2]).tolist()[:3] == [1.0, 3.0, math.inf]

    def test_a_run_that_stopped_at_the_target_has_reached_it(self, trajectory):
        assert self.times(trajectory, [1.0, 0.5, 0.2, 0.1 * (1 + 1e-6)])[0] == 3.0

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_after_a_loss_that_is_no_number_nothing_is_interpolated(self, trajectory, bad):
        times = self.times(trajectory, [1.0, bad, 1e-2, 1e-3])
        np.testing.assert_allclose(times[:4], [2.0, 2.0, 3.0, math.inf])

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_from_a_start_that_is_no_number_nothing_is_reached(self, trajectory, bad):
        assert np.isinf(self.times(trajectory, [bad, 1e-2, 1e-3, 1e-4])).all()

    def test_what_a_failed_run_reached_before_is_kept(self, trajectory):
        times = self.times(trajectory, [1.0, 1e-1, math.nan, math.inf], code=ResultCode.NON_FINITE)
        assert times[0] == 1.0
        assert np.isnan(times[1:]).all()

    def test_a_start_without_excess_loss_reaches_nothing_more(self, trajectory):
        assert np.isinf(self.times(trajectory, [0.0, 0.0, 0.0, 0.0])).all()


class TestCarryOut:
    def test_a_cell_is_the_run_of_its_specification(self, trajectory):
        outcome = run_cell(SPEC.cells[0])
        record = outcome.record
        assert outcome.content_hash == record["hash"] == SPEC.hashes[0]
        assert (record["code"], record["failed"], record["num_steps"]) == ("num_steps_reached", False, 3)
        assert record["time"] == 3.0
        for name, value in record["finals"].items():
            assert value == float(trajectory.data[name].to_numpy()[-1])
        assert "ntk_spectrum" not in record["finals"]
        assert record["size"] == len(outcome.payload)
        assert record["wall_seconds"] > 0

    @pytest.mark.parametrize("error", [MemoryError("too much"), ValueError("no such thing")])
    def test_an_error_becomes_an_outcome(self, error, monkeypatch, tmp_path):
        def fail(cell, progress=False):
            raise error

        monkeypatch.setattr(RunSpec, "run", fail)
        outcome = run_cell(SPEC.cells[0])
        assert (outcome.record["code"], outcome.record["failed"]) == ("error", True)
        assert outcome.record["message"] == f"{type(error).__name__}: {error}"
        store = SweepStore(tmp_path)
        store.put(outcome)
        assert "raise error" in store.read(SPEC.hashes[0]).attrs["traceback"]

    def test_a_cell_that_cannot_be_prepared_is_an_outcome_too(self):
        spec = Specification.from_dict(
            table_with(problem={"kind": "file", "path": "/none.csv", "target": "y", "n_train": 3})
        )
        assert run_cell(spec.cells[0]).record["message"].startswith("ConfigError: problem: ")

    def test_interrupts_are_passed_on(self, monkeypatch):
        def interrupt(cell, progress=False):
            raise KeyboardInterrupt

        monkeypatch.setattr(RunSpec, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_cell(SPEC.cells[0])

    def test_which_codes_are_failures(self):
        assert [str(code) for code in ResultCode if has_failed(str(code)) != code.failed] == []
        assert has_failed("error")
        assert has_failed("worker_died")


@pytest.fixture
def folder(tmp_path, trajectory):
    """A sweep of which one cell is missing, one failed on its way, one has an error, one is shorter."""
    store = SweepStore(tmp_path / "sweep")
    store.begin(SPEC)
    _, failed, error, shorter, *rest = SPEC.cells
    for cell in rest:
        store.put(outcome_like(cell, trajectory))
    store.put(outcome_like(failed, trajectory, ResultCode.NON_FINITE))
    store.put(outcome_of_code(error, "error", "no"))
    short = type(trajectory)(**{**vars(trajectory), "data": trajectory.data.isel(step=slice(2))})
    store.put(outcome_like(shorter, short))
    return store.folder


class TestLoading:
    def test_a_sweep_is_a_dataset_with_descriptions(self, folder, trajectory):
        data = gn.load(folder)
        assert isinstance(data, xr.Dataset)
        assert set(np.unique(data["result"])) == {"missing", "non_finite", "error", "num_steps_reached"}
        assert data["kernel_distance"].attrs == trajectory.data["kernel_distance"].attrs
        xr.testing.assert_identical(data, load_sweep(folder))

    def test_a_run_is_a_trajectory(self, tmp_path, trajectory):
        trajectory.save(tmp_path / "run")
        assert isinstance(gn.load(tmp_path / "run"), gn.Trajectory)

    def test_neither_is_named(self, tmp_path):
        with pytest.raises(RunFolderError, match="holds no run"):
            gn.load(tmp_path)
        with pytest.raises(RunFolderError, match="holds no runs"):
            load_sweep(tmp_path)

    def test_a_damaged_cell_is_missing(self, folder, capsys):
        victim = SweepStore(folder).place(SPEC.hashes[-1])
        victim.write_bytes(b"nothing")
        data = gn.load(folder)
        assert data["result"].where(data["cell"] == SPEC.hashes[-1], drop=True).item() == "missing"
        assert str(victim) in capsys.readouterr().err


class TestCurves:
    def test_a_variable_with_the_name_of_a_coordinate_is_renamed(self, tmp_path, trajectory):
        spec = with_axes(ntk_spectrum={"path": "model.width", "values": [3, 4]})
        store = SweepStore(tmp_path / "sweep")
        store.begin(spec)
        for cell in spec.cells:
            store.put(outcome_like(cell, trajectory))
        curves = load_curves(store.folder, ["ntk_spectrum"])
        assert curves["ntk_spectrum"].to_numpy().tolist() == [3, 4]
        assert curves["measured_ntk_spectrum"].dims[:4] == ("ntk_spectrum", "flow", "seed", "save")

    def test_a_further_dimension_with_the_name_of_an_axis_is_refused(self, tmp_path, trajectory):
        further = str(trajectory.data["ntk_spectrum"].dims[1])
        spec = with_axes(**{further: {"path": "model.width", "values": [3, 4]}})
        store = SweepStore(tmp_path / "sweep")
        store.begin(spec)
        store.put(outcome_like(spec.cells[0], trajectory))
        with pytest.raises(ConfigError, match="cannot be put beside the axes"):
            load_curves(store.folder, ["ntk_spectrum"])

    def test_curves_are_the_runs_padded_at_the_end(self, folder, trajectory):
        curves = load_curves(folder, ["train_loss", "ntk_spectrum"])
        assert curves["train_loss"].dims == (*SPEC.dims, "save")
        assert curves["ntk_spectrum"].dims == (*SPEC.dims, "save", *trajectory.data["ntk_spectrum"].dims[1:])
        assert curves["train_loss"].attrs == trajectory.data["train_loss"].attrs
        whole = curves.sel(tau0=10.0, step_size=2.0, flow="newton", seed=3)
        np.testing.assert_array_equal(whole["train_loss"], trajectory.data["train_loss"])
        np.testing.assert_array_equal(whole["ntk_spectrum"], trajectory.data["ntk_spectrum"])
        np.testing.assert_array_equal(whole["flow_time"], [0.0, 1.0, 2.0, 3.0])
        missing, failed, error, shorter = (
            curves.isel(dict(zip(SPEC.dims, np.argwhere(SPEC.grid == place)[0], strict=True)))["train_loss"]
            for place in range(4)
        )
        assert np.isnan(missing).all()
        assert np.isnan(error).all()
        assert not np.isnan(failed).any()
        assert np.isnan(shorter).to_numpy().tolist() == [False, False, True, True]

    def test_positions_choose_what_is_read(self, folder, monkeypatch):
        read = []
        whole = SweepStore.read
        monkeypatch.setattr(SweepStore, "read", lambda store, key: read.append(key) or whole(store, key))
        curves = load_curves(folder, tau0=10.0, flow=["newton"], seed=3)
        assert dict(curves["train_loss"].sizes) == {"step_size": 2, "flow": 1, "save": 4}
        assert len(read) == 2

    def test_what_there_is_not_is_named(self, folder):
        with pytest.raises(ConfigError, match=r"no run of the sweep in .* has 'tran_loss'; did you mean 'train_loss'"):
            load_curves(folder, ["tran_loss"])
        with pytest.raises(ConfigError, match=r"there is no position \{'tau0': 5\.0\} in the sweep"):
            load_curves(folder, tau0=5.0)

    def test_what_was_recorded_of_batches_is_over_batches(self, tmp_path, trajectory):
        spec = Specification.from_dict(table_with(axes={"rate": {"path": RATE, "values": [0.1, 0.2]}}, seeds=[0]))
        store = SweepStore(tmp_path)
        store.begin(spec)
        for cell, size in zip(spec.cells[:3], (2, 5, 5), strict=True):
            losses = {"batch_loss": ("batch", np.arange(size))} if cell.flow_name == "newton" else {}
            data = trajectory.data.assign(losses).assign_coords(batch=np.arange(1, size + 1))
            ranks = {"batch_rank": ("batch", np.ones(size))} if size == 5 else {}
            store.put(outcome_like(cell, type(trajectory)(**{**vars(trajectory), "data": data.assign(ranks)})))
        curves = load_curves(tmp_path, ["train_loss", "batch_loss"], optional=["batch_rank"])
        assert dict(curves.sizes) == {"rate": 2, "flow": 2, "seed": 1, "save": 4, "batch": 5}
        np.testing.assert_array_equal(curves["batch_loss"].sel(rate=0.1, flow="newton", seed=0), np.arange(5))
        assert "batch_loss" not in gn.load(tmp_path)

    def test_variables_of_different_shapes_are_read_one_shape_at_a_time(self, tmp_path, trajectory):
        spec = Specification.from_dict(
            table_with(axes={"samples": {"path": "problem.n_train", "values": [6, 4]}}, seeds=[0])
        )
        store = SweepStore(tmp_path)
        store.begin(spec)
        for cell in spec.cells:
            data = trajectory.data.isel({trajectory.data["ntk_spectrum"].dims[1]: slice(cell.problem["n_train"])})
            store.put(outcome_like(cell, type(trajectory)(**{**vars(trajectory), "data": data})))
        with pytest.raises(ConfigError, match="'ntk_spectrum' has different shapes"):
            load_curves(tmp_path, ["ntk_spectrum"])
        assert load_curves(tmp_path, ["ntk_spectrum"], samples=4)["ntk_spectrum"].shape == (2, 1, 4, 4)
