import numpy as np
import pytest
from scipy.interpolate import BSpline, CubicSpline
from scipy.linalg import solveh_banded

from sct_deepspine.geometry.curves import CubicCurve, UniformSpline, solve_band, through_points

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("columns", [(), (3,)])
@pytest.mark.parametrize(("count", "natural"), [(4, False), (5, False), (31, False), (3, True), (17, True)])
def test_a_spline_through_points_is_scipys(count, natural, columns):
    places = np.cumsum(RNG.uniform(0.5, 2, count))
    values = RNG.normal(size=(count, *columns))
    ours = through_points(places, values, natural=natural)
    theirs = CubicSpline(places, values, bc_type="natural" if natural else "not-a-knot")
    at = np.append(RNG.uniform(places[0] - 1, places[-1] + 1, 41), places)
    for derivative in range(3):
        np.testing.assert_allclose(ours(at, derivative), theirs(at, derivative), atol=1e-9)


def test_two_points_with_natural_ends_are_joined_by_a_line():
    line = through_points(np.array([1.0, 3.0]), np.array([[0.0, 1.0], [4.0, 1.0]]), natural=True)
    np.testing.assert_allclose(line([1.5, 2.0]), [[1, 1], [2, 1]])


def test_where_a_place_is_not_finite_a_curve_is_not():
    curve = CubicCurve(np.arange(3.0), np.arange(3.0), np.ones(3))
    np.testing.assert_array_equal(np.isnan(curve([0.5, np.nan])), [False, True])


@pytest.mark.parametrize("derivative", [0, 1, 2])
def test_a_uniform_spline_is_scipys(derivative):
    coefficients = RNG.normal(size=(11, 2))
    ours = UniformSpline(3.0, 0.7, coefficients)
    theirs = BSpline(3.0 + 0.7 * np.arange(-3.0, 12), coefficients, 3)
    at = RNG.uniform(2.5, 3.0 + 0.7 * 8 + 0.5, 37)
    np.testing.assert_allclose(ours(at, derivative), theirs(at, derivative), atol=1e-9)


@pytest.mark.parametrize(("count", "reach"), [(1, 3), (2, 3), (4, 3), (23, 3), (23, 1), (9, 0)])
def test_equations_about_the_diagonal_are_solved_as_scipy_does(count, reach):
    half = np.tril(np.triu(RNG.normal(size=(count, count))), reach)
    matrix, right = half.T @ half + np.eye(count), RNG.normal(size=(count, 2))
    bands = np.zeros((reach + 1, count))
    for n in range(min(reach + 1, count)):
        bands[n, : count - n] = matrix.diagonal(n)
    np.testing.assert_allclose(
        solve_band(matrix, right, reach), solveh_banded(bands, right, lower=True), atol=1e-9
    )


def test_values_slopes_and_bends_come_together():
    places = np.cumsum(RNG.uniform(0.5, 2, 9))
    curve = through_points(places, RNG.normal(size=(9, 3)))
    at = RNG.uniform(places[0], places[-1], 17)
    for derivative, found in enumerate(curve.with_derivatives(at)):
        np.testing.assert_allclose(found, curve(at, derivative), atol=1e-9)
