from dataclasses import replace

import numpy as np
import pytest

from sct_deepspine.centerline import Centerline
from sct_deepspine.frames import Grid, as_points
from sct_deepspine.heatmaps import Codec, DiscMaps
from sct_deepspine.refine import ANTERIOR_MM, BEYOND_MM, POSTERIOR_MM, REACH_MM, refine_tips, straight_sheet
from sct_deepspine.straighten import StraightSpace
from sct_deepspine.volume import Volume

FINE = Codec(stride=2, sigma_cells=1.5)


class Moved:
    """A straight space that is the world, moved; it has no place for what is above a height."""

    offset = np.array([3.0, -40, 7])

    def __init__(self, top=np.inf):
        self.top = top

    def native_from_straight(self, points):
        return as_points(points) + self.offset

    def straight_from_native(self, points):
        rows = as_points(points) - self.offset
        return np.where(rows[:, 2:] > self.top, np.nan, rows)


class Dots:
    """An artist that draws peaks at straight ``(y, z)`` places, below a sheet's highest z."""

    def __init__(self, places, strengths=None, *, highest):
        self.codec, self.pixel_mm = FINE, 1.0
        self.places, self.highest = places, highest
        self.strengths = strengths or [1.0] * len(places)

    def draw(self, planes):
        shape = tuple(-(-n // 2) for n in planes[0].shape)
        heat = np.zeros(shape, np.float32)
        rows, columns = np.indices(shape)
        for (y, z), strength in zip(self.places, self.strengths, strict=True):
            pixel = np.array([self.highest - z, y - POSTERIOR_MM - 0.5])
            row, column = self.codec.cell_from_pixel(pixel)
            drawn = strength * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 1.5**2))
            heat = np.maximum(heat, drawn.astype(np.float32))
        level = np.full((23, *shape), 1 / 23, np.float32)
        return [DiscMaps(heat, level, np.zeros(shape, np.float32)) for _ in planes]


def body():
    """An image about the place of ``Moved``."""
    grid = Grid((9, 60, 100), np.array([[4.0, 0, 0, -13], [0, 2, 0, -90], [0, 0, 2, -80], [0, 0, 0, 1]]))
    return Volume(np.random.default_rng(0).random(grid.shape).astype(np.float32), grid)


def world(*straight_yz):
    return np.array([[0, y, z] for y, z in straight_yz], float) + Moved.offset


def refined(tips, places, strengths=None, space=None):
    """Refine tips given in the world with an artist that draws peaks."""
    space = space or Moved()
    highest = np.nanmax(space.straight_from_native(tips)[:, 2]) + BEYOND_MM
    return refine_tips(body(), space, tips, Dots(places, strengths, highest=highest))


# The sheet


def test_the_sheet_spans_the_straight_canals_surroundings():
    sheet = straight_sheet(Moved(), (-20, 30), 1.0)
    straight = sheet.points_world - Moved.offset
    assert sheet.shape == (51, 64)
    np.testing.assert_allclose(straight[0, 0], [0, POSTERIOR_MM + 0.5, 30])
    np.testing.assert_allclose(straight[-1, -1], [0, ANTERIOR_MM - 0.5, -20])
    np.testing.assert_allclose(straight[5, 7] - straight[5, 6], [0, 1, 0])
    np.testing.assert_allclose(straight[6, 7] - straight[5, 7], [0, 0, -1])


@pytest.mark.parametrize("pixel_mm", [0.7, 1.0, 1.5])
def test_the_sheet_reaches_the_lowest_height_at_any_pixel_size(pixel_mm):
    straight = straight_sheet(Moved(), (-20, 30), pixel_mm).points_world - Moved.offset
    assert straight[0, 0, 2] == pytest.approx(30)
    assert -20 - 1e-6 - pixel_mm < straight[-1, 0, 2] <= -20 + 1e-6


def test_a_folded_part_of_the_space_has_no_pixels():
    angle = np.radians(np.linspace(-60, 60, 91))
    arch = 30 * np.stack([0 * angle, np.cos(angle), np.sin(angle)], axis=1)
    space = StraightSpace(Centerline.from_points(arch, smoothing_mm=2))
    bowed_back = StraightSpace(Centerline.from_points(arch * [1, -1, 1], smoothing_mm=2))
    length = space.centerline.length_mm
    assert np.isfinite(straight_sheet(space, (0, length), 1.0).points_world).all()
    missing = np.isnan(straight_sheet(bowed_back, (0, length), 1.0).points_world).all(axis=2)
    assert missing[1:-1, -1].all()  # beyond the ends the space goes on straight
    assert not missing[:, 0].any()


