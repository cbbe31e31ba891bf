from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import PaintReader, paint_truth

from sct_deepspine.errors import GeometryError, NoDiscsError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.planes import WIDEST_MM, midsagittal_plane, sample
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.labeling.canal import find_centerline, follow_given


def view_of(volume):
    return DeobliquedVolume.of(volume)


def upright(shape=(25, 80, 100), voxel_mm=(4.0, 2.0, 2.0), turn_degrees=0.0):
    """A grid centred on the world's origin, turned about the left-right axis."""
    turn = np.radians(turn_degrees)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, :3] *= voxel_mm
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def canal_line(slope=0.25, bow_mm=12.0, length_mm=190.0):
    """A canal that leans sideways and bows to anterior."""
    z = np.linspace(-length_mm / 2, length_mm / 2, 96)
    return np.stack([slope * z, bow_mm * np.cos(z / 60), z], axis=1)


@pytest.fixture
def show():
    """Paint a canal on a grid."""

    def on(grid, line, *, canal=True):
        scan = SimpleNamespace(volume=SimpleNamespace(grid=grid), centerline_world=line, discs={})
        return paint_truth(scan, canal=canal)

    return on


def distance_mm(found, line):
    """Distance of each sample of a centreline to the true line, between the true line's ends."""
    dense = np.stack([np.interp(np.linspace(0, 95, 5000), np.arange(96), c) for c in line.T], axis=1)
    samples = found.samples_world
    samples = samples[(samples[:, 2] > line[:, 2].min()) & (samples[:, 2] < line[:, 2].max())]
    return np.linalg.norm(samples[:, None] - dense, axis=2).min(axis=1)


# The canal


@pytest.mark.parametrize("slope", [0.0, 0.25, -0.2])
@pytest.mark.parametrize("turn_degrees", [0.0, 10.0])
def test_a_leaning_canal_is_followed_across_the_planes(slope, turn_degrees, show):
    line = canal_line(slope)
    found = find_centerline(view_of(show(upright(turn_degrees=turn_degrees), line)), PaintReader())
    assert distance_mm(found, line).max() < 1.0
    assert np.ptp(found.samples_world[:, 2]) > 160


@pytest.mark.parametrize("pixel_mm", [1.5, 2.0, 2.5])
def test_pixels_of_any_size_lead_to_the_same_canal(pixel_mm, show):
    line = canal_line()
    found = find_centerline(view_of(show(upright(), line)), PaintReader(pixel_mm))
    assert distance_mm(found, line).max() < 1.0


def test_a_single_slice_has_its_canal_in_its_plane(show):
    line = canal_line(slope=0.0)
    found = find_centerline(view_of(show(upright((1, 80, 100)), line)), PaintReader())
    assert distance_mm(found, line).max() < 1.0
    np.testing.assert_allclose(found.samples_world[:, 0], 0, atol=1e-6)


def test_a_canal_beside_the_middle_is_found(show):
    line = canal_line(slope=0.0) + np.array([31, 0, 0])
    found = find_centerline(view_of(show(upright(), line)), PaintReader())
    assert distance_mm(found, line).max() < 1.0


def test_a_canal_seen_faintly_in_planes_beside_it_is_not_drawn_to_the_middle(show):
    line = canal_line(slope=0.0) + np.array([31, 0, 0])
    centred = show(upright((1, 80, 100)), line - [31, 0, 0])
    plane = midsagittal_plane(view_of(centred), Centerline.from_points(line - [31, 0, 0]), 2.0)
    haze = 0.1 * PaintReader().predict([sample(centred, plane)[0]])[0].canal
    reader = PaintReader(edit=lambda maps: replace(maps, canal=np.maximum(maps.canal, haze)))
    everything = np.inf  # so that the haze fits every plane
    found = find_centerline(view_of(show(upright(), line)), reader, about_mm=everything)
    # The mean over the planes of the whole body alone is 3 mm off.
    assert distance_mm(found, line).max() < 1.0


