"""The figures show the numbers that they were given, on axes that say what they are."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from jax_lstm.gradflow import plots

LN10 = np.log(10.0)


def panel(figure) -> Any:
    """The first axes."""
    return figure.axes[0]


def test_the_retention_plot_has_the_longest_memory_on_top():
    logs = LN10 * np.array([[-np.inf, -1.0, -9.0], [-4.0, -0.5, -3.0], [0.0, 0.0, 0.0]])
    image = panel(plots.plot_retention(logs)).images[0]
    np.testing.assert_allclose(image.get_array(), [[0, -0.5, -1], [0, -3, -6], [0, -4, -6]], atol=1e-12)
    assert image.get_clim() == (-6, 0)


def test_singular_values_are_lines_and_the_largest_is_thickest():
    logs = LN10 * np.array([[-2.0, -np.inf], [-1.0, -5.0], [0.0, 0.0]])
    lines = panel(plots.plot_spectrum(logs)).get_lines()[1:]
    np.testing.assert_allclose(lines[0].get_ydata(), [0, -1, -2], atol=1e-12)
    np.testing.assert_array_equal(np.isnan(lines[1].get_ydata()), [False, False, True])
    assert lines[0].get_linewidth() > lines[1].get_linewidth()


def test_eigenvalues_are_drawn_with_the_unit_circle():
    z = np.array([0.5 + 0.5j, -1.0, 0.2j])
    axes = panel(plots.plot_eigenvalues({"at rest": z}))
    np.testing.assert_allclose(axes.collections[0].get_offsets(), np.stack([z.real, z.imag], axis=1))
    circle = axes.get_lines()[0]
    np.testing.assert_allclose(np.hypot(circle.get_xdata(), circle.get_ydata()), 1)
    assert axes.get_aspect() == 1


def test_adjoint_norms_are_plotted_against_their_time_step():
    lines = panel(plots.plot_adjoint_norms({"h": LN10 * np.array([-3.0, -1.0]), "c": np.zeros(2)})).get_lines()
    np.testing.assert_array_equal(lines[0].get_xdata(), [1, 2])
    np.testing.assert_allclose(lines[0].get_ydata(), [-3, -1])
    assert [line.get_label() for line in lines] == ["dL/dh_t", "dL/dc_t"]


def test_path_shares_fill_the_axis_from_zero_to_one():
    axes = panel(plots.plot_path_shares(jnp.array([1.0, 3.0, 1.0]), jnp.array([3.0, 1.0, 0.0])))
    along_c, through_h = (c.get_paths()[0].vertices for c in axes.collections)
    tops = {float(k): y for k, y in along_c if y > 0}
    assert tops == pytest.approx({0.0: 1.0, 1.0: 0.75, 2.0: 0.25})
    assert through_h[:, 1].max() == 1
    assert axes.get_ylim() == (0, 1)


def test_training_goes_from_dark_lines_to_light_ones():
    profiles = LN10 * np.array([[-9.0, 0.0], [-5.0, 0.0], [-1.0, 0.0]])
    figure = plots.plot_training([0, 100, 200], profiles)
    lines = panel(figure).get_lines()[1:]
    np.testing.assert_allclose([line.get_ydata()[1] for line in lines], [-9, -5, -1])
    lightness = [sum(line.get_color()[:3]) for line in lines]
    assert lightness == sorted(lightness)
    assert figure.axes[1].get_ylabel() == "training step"


ALL = {
    "profile": lambda **k: plots.plot_profile({"a": np.array([-1.0, 0.0])}, **k),
    "retention": lambda **k: plots.plot_retention(np.zeros((3, 2)) - 1, **k),
    "spectrum": lambda **k: plots.plot_spectrum(np.zeros((3, 2)) - 1, **k),
    "eigenvalues": lambda **k: plots.plot_eigenvalues({"a": np.array([0.5, 1j])}, **k),
    "adjoints": lambda **k: plots.plot_adjoint_norms({"h": np.array([-1.0, 0.0])}, **k),
    "paths": lambda **k: plots.plot_path_shares(np.ones(3), np.ones(3), **k),
    "training": lambda **k: plots.plot_training([0, 5], np.zeros((2, 3)) - 1, **k),
}


@pytest.mark.parametrize("name", ALL)
def test_every_figure_has_axis_labels_and_a_title_and_is_saved(name, tmp_path):
    figure = ALL[name](path=tmp_path / "figure.png", title="a title")
    axes = figure.axes[0]
    assert axes.get_title() == "a title"
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    assert imread(tmp_path / "figure.png").std() > 0.01


@pytest.mark.parametrize("name", ALL)
def test_every_figure_can_be_one_panel_of_several(name):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert ALL[name](axes=right) is figure
    assert right.has_data()
    assert not left.has_data()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.plot_retention(np.zeros(3)), ValueError, r"plot_retention: logs must have shape \(T \+ 1, H\)"),
        (lambda: plots.plot_spectrum(np.zeros((2, 2), int)), TypeError, "plot_spectrum: logs must hold floats"),
        (lambda: plots.plot_eigenvalues({}), ValueError, "plot_eigenvalues: eigenvalues must have at least one entry"),
        (lambda: plots.plot_eigenvalues(np.ones(2)), TypeError, "plot_eigenvalues: eigenvalues must map names"),
        (lambda: plots.plot_eigenvalues({"a": np.array([np.nan])}), ValueError, "must be finite with shape"),
        (lambda: plots.plot_adjoint_norms({}), TypeError, "plot_adjoint_norms: norms must map names"),
        (
            lambda: plots.plot_path_shares(np.ones(3), np.ones(4)),
            ValueError,
            "must have the same length, but have 3 and 4",
        ),
        (
            lambda: plots.plot_training([0], np.zeros((2, 3))),
            ValueError,
            "plot_training: profiles must have one row per training step",
        ),
    ],
)
def test_invalid_plot_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
