from dataclasses import replace

import numpy as np
import pytest
from fakes import PaintReader

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid, as_points
from sct_deepspine.geometry.planes import (
    PLANE_ANTERIOR_MM,
    PLANE_POSTERIOR_MM,
    sagittal_plane,
    straightened_plane,
)
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.labeling.heatmaps import DiscCodec, DiscMaps, PlanePrediction
from sct_deepspine.labeling.levels import Candidates
from sct_deepspine.labeling.refinement import PLANE_MARGIN_MM, REACH_MM, refine_candidates

COARSE, FINE = DiscCodec(stride=2), DiscCodec(stride=2, sigma_cells=1.5)
LENGTH_MM = 50.0
FLAT = np.full(23, 1 / 23)


def view_of(volume):
    return DeobliquedVolume.of(volume)


class Moved:
    """A straight space that is the world, moved; it has no place for what is above a height."""

    offset = np.array([3.0, -40, 7])
    z_mm = (0.0, LENGTH_MM)

    def __init__(self, top=np.inf):
        self.top = top

    def native_from_straight(self, points):
        return as_points(points) + self.offset

    def straight_from_native(self, points):
        rows = as_points(points) - self.offset
        return np.where(rows[:, 2:] > self.top, np.nan, rows)


class Dots:
    """A predictor that predicts peaks of one level map at straight ``(y, z)`` places."""

    def __init__(self, places, scores=None, level=FLAT):
        self.codec, self.pixel_mm = FINE, 1.0
        self.places, self.level = places, level
        self.scores = scores or [1.0] * len(places)

    def predict(self, planes):
        shape = tuple(-(-n // 2) for n in planes[0].shape)
        heat = np.zeros(shape, np.float32)
        rows, columns = np.indices(shape)
        for (y, z), score in zip(self.places, self.scores, strict=True):
            pixel = np.array([LENGTH_MM + PLANE_MARGIN_MM - z, y - PLANE_POSTERIOR_MM - 0.5])
            row, column = self.codec.cell_from_pixel(pixel)
            coarse = score * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 1.5**2))
            heat = np.maximum(heat, coarse.astype(np.float32))
        level = np.broadcast_to(np.float32(self.level)[:, None, None], (23, *shape))
        return [DiscMaps(heat, level, np.zeros(shape, np.float32)) for _ in planes]


def body():
    """An image about the place of ``Moved``."""
    grid = Grid((9, 60, 100), np.array([[4.0, 0, 0, -13], [0, 2, 0, -90], [0, 0, 2, -80], [0, 0, 0, 1]]))
    return Volume(np.random.default_rng(0).random(grid.shape).astype(np.float32), grid)


def world(*straight_yz):
    return np.array([[0, y, z] for y, z in straight_yz], float) + Moved.offset


def coarse_look(tips, score=1.0, level=FLAT):
    """What a coarse network predicts of discs at world places, and the candidates on it."""
    shape = (100, 60)
    plane = sagittal_plane([0, -90, 118], shape, 2.0)
    cells = COARSE.cell_from_pixel(plane.pixel_from_world(tips))
    points = dict(enumerate(cells, start=COARSE.first_value))
    maps = COARSE.maps(*COARSE.encode(points, np.stack(np.indices((50, 30)), axis=-1)))
    levels = np.broadcast_to(np.float32(level)[:, None, None], maps.level.shape)
    maps = replace(maps, any_disc=score * maps.any_disc, level=levels)
    found = Candidates(tips, np.full(len(tips), score), np.tile(level, (len(tips), 1)))
    return PlanePrediction(plane, np.zeros(shape, np.float32), maps, COARSE), found


def again(tips, places, scores=None, *, level=FLAT, fine_level=FLAT, **options):
    """Refine discs given in the world with a predictor that predicts peaks."""
    coarse, found = coarse_look(tips, level=level, **options)
    predictor = Dots(places, scores, fine_level)
    return refine_candidates(view_of(body()), Moved(), coarse=coarse, candidates=found, predictor=predictor)


def certain(value):
    level = np.full(23, 1e-6)
    level[value - 3] = 1
    return level / level.sum()


# The plane


def test_the_plane_spans_the_straight_canals_surroundings():
    plane = straightened_plane(Moved(), (-20, 30), 1.0)
    straight = plane.points_world - Moved.offset
    assert plane.shape == (51, 64)
    np.testing.assert_allclose(straight[0, 0], [0, PLANE_POSTERIOR_MM + 0.5, 30])
    np.testing.assert_allclose(straight[-1, -1], [0, PLANE_ANTERIOR_MM - 0.5, -20])
    np.testing.assert_allclose(straight[5, 7] - straight[5, 6], [0, 1, 0])
    np.testing.assert_allclose(straight[6, 7] - straight[5, 7], [0, 0, -1])