def test_a_body_wider_than_the_reach_is_searched_about_its_middle(show):
    wide = upright((100, 80, 100))
    line = canal_line(slope=0.1)
    assert wide.spacing_mm[0] * 100 > WIDEST_MM
    assert distance_mm(find_centerline(view_of(show(wide, line)), PaintReader()), line).max() < 1.0


def without(volume, low_mm, high_mm):
    """Blacken a volume between two heights."""
    data = volume.data.copy()
    z = volume.grid.world_from_voxel(np.indices(data.shape).reshape(3, -1).T)[:, 2].reshape(data.shape)
    data[(z > low_mm) & (z < high_mm)] = 0
    return Volume(data, volume.grid)


def test_a_short_gap_is_bridged(show):
    line = canal_line()
    found = find_centerline(view_of(without(show(upright(), line), 5, 13)), PaintReader())
    assert np.ptp(found.samples_world[:, 2]) > 160
    assert distance_mm(found, line).max() < 1.5


def test_of_two_pieces_the_longer_counts(show):
    line = canal_line()
    found = find_centerline(view_of(without(show(upright(), line), 10, 50)), PaintReader())
    assert found.samples_world[:, 2].max() < 14
    assert found.samples_world[:, 2].min() < -80


def test_no_canal_means_no_spine(show):
    volume = show(upright(), canal_line(), canal=False)
    with pytest.raises(NoDiscsError, match="no spine was found") as error:
        find_centerline(view_of(volume), PaintReader())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept_mm", [10, 30])
def test_a_bit_of_canal_is_no_spine(kept_mm, show):
    volume = without(show(upright(), canal_line()), -500, 90 - kept_mm)
    with pytest.raises(NoDiscsError, match="no spine was found"):
        find_centerline(view_of(volume), PaintReader())


def test_an_image_of_a_few_voxels_is_no_spine():
    data = np.arange(24.0).reshape(2, 3, 4)
    with pytest.raises(NoDiscsError):
        find_centerline(view_of(Volume(data, Grid(data.shape, np.eye(4)))), PaintReader())


# A centreline that is known in part


@pytest.mark.parametrize(("low_mm", "high_mm"), [(-95, 20), (-20, 95), (-30, 30)])
def test_a_centreline_that_ends_inside_the_image_is_continued(low_mm, high_mm, show):
    line = canal_line()
    part = line[(line[:, 2] >= low_mm) & (line[:, 2] <= high_mm)]
    whole, _ = follow_given(Centerline.from_points(part), view_of(show(upright(), line)), PaintReader())
    assert np.ptp(whole.samples_world[:, 2]) > 160
    assert distance_mm(whole, line).max() < 1.5


def test_a_centreline_along_the_canal_is_left_as_it_is(show):
    line = canal_line()
    known = Centerline.from_points(line)
    volume = show(upright(), line + np.array([3, 0, 0]))
    assert follow_given(known, view_of(volume), PaintReader()) == (known, None)


@pytest.mark.parametrize("aside_mm", [(14, 0, 0), (0, 14, 0), (-9, 9, 0)])
def test_the_part_of_a_centreline_that_lies_off_the_canal_is_not_followed(aside_mm, show):
    line = canal_line()
    displaced = line.copy()
    part = (line[:, 2] > -30) & (line[:, 2] < 10)
    displaced[part] += aside_mm
    known = Centerline.from_points(displaced, smoothing_mm=2.0)
    followed, off = follow_given(known, view_of(show(upright(), line)), PaintReader())
    assert distance_mm(known, line).max() > 12
    assert distance_mm(followed, line).max() < 8
    assert off.points_world[:, 2].min() == pytest.approx(-30, abs=8)
    assert off.points_world[:, 2].max() == pytest.approx(10, abs=8)
    assert off.farthest_mm == pytest.approx(np.linalg.norm(aside_mm), abs=3)


def test_a_centreline_off_the_canal_everywhere_is_refused(show):
    known = Centerline.from_points(canal_line())
    volume = show(upright(), canal_line() + np.array([20, 0, 0]))
    with pytest.raises(GeometryError, match="does not run along the spinal canal"):
        follow_given(known, view_of(volume), PaintReader())


