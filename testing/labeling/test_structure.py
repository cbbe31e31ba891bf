"""Voids, fused discs, steps, repeats and mosaics in planes that are drawn for it."""

from dataclasses import replace

import numpy as np
import pytest

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.planes import sagittal_plane
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.heatmaps import DiscCodec, PlanePrediction
from sct_deepspine.labeling.structure import find_flat_discs, find_repeat, find_step, find_voids, mosaic_tiles
from sct_deepspine.labels import Disc

SHAPE, PIXEL_MM = (120, 70), 2.0
TIPS_Z = np.arange(-30, -220, -30.0)
COLUMN = 60.0
"""World y of the tips; the plane's first column is at 0."""


def discs():
    return [Disc(18 + n, np.array([0.0, COLUMN, z]), 0.9) for n, z in enumerate(TIPS_Z)]


def canal():
    z = np.arange(-235.0, 0.0, 2.0)
    return Centerline.from_points(np.stack([0 * z, 0 * z + COLUMN - 9, z], axis=1))


def drawn(*, discs_seen=TIPS_Z):
    """Return a plane with bright discs between grey bodies, a bright canal, and texture."""
    plane = sagittal_plane([0, 0, 0], SHAPE, PIXEL_MM)
    y, z = plane.points_world[..., 1], plane.points_world[..., 2]
    image = np.full(SHAPE, 0.3)
    image[(y > COLUMN) & (y < COLUMN + 30)] = 0.5
    for tip in discs_seen:
        image[(y > COLUMN) & (y < COLUMN + 30) & (np.abs(z - tip) < 4)] = 0.9
    image[(y > COLUMN - 16) & (y < COLUMN)] = 1.0
    image[(y > COLUMN + 30) & (y < COLUMN + 40)] = 0.1
    image += np.random.default_rng(0).normal(0, 0.02, SHAPE)
    return PlanePrediction(plane, image.astype(np.float32), None, DiscCodec(stride=2))


def test_a_plain_spine_has_nothing_odd():
    plain = drawn()
    assert find_voids(plain, discs()) == []
    assert find_flat_discs(plain, discs()) == []
    assert find_step(plain, canal(), discs()) is None


def test_a_void_is_told_by_the_discs_in_it():
    plain = drawn()
    y, z = plain.plane.points_world[..., 1], plain.plane.points_world[..., 2]
    image = plain.image.copy()
    image[(np.abs(z - TIPS_Z[2]) < 13) & (y > COLUMN - 2) & (y < COLUMN + 28)] = 1e-3
    assert [disc.value for disc in find_voids(replace(plain, image=image), discs())] == [20]


def test_dark_discs_and_dark_bodies_alone_are_no_void():
    plain = drawn()
    y, z = plain.plane.points_world[..., 1], plain.plane.points_world[..., 2]
    column = (y > COLUMN) & (y < COLUMN + 30)
    at_disc = np.abs(z[..., None] - TIPS_Z).min(axis=-1) < 4
    for dark in (column & at_disc, column & ~at_disc):
        image = np.where(dark, 1e-3, plain.image).astype(np.float32)
        assert find_voids(replace(plain, image=image), discs()) == []


def test_where_everything_is_dark_no_void_is_told():
    plain = drawn()
    y = plain.plane.points_world[..., 1]
    image = np.where(y > COLUMN - 2, 1e-3, plain.image).astype(np.float32)
    assert find_voids(replace(plain, image=image), discs()) == []


@pytest.mark.parametrize("missing", [1, 3, 5])
def test_a_disc_that_is_bone_is_told(missing):
    seen = np.delete(TIPS_Z, missing)
    assert [disc.value for disc in find_flat_discs(drawn(discs_seen=seen), discs())] == [18 + missing]


def test_discs_that_stand_out_less_and_less_are_not_fused():
    """Each stands out 0.6 times as much as the one above: the lowest a fifth as much as the median of all."""
    plain = drawn()
    z = plain.plane.points_world[..., 2]
    fading = 0.6 ** ((TIPS_Z[0] - z) / 30)
    image = (0.3 + (plain.image - 0.3) * fading).astype(np.float32)
    assert find_flat_discs(replace(plain, image=image), discs()) == []


def test_a_disc_of_the_bone_s_mean_that_has_edges_is_not_fused():
    plain = drawn(discs_seen=np.delete(TIPS_Z, 3))
    y, z = plain.plane.points_world[..., 1], plain.plane.points_world[..., 2]
    image = plain.image.copy()
    stripes = (np.abs(z - TIPS_Z[3]) < 7) & (y > COLUMN) & (y < COLUMN + 30)
    image[stripes] += np.where(np.round(z[stripes] / PIXEL_MM) % 2, 0.15, -0.15).astype(np.float32)
    assert find_flat_discs(replace(plain, image=image), discs()) == []


