"""The figure shows the numbers it was given, in decades, against steps back."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from jax_lstm.gradflow.plots import plot_profile


def lines(figure):
    """The lines of the legend, by name."""
    return {line.get_label(): line for line in figure.axes[0].get_lines() if not line.get_label().startswith("_")}


def test_a_line_shows_decades_against_steps_back():
    log_norms = np.log(10.0) * np.array([-9.0, -5.0, -2.0, 0.0])
    figure = plot_profile({"falls": log_norms, "stays": jnp.zeros(3)})
    np.testing.assert_array_equal(lines(figure)["falls"].get_xdata(), [0, 1, 2, 3])
    np.testing.assert_allclose(lines(figure)["falls"].get_ydata(), [0, -2, -5, -9], rtol=1e-14)
    assert list(lines(figure)) == ["falls", "stays"]


def test_a_norm_of_zero_ends_its_line():
    figure = plot_profile({"dies": np.array([-np.inf, -np.inf, -1.0, 0.0])})
    np.testing.assert_array_equal(np.isnan(lines(figure)["dies"].get_ydata()), [False, False, True, True])


def test_no_two_of_twelve_lines_look_alike():
    drawn = lines(plot_profile({f"{n}": jnp.zeros(2) for n in range(12)})).values()
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == 12


def test_the_file_is_a_picture(tmp_path):
    plot_profile({"one": jnp.array([-100.0, 0.0])}, tmp_path / "profile.png", title="a title")
    assert imread(tmp_path / "profile.png").std() > 0.01


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({}, ValueError, "plot_profile: profiles must have at least one entry"),
        (np.zeros(3), TypeError, "plot_profile: profiles must map names to log-norms"),
        ({"a": np.zeros((2, 3))}, ValueError, r"plot_profile: profiles\['a'\] must have shape \(T \+ 1,\)"),
        ({"a": np.zeros(1)}, ValueError, r"plot_profile: profiles\['a'\] must have shape \(T \+ 1,\)"),
        ({"a": [0.0, 1.0]}, TypeError, r"plot_profile: profiles\['a'\] must be a JAX or NumPy array"),
    ],
)
def test_invalid_plot_arguments_are_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        plot_profile(wrong)
