import os
import signal
import subprocess
import sys
import time

import pytest
from sweeps.processes import Orders, environment, is_running, tiny_table

import gnflow as gn
from gnflow.cli import main
from gnflow.config import to_toml


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    table = tiny_table(sizes={"smoke": {"axes.tau0.values": [1.0]}}, flows={"a": {"kind": "gradient"}})
    table["flows"]["b"] = {"kind": "gradient", "integration": {"step_size": 0.25}}
    path.write_text(to_toml(table))
    return path


def run(config, out, *more):
    return main(["sweep", str(config), "--out", str(out), "--workers", "1", "--quiet", *more])


class TestSweep:
    def test_table_of_results_and_where_they_are(self, config, tmp_path, capsys):
        assert run(config, tmp_path / "out", "--set", "flows.b.integration.step_size=1e200") == 1
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        assert [line.split() for line in (lines[0], lines[2], lines[3])] == [
            ["result", "a", "b", "all"],
            ["non_finite", "-", "2", "2"],
            ["num_steps_reached", "2", "-", "2"],
        ]
        assert set(lines[1]) == {"-"}
        assert "tau0=0.1/b/seed-0 failed: non_finite: " in captured.out
        assert f"4 of 4 cells in {tmp_path / 'out'}" in lines[-1]
        assert captured.err == ""

    def test_sizes_and_the_same_command_again(self, config, tmp_path, capsys):
        for _ in range(2):
            assert run(config, tmp_path / "out", "--size", "smoke") == 0
            assert "2 of 2 cells" in capsys.readouterr().out
        assert gn.load(tmp_path / "out").sizes["tau0"] == 1

    def test_default_folder(self, config, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert main(["sweep", str(config), "--workers", "1", "--quiet", "--size", "smoke"]) == 0
        assert (tmp_path / "gnflow-sweeps" / "tiny" / "config.toml").is_file()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--size", "smokes"], "did you mean 'smoke'"),
            (["--set", "axes.tau0.path=model.init_scael"], "init_scael"),
            (["--engine", "cloud"], "engine = 'cloud'"),
            (["--option", "walltime=1:00"], "has no option 'walltime'"),
            (["--memory", "-1"], "memory_gib = -1.0"),
            (["--option", "memory_gib=4"], "--option memory_gib=4: memory_gib is not given so; use --memory GIB"),
            (["--option", "progress=true"], "unless --quiet is given"),
            (["--engine", "dask", "--option", "cluster=slurm"], "use --engine"),
            (["--option", "walltime"], "--option 'walltime'; expected key=value"),
        ],
    )
    def test_bad_input_is_one_line_and_nothing_is_written(self, config, tmp_path, capsys, arguments, message):
        out = tmp_path / "out"
        assert run(config, out, *arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("gnflow: error: ")
        assert captured.err.count("\n") == 1
        assert message in captured.err
        assert not out.exists()

    def test_help(self, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["sweep", "--help"])
        assert caught.value.code == 0
        assert "slurm" in capsys.readouterr().out


@pytest.mark.slow  # processes that are killed
def test_ctrl_c_ends_cleanly(config, tmp_path):
    orders = Orders(tmp_path)
    orders.give(1, wait=True)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "gnflow", "sweep", str(config), "--out", str(out), "--workers", "2"]
    command += ["--size", "smoke", "--set", "seeds=[0, 1]", "--set", 'flows={a={kind="gradient"}}']
    with subprocess.Popen(
        command,
        env=environment(tmp_path / "cache", **orders.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while orders.waiting(1) is None or not list(out.glob("cells/*/*.nc")):
            assert process.poll() is None
            time.sleep(0.05)
        # The whole group, as a terminal sends it.
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert "what is finished is kept, and the same command goes on" in error
    assert "Traceback" not in error
    assert not is_running(orders.waiting(1))
    assert sorted(gn.load(out)["result"].to_numpy().flat) == ["missing", "num_steps_reached"]
