"""Moving particles: their places frame by frame, and the animation that shows them."""

import itertools

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from gnflow import ConfigError
from gnflow.plots import animate_particles, particle_motion, particle_stills_figure

TURN = np.pi / 2


def turning(speeds=(1.0, 3.0), num_saves=6):
    """Two particles of each flow that turn by a right angle in the plane of the first two of three coordinates; v of the
    second is negative. The loss falls at its own rate, and the times are the flow's own."""
    stages = np.linspace(0, 1, num_saves)
    angles = np.stack([TURN * stages, np.pi - TURN * stages], axis=-1)  # (save, particle)
    hidden = 2 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=-1)
    output = np.stack([stages, -2 * stages], axis=-1)[..., None]
    dims = ("flow", "save", "particle")
    count = len(speeds)
    return xr.Dataset(
        {
            "particle_hidden_weight": ((*dims, "coordinate"), np.stack([hidden] * count)),
            "particle_output_weight": ((*dims, "output"), np.stack([output] * count)),
            "teacher_hidden_weight": (
                ("flow", "save", "teacher_unit", "coordinate"),
                np.broadcast_to([[3.0, 0, 0], [0, 1.0, 0], [3.0, 0, 0]], (count, num_saves, 3, 3)),
            ),
            "train_loss": (("flow", "save"), np.stack([np.exp(-speed * stages) for speed in speeds])),
            "flow_time": (("flow", "save"), np.stack([10 * speed * stages for speed in speeds])),
        },
        coords={"flow": ["gradient_flow", "gauss_newton"][:count]},
    )


class TestMotion:
    def test_places_are_unit_directions_in_the_teachers_plane(self):
        motion = particle_motion(turning(), num_frames=11)
        first = motion.isel(flow=0, particle=0)
        # Equal shares of the way are equal angles; saved states, five of the frames apart, are met exactly.
        angles = np.arctan2(first["y"], first["x"])
        np.testing.assert_allclose(angles[::2], np.linspace(0, TURN, 6), atol=1e-9)
        np.testing.assert_allclose(np.hypot(first["x"], first["y"]), 1)
        np.testing.assert_allclose(motion["teacher_x"], [1, 0, 1], atol=1e-12)
        np.testing.assert_allclose(motion["teacher_y"], [0, 1, 0], atol=1e-12)

    def test_shares_and_signs(self):
        motion = particle_motion(turning(), num_frames=6)
        np.testing.assert_allclose(motion["share"].isel(flow=0, frame=-1), [0.5, 1])
        np.testing.assert_allclose(motion["share"].isel(flow=0, frame=0), 0)
        assert motion["sign"].isel(flow=0, frame=-1).to_numpy().tolist() == [1, -1]

    def test_the_clock_of_the_loss_shows_flows_at_one_loss(self):
        motion = particle_motion(turning(), num_frames=7, clock="loss")
        slow, fast = motion["relative_loss"].to_numpy()
        np.testing.assert_allclose(fast, np.exp(-np.linspace(0, 3, 7)), rtol=1e-9)
        np.testing.assert_allclose(slow, np.maximum(fast, np.exp(-1.0)), rtol=1e-9)  # waits at its end

    def test_the_clock_of_the_time(self):
        curves = turning()
        curves["flow_time"][:] = [[0, 1, 10, 100, 1000, 10000]] * 2
        motion = particle_motion(curves, num_frames=6, clock="time")
        np.testing.assert_allclose(motion["flow_time"].isel(flow=0), [0, 1, 10, 100, 1000, 10000], atol=1e-6)

    def test_particles_that_stand_still(self):
        curves = turning()
        curves["particle_hidden_weight"][1] = curves["particle_hidden_weight"][1, 0]
        motion = particle_motion(curves, num_frames=6)
        np.testing.assert_allclose(motion["x"].isel(flow=1), [[1, -1]] * 6, atol=1e-12)
        np.testing.assert_allclose(motion["flow_time"].isel(flow=1), curves["flow_time"][1], atol=1e-9)

    def test_a_run_that_failed_is_left_out_and_padding_ignored(self):
        curves = turning()
        curves["particle_hidden_weight"][0] = np.nan
        padded = curves.pad(save=(0, 3))
        motion = particle_motion(padded, num_frames=4)
        assert motion["flow"].to_numpy().tolist() == ["gauss_newton"]
        assert np.isfinite(motion["x"]).all()

    @pytest.mark.parametrize(
        ("change", "options", "message"),
        [
            (lambda c: c.drop_vars("particle_output_weight"), {}, "recorded by the metric 'particles'"),
            (lambda c: c.expand_dims(tau0=[1.0, 2.0]), {}, "vary along {'tau0': 2}"),
            (lambda c: c, {"clock": "wall"}, "unknown clock"),
            (lambda c: c, {"num_frames": 1}, "num_frames = 1"),
            (lambda c: c * np.nan, {}, "no flow has finite particles"),
            (lambda c: c.isel(coordinate=[0]), {}, "one dimension"),
        ],
    )
    def test_bad_input(self, change, options, message):
        with pytest.raises(ConfigError, match=message):
            particle_motion(change(turning()), **options)


class TestPictures:
    def test_stills_are_the_first_the_middle_and_the_last_frame(self):
        motion = particle_motion(turning(), num_frames=11)
        drawn = particle_stills_figure(motion)
        axes = drawn.figure.axes
        assert len(axes) == 6
        for panel, frame in zip(axes[:3], (0, 5, 10), strict=True):
            own = motion.isel(flow=0, frame=frame).sortby("share")
            np.testing.assert_array_equal(panel.collections[1].get_offsets(), np.stack([own["x"], own["y"]], axis=-1))
        trails = axes[2].collections[0].get_segments()
        np.testing.assert_array_equal(trails[0][:, 0], motion["x"].isel(flow=0, particle=0))
        assert axes[0].get_ylabel() == "gradient flow"
        assert "$L/L_0$ = 3.7e-01" in axes[2].get_title()
        assert drawn.tables[""]["frame"].to_numpy().tolist() == [0, 5, 10]

    def test_the_animation_moves_and_has_its_data_beside_it(self, tmp_path):
        motion = particle_motion(turning(), num_frames=4)
        files = animate_particles(motion, tmp_path / "new" / "particles.gif")
        assert [path.name for path in files] == ["particles.gif", "particles.csv"]
        with Image.open(files[0]) as image:
            frames = []
            for index in range(image.n_frames):
                image.seek(index)
                frames.append(np.asarray(image.convert("L")))
        assert len(frames) >= 4
        assert all(np.any(one != other) for one, other in itertools.pairwise(frames))
        # The frame around the panels stands still.
        assert np.all(frames[0][-8:] == frames[3][-8:])
        assert frames[0].shape[1] == pytest.approx(3.4 * 160, abs=1)
        assert len(files[1].read_text().splitlines()) == 1 + 2 * 4 * 2 * 3  # flow, frame, particle, teacher's unit

    def test_other_formats_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"ends in \.gif"):
            animate_particles(particle_motion(turning(), num_frames=2), tmp_path / "particles.mp4")
        with pytest.raises(ConfigError, match="2, 3 or 4"):
            particle_stills_figure(particle_motion(turning(), num_frames=3), 7)