def test_a_centreline_is_kept_where_the_network_sees_no_canal(show):
    known = Centerline.from_points(canal_line(length_mm=60))
    volume = show(upright(), canal_line(), canal=False)
    assert follow_given(known, view_of(volume), PaintReader())[0] is known


def test_a_centreline_outside_the_image_is_refused(show):
    known = Centerline.from_points(canal_line() + np.array([0, 300, 0]))
    with pytest.raises(GeometryError, match="outside the image") as error:
        follow_given(known, view_of(show(upright(), canal_line())), PaintReader())
    assert "\n" not in str(error.value)


# The plane along it


@pytest.mark.parametrize("turn_degrees", [0.0, 10.0])
def test_the_plane_covers_the_image_and_stays_on_the_canal(turn_degrees):
    grid, line = upright(turn_degrees=turn_degrees), canal_line()
    view = DeobliquedVolume(Volume(np.zeros(grid.shape), grid), np.eye(4))
    points = midsagittal_plane(view, Centerline.from_points(line), 2.0).points_world
    faces = grid.world_from_voxel(np.indices((2, 2, 2)).reshape(3, 8).T * grid.shape - 0.5)
    for axis, (first, last) in ((2, (points[-1, 0], points[0, 0])), (1, (points[0, 0], points[0, -1]))):
        assert first[axis] - 1 <= faces[:, axis].min() + 1e-6
        assert last[axis] + 1 >= faces[:, axis].max() - 1e-6
        assert last[axis] + 1 <= faces[:, axis].max() + 2
    between = np.abs(points[:, 0, 2]) < 90
    np.testing.assert_allclose(points[between, 0, 0], 0.25 * points[between, 0, 2], atol=0.2)
    assert (np.ptp(points[..., 0], axis=1) == 0).all()


def test_beyond_the_canal_the_plane_goes_on_straight():
    grid = upright()
    line = Centerline.from_points(canal_line(length_mm=60))
    points = midsagittal_plane(view_of(Volume(np.zeros(grid.shape), grid)), line, 2.0).points_world
    x, z = points[:, 0, 0], points[:, 0, 2]
    np.testing.assert_allclose(x[z > 31], line.samples_world[-1, 0])
    np.testing.assert_allclose(x[z < -31], line.samples_world[0, 0])


def test_the_first_pixel_begins_at_the_images_upper_posterior_face():
    grid = upright()
    view = view_of(Volume(np.zeros(grid.shape), grid))
    plane = midsagittal_plane(view, Centerline.from_points(canal_line()), 2.0)
    np.testing.assert_allclose(plane.points_world[0, 0, 1:], [-80 + 1, 100 - 1])
    assert plane.shape == (100, 80)


class Counted(PaintReader):
    """A network that keeps the shapes of the planes it is shown."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        object.__setattr__(self, "shapes", [])

    def predict(self, planes):
        self.shapes.extend(plane.shape for plane in planes)
        return super().predict(planes)


def test_very_coarse_planes_are_laid_across_the_volume_and_three_about_the_canal(show):
    line = canal_line(0.1)
    coarse, finder = Counted(2.0), Counted(4.0)
    found = find_centerline(view_of(show(upright((25, 160, 100)), line)), coarse, finder=finder)
    assert distance_mm(found, line).max() < 1.0
    assert set(finder.shapes) == {(50, 80)}
    assert len(coarse.shapes) == 3
    rows, columns = coarse.shapes[0]
    assert rows == 100
    assert columns < 160 / 2 + 2 * 60 / 2 - 40  # the canal's reach and what is about it


def test_a_single_slice_is_looked_at_once_by_the_coarse_network(show):
    line = canal_line(slope=0.0)
    coarse, finder = Counted(2.0), Counted(4.0)
    find_centerline(view_of(show(upright((1, 80, 100)), line)), coarse, finder=finder)
    assert (len(coarse.shapes), len(finder.shapes)) == (1, 0)