# Moving to the peaks


def test_discs_move_to_the_peaks_near_them():
    tips = world((9, 40), (9, 20), (9, 0))
    peaks = [(11.3, 42.6), (7.2, 17.9), (9.4, -4.1)]
    found, _ = refined(tips, peaks)
    np.testing.assert_allclose(found, world(*peaks), atol=0.1)


def test_a_disc_moves_no_farther_than_its_reach():
    tips = world((9, 40), (9, 0))
    found, _ = refined(tips, [(9, 40 - REACH_MM + 0.3), (9, REACH_MM + 0.3)])
    np.testing.assert_allclose(found, world((9, 40 - REACH_MM + 0.3), (9, 0)), atol=0.1)


def test_without_a_peak_discs_stay_where_they_were():
    tips = world((9, 40), (9, 0))
    for places, strengths in (([], None), ([(9, 38), (9, 1)], [0.1, 0.19])):
        found, _ = refined(tips, places, strengths)
        np.testing.assert_array_equal(found, tips)


def test_the_tips_that_came_in_are_not_altered():
    tips = world((9, 40), (9, 0))
    before = tips.copy()
    found, _ = refined(tips, [(9, 37), (9, 2)])
    np.testing.assert_array_equal(tips, before)
    assert np.abs(found - tips).max() > 1


def test_of_peaks_alike_the_nearer_wins_and_a_faint_one_must_be_near():
    tips = world((9, 0))
    near, far = (9, 3), (9, -7)
    np.testing.assert_allclose(refined(tips, [near, far], [0.8, 0.8])[0], world(near), atol=0.15)
    np.testing.assert_allclose(refined(tips, [near, far], [0.3, 1.0])[0], world(far), atol=0.15)
    np.testing.assert_allclose(refined(tips, [(9, 0.5), far], [0.75, 1.0])[0], world((9, 0.5)), atol=0.15)


def test_two_discs_never_move_to_one_peak():
    tips = world((9, 8), (9, -8))
    found, _ = refined(tips, [(9, 0.5)])
    assert np.linalg.norm(found[0] - found[1]) > 5


def test_a_disc_without_a_place_in_the_straight_space_stays():
    tips = world((9, 40), (9, 0))
    found, _ = refined(tips, [(9, 38), (9, 2)], space=Moved(top=30))
    np.testing.assert_array_equal(found[0], tips[0])
    np.testing.assert_allclose(found[1], world((9, 2))[0], atol=0.1)


def test_the_lateral_position_becomes_that_of_the_sheet():
    tips = world((9, 0)) + np.array([6, 0, 0])
    np.testing.assert_allclose(refined(tips, [(9, 2)])[0], world((9, 2)), atol=0.1)


def test_what_was_seen_and_drawn_comes_back():
    _, drawn = refined(world((9, 40), (9, 0)), [(9, 38)])
    assert drawn.sheet.shape == drawn.plane.shape == (40 + 2 * BEYOND_MM + 1, 64)
    assert drawn.maps.any_disc.max() > 0.9
    assert drawn.codec is FINE
    assert drawn.plane.std() > 0


# In a curved spine


def test_displaced_discs_of_a_phantom_come_back_to_their_painted_places(phantom, painted, paint_reader):
    truth = np.array([phantom.discs[value] for value in sorted(phantom.discs)])
    off = np.random.default_rng(0).uniform(-3.5, 3.5, truth.shape) * [0.5, 1, 1]
    space = StraightSpace(Centerline.from_points(phantom.centerline_world))
    found, _ = refine_tips(painted, space, truth + off, paint_reader(1.0, FINE))
    assert np.linalg.norm(off, axis=1).max() > 3
    assert np.linalg.norm(found - truth, axis=1).max() < 0.5


def test_an_artist_that_draws_nothing_leaves_a_phantoms_discs_alone(phantom, painted, paint_reader):
    def blank(maps):
        return replace(maps, any_disc=np.zeros_like(maps.any_disc))

    truth = np.array([phantom.discs[value] for value in sorted(phantom.discs)])
    space = StraightSpace(Centerline.from_points(phantom.centerline_world))
    found, _ = refine_tips(painted, space, truth, paint_reader(1.0, FINE, edit=blank))
    np.testing.assert_array_equal(found, truth)