@pytest.mark.parametrize("pixels", [-5, -4, 4, 5])
@pytest.mark.parametrize("row", [40, 66])
def test_a_step_is_told_with_its_place_and_size(pixels, row):
    plain = drawn()
    image = plain.image.copy()
    image[row:] = np.roll(image[row:], pixels, axis=1)
    place, step_mm = find_step(replace(plain, image=image), canal(), discs())
    assert step_mm == pixels * PIXEL_MM
    assert place[2] == pytest.approx(-PIXEL_MM * (row - 0.5), abs=2 * PIXEL_MM)


@pytest.mark.parametrize(("columns", "is_found"), [(64, True), (44, False)])
def test_a_step_is_not_looked_for_in_a_narrow_image(columns, is_found):
    """With few columns, anything looks like anything once it is moved."""
    plain = drawn()
    image = plain.image.copy()
    image[40:] = np.roll(image[40:], 4, axis=1)
    image[:, columns:] = 0
    found = find_step(replace(plain, image=image), canal(), discs())
    assert (found is not None) is is_found


def test_the_border_of_an_image_is_no_step():
    plain = drawn()
    image = plain.image.copy()
    image[:, 62:] = 0
    image[60:, 58:] = 0
    assert find_step(replace(plain, image=image), canal(), discs()) is None


def test_a_leaning_spine_has_no_step():
    plain = drawn()
    lean = np.round(np.arange(SHAPE[0]) * 0.4).astype(int)
    image = np.stack([np.roll(r, n) for r, n in zip(plain.image, lean - lean[60], strict=True)])
    assert find_step(replace(plain, image=image), canal(), discs()) is None


def mosaic_of(volume, down, across):
    """Lay sagittal slices of a volume side by side in one picture."""
    first = (len(volume.data) - down * across) // 2
    slices = [volume.data[max(first, 0) + n] for n in range(min(down * across, len(volume.data)))]
    slices += [np.zeros_like(slices[0])] * (down * across - len(slices))
    picture = np.block([slices[row * across : (row + 1) * across] for row in range(down)])
    return Volume(picture[None], Grid((1, *picture.shape), volume.grid.affine))


@pytest.mark.parametrize("tiles", [(2, 1), (1, 2), (3, 2), (2, 3), (3, 3)])
def test_slices_laid_side_by_side_are_a_mosaic(phantom, tiles):
    assert mosaic_tiles(mosaic_of(phantom.volume, *tiles)) == tiles
    assert mosaic_tiles(phantom.volume) is None


def test_slices_of_noise_or_of_nothing_are_no_mosaic():
    grid = Grid((5, 200, 200), np.eye(4))
    assert mosaic_tiles(Volume(np.random.default_rng(0).normal(size=grid.shape), grid)) is None
    assert mosaic_tiles(Volume(np.zeros(grid.shape), grid)) is None
    assert mosaic_tiles(Volume(np.full(grid.shape, np.nan), grid)) is None


def stacked(plain, first_row, rows):
    """Show some rows of a plane again right below, as grey as another slab may have them."""
    noise = np.random.default_rng(1).normal(0, 0.01, plain.image.shape)
    upper, copy = plain.image[: first_row + rows], plain.image[first_row:] * 1.3
    image = np.concatenate([upper, copy])[: len(plain.image)] + noise
    return replace(plain, image=image.astype(np.float32))


def uneven():
    """Return a plane in which no level looks like another one."""
    texture = (
        np.random.default_rng(2).normal(0, 0.2, (SHAPE[0] // 4, SHAPE[1] // 5)).repeat(4, 0).repeat(5, 1)
    )
    plain = drawn()
    return replace(plain, image=(plain.image + texture).astype(np.float32))


@pytest.mark.parametrize("rows", [10, 20, 38])
def test_a_part_that_is_shown_twice_is_found(rows):
    place, length_mm = find_repeat(stacked(uneven(), 40, rows), canal())
    assert length_mm == pytest.approx(rows * PIXEL_MM)
    assert place[2] == pytest.approx(-(40 + rows - 0.5) * PIXEL_MM, abs=PIXEL_MM)


def test_levels_that_look_alike_are_no_repeat():
    assert find_repeat(uneven(), canal()) is None
    assert find_repeat(stacked(uneven(), 40, 5), canal()) is None  # 10 mm: less than half a level
    empty = np.zeros(SHAPE, np.float32)
    assert find_repeat(replace(drawn(), image=empty), canal()) is None