@pytest.mark.parametrize("pixel_mm", [0.7, 1.0, 1.5])
def test_the_plane_reaches_the_lowest_height_at_any_pixel_size(pixel_mm):
    straight = straightened_plane(Moved(), (-20, 30), pixel_mm).points_world - Moved.offset
    assert straight[0, 0, 2] == pytest.approx(30)
    assert -20 - 1e-6 - pixel_mm < straight[-1, 0, 2] <= -20 + 1e-6


def test_a_folded_part_of_the_space_has_no_pixels():
    angle = np.radians(np.linspace(-60, 60, 91))
    arch = 30 * np.stack([0 * angle, np.cos(angle), np.sin(angle)], axis=1)
    space = StraightSpace(Centerline.from_points(arch, smoothing_mm=2))
    bowed_back = StraightSpace(Centerline.from_points(arch * [1, -1, 1], smoothing_mm=2))
    length = space.centerline.length_mm
    assert np.isfinite(straightened_plane(space, (0, length), 1.0).points_world).all()
    missing = np.isnan(straightened_plane(bowed_back, (0, length), 1.0).points_world).all(axis=2)
    assert missing[1:-1, -1].all()  # beyond the ends the space goes on straight
    assert not missing[:, 0].any()


# The candidates


def test_candidates_are_where_the_fine_look_sees_them():
    peaks = [(11.3, 42.6), (7.2, 17.9), (9.4, -4.1)]
    found = again(world((9, 40), (9, 20), (9, 0)), peaks)
    np.testing.assert_allclose(found.points, world(*peaks), atol=0.1)


def test_a_candidate_that_only_the_coarse_look_sees_is_kept():
    tips = world((9, 40), (9, 0))
    found = again(tips, [(9, 40 - REACH_MM - 1)])
    np.testing.assert_allclose(found.points, [tips[0], world((9, 40 - REACH_MM - 1))[0], tips[1]], atol=0.1)


def test_a_candidate_that_only_the_fine_look_sees_is_weak():
    found = again(world((9, 40)), [(9, 41), (9, 10)])
    np.testing.assert_allclose(found.points, world((9, 41), (9, 10)), atol=0.1)
    assert found.score[0] > 0.8
    assert found.score[1] < 0.1


def test_without_fine_peaks_the_candidates_stay_as_they_were():
    coarse, found = coarse_look(world((9, 40), (9, 0)))
    again_found = refine_candidates(
        view_of(body()), Moved(), coarse=coarse, candidates=found, predictor=Dots([])
    )
    assert again_found is found


def test_a_strength_is_the_geometric_mean_of_both_looks():
    both, faint_fine, faint_coarse = (
        again(world((9, 40)), [(9, 40)], [fine], score=coarse).score[0]
        for fine, coarse in ((0.8, 0.9), (0.2, 0.9), (0.8, 0.1))
    )
    assert both / faint_fine == pytest.approx(2, rel=1e-3)
    assert both / faint_coarse == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize(
    ("level", "fine_level"), [(certain(7), FLAT), (FLAT, certain(7)), (certain(7), certain(7))]
)
def test_a_level_that_one_look_knows_is_known(level, fine_level):
    found = again(world((9, 40)), [(9, 40)], level=level, fine_level=fine_level)
    assert found.level[0].argmax() == 7 - 3
    assert found.level[0].max() > 0.5
    assert found.level[0].sum() == pytest.approx(1)


def test_where_the_looks_disagree_the_coarse_one_is_believed():
    found = again(world((9, 40)), [(9, 40)], level=certain(7), fine_level=certain(8))
    assert found.level[0].argmax() == 7 - 3


def test_fine_peaks_outside_the_image_are_no_candidates():
    tips = world((9, 40))
    found = again(tips, [(9, 40), (9, LENGTH_MM + PLANE_MARGIN_MM - 3)])
    outside = world((9, LENGTH_MM + PLANE_MARGIN_MM - 3))
    assert body().grid.contains_voxel(body().grid.voxel_from_world(outside))[0]
    coarse, candidates = coarse_look(tips)
    low = Volume(body().data[:, :, :70], Grid((9, 60, 70), body().grid.affine))
    cut = refine_candidates(
        view_of(low),
        Moved(),
        coarse=coarse,
        candidates=candidates,
        predictor=Dots([(9, 40), (9, 70)]),
    )
    assert len(found.points) == 2
    assert len(cut.points) == 1


# In a curved spine


def test_displaced_discs_of_a_phantom_come_back_to_their_painted_places(phantom, painted):
    truth = np.array([phantom.discs[value] for value in sorted(phantom.discs)])
    off = np.random.default_rng(0).uniform(-3.5, 3.5, truth.shape) * [0.5, 1, 1]
    line = Centerline.from_points(phantom.centerline_world)
    coarse, candidates = coarse_look(truth + off)
    predictor = PaintReader(1.0, FINE)
    found = refine_candidates(
        view_of(painted),
        StraightSpace(line),
        coarse=coarse,
        candidates=candidates,
        predictor=predictor,
    )
    assert np.linalg.norm(off, axis=1).max() > 3
    assert np.linalg.norm(found.points - truth, axis=1).max() < 0.5
