import numpy as np
import pytest

from sct_deepspine.anatomy import EXPECTED_SPACING_MM
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.segmentation.corridor import Corridor
from sct_deepspine.segmentation.levels import (
    assign_discs,
    assign_vertebrae,
    nearest_by_way,
    read_coarse,
    spread,
)

TIPS = {22: 150.0, 23: 115.0, 24: 80.0, 25: 45.0}
"""Height of four discs' tips, straight z."""


@pytest.fixture(scope="module")
def corridor():
    line = Centerline.from_points(np.stack([np.zeros(100), np.zeros(100), np.arange(0, 200, 2.0)], axis=1))
    return Corridor(StraightSpace(line), (0.0, 198.0))


@pytest.fixture(scope="module")
def spine(corridor):
    """Straight points of the cells, and masks of bone and disc: bodies, discs, sloping processes."""
    cells = np.indices(corridor.shape).reshape(3, -1).T
    x, y, z = corridor.straight_from_cell(cells).T.reshape(3, *corridor.shape)
    body = (y > 10) & (y < 42) & (np.abs(x) < 20)
    slope = 0.35 * (y - 10)  # discs slope down and forwards
    disc = np.zeros(corridor.shape, dtype=bool)
    for height in TIPS.values():
        disc |= body & (np.abs(z - height + slope) < 5)
    process = np.zeros(corridor.shape, dtype=bool)
    for height in TIPS.values():
        # Its root lies at the lower half of the body above the disc, its tip a whole level further down.
        process |= (y < -8) & (y > -45) & (np.abs(x) < 4) & (np.abs(z - (height + 4 + 0.9 * (y + 8))) < 5)
    bone = (body & ~disc) | process
    return (x, y, z), bone, disc, process


def tips_of(corridor):
    return {value: np.array([0.0, 10.0, height]) for value, height in TIPS.items()}


def whole(labels, corridor):
    cells = np.indices(corridor.shape).reshape(3, -1).astype(np.int32)
    return read_coarse(spread(labels, corridor), tuple(cells)).reshape(corridor.shape)


def test_discs_take_the_value_of_their_tip(corridor, spine):
    (_, y, z), _, disc, _ = spine
    found = whole(assign_discs(disc, tips_of(corridor), corridor), corridor)
    for value, height in TIPS.items():
        own = disc & (np.abs(z - height + 0.35 * (y - 10)) < 4)
        assert (found[own] == value).mean() > 0.98


def test_a_disc_without_a_labelled_tip_has_no_value(corridor, spine):
    _, _, disc, _ = spine
    tips = tips_of(corridor)
    del tips[25]
    assert set(np.unique(assign_discs(disc, tips, corridor))) == {0, 22, 23, 24}


def test_bodies_take_the_number_between_their_discs(corridor, spine):
    (_, y, z), bone, disc, process = spine
    tips = tips_of(corridor)
    found = whole(assign_vertebrae(bone, tips, assign_discs(disc, tips, corridor), corridor), corridor)
    bodies = bone & ~process
    middle = bodies & (np.abs(y - 26) < 14)
    sloped = z + 0.35 * (y - 10)
    for number in (22, 23, 24):
        own = middle & (sloped < TIPS[number] - 7) & (sloped > TIPS[number + 1] + 7)
        assert (found[own] == number).mean() > 0.98
    assert (found[middle & (sloped < TIPS[25] - 8) & (sloped > TIPS[25] - 25)] == 25).all()
    assert (found[middle & (sloped > TIPS[22] + 8) & (sloped < TIPS[22] + 25)] == 21).all()


def test_processes_out_of_touch_with_their_bodies_go_by_their_roots(corridor, spine):
    (_, y, z), bone, disc, process = spine
    tips = tips_of(corridor)
    found = whole(assign_vertebrae(bone, tips, assign_discs(disc, tips, corridor), corridor), corridor)
    for number, disc_below in ((22, 23), (23, 24), (24, 25)):
        own = process & (np.abs(z - (TIPS[disc_below] + 4 + 0.9 * (y + 8))) < 4)
        assert (found[own] == number).mean() > 0.95


def test_processes_that_touch_each_other_keep_their_numbers(corridor, spine):
    """Old spines have processes that meet at their tips: the roots tell them apart."""
    (x, y, z), bone, disc, process = spine
    meeting = (y < -40) & (y > -45) & (np.abs(x) < 4) & (z > 15) & (z < 125)
    tips = tips_of(corridor)
    bone = bone | meeting
    found = whole(assign_vertebrae(bone, tips, assign_discs(disc, tips, corridor), corridor), corridor)
    for number, disc_below in ((22, 23), (23, 24), (24, 25)):
        root = process & (y > -28) & (np.abs(z - (TIPS[disc_below] + 4 + 0.9 * (y + 8))) < 4)
        assert (found[root] == number).mean() > 0.95


def test_bone_far_beyond_the_discs_has_no_number(corridor, spine):
    """One vertebra follows beyond the first and the last disc, though bone may go on without a gap."""
    (x, y, z), _, disc, _ = spine
    tips = {value: tip for value, tip in tips_of(corridor).items() if value in (23, 24)}
    sloped = z + 0.35 * (y - 10)
    seen = disc & (sloped < TIPS[23] + 8) & (sloped > TIPS[24] - 8)
    column = (y > 10) & (y < 42) & (np.abs(x) < 20) & ~seen
    found = whole(assign_vertebrae(column, tips, assign_discs(seen, tips, corridor), corridor), corridor)
    middle = column & (np.abs(y - 26) < 10)
    spacing = TIPS[23] - TIPS[24]
    assert (found[middle & (sloped > TIPS[23] + 8) & (sloped < TIPS[23] + 0.8 * spacing)] == 22).all()
    assert (found[middle & (sloped < TIPS[24] - 8) & (sloped > TIPS[24] - 0.8 * spacing)] == 24).all()
    assert (found[middle & (sloped > TIPS[23] + 1.7 * spacing)] == 0).all()
    assert (found[middle & (sloped < TIPS[24] - 2.05 * spacing)] == 0).all()
    assert (middle & (sloped < TIPS[24] - 2.05 * spacing)).any()


def test_one_disc_names_the_vertebrae_above_and_below_it(corridor, spine):
    """Their heights are the template's, as there is no other disc to measure by."""
    (x, y, z), _, disc, _ = spine
    tips = {23: tips_of(corridor)[23]}
    sloped = z + 0.35 * (y - 10)
    seen = disc & (np.abs(sloped - TIPS[23]) < 8)
    column = (y > 10) & (y < 42) & (np.abs(x) < 20) & ~seen
    found = whole(assign_vertebrae(column, tips, assign_discs(seen, tips, corridor), corridor), corridor)
    middle = column & (np.abs(y - 26) < 10)
    height = EXPECTED_SPACING_MM[23]
    for number, side in ((22, 1), (23, -1)):
        beside = side * (sloped - TIPS[23])
        assert (found[middle & (beside > 8) & (beside < 0.8 * height)] == number).all()
    assert (found[middle & (sloped > TIPS[23] + 1.6 * height)] == 0).all()
    assert (found[middle & (sloped < TIPS[23] - 2 * height)] == 0).all()


def test_the_last_vertebrae_are_as_high_as_the_distance_of_the_discs_says(corridor):
    """A small person: the discs are 22 mm apart, where the template has more than 30."""
    x, y, z = corridor.straight_from_cell(np.indices(corridor.shape).reshape(3, -1).T).T.reshape(
        3, *corridor.shape
    )
    column = (y > 10) & (y < 42) & (np.abs(x) < 20)
    upper, lower = 119.5, 97.5
    disc = column & ((np.abs(z - upper) < 4.9) | (np.abs(z - lower) < 4.9))
    tips = {22: np.array([0.0, 10.0, upper]), 23: np.array([0.0, 10.0, lower])}
    found = assign_vertebrae(column & ~disc, tips, assign_discs(disc, tips, corridor), corridor)
    rows = np.nonzero(found.any(axis=(0, 2)))[0]
    step = corridor.shape[1] / found.shape[1]
    heights = corridor.straight_from_cell(np.stack([0 * rows, step * rows, 0 * rows], axis=1))[:, 2]
    top, bottom = upper + 1.3 * 22, lower - 1.7 * 22
    assert heights.max() <= top < heights.max() + step
    assert heights.min() - step < bottom <= heights.min()


@pytest.mark.parametrize("lost", [22, 23, 25])
def test_a_tip_whose_disc_is_not_seen_names_the_bodies_beside_it(lost, corridor, spine):
    (_, y, z), bone, disc, process = spine
    sloped = z + 0.35 * (y - 10)
    seen = disc & (np.abs(sloped - TIPS[lost]) > 8)
    tips = tips_of(corridor)
    found = whole(assign_vertebrae(bone, tips, assign_discs(seen, tips, corridor), corridor), corridor)
    middle = bone & ~process & (np.abs(y - 26) < 10)
    for number in (22, 23, 24):
        own = middle & (sloped < TIPS[number] - 9) & (sloped > TIPS[number + 1] + 9)
        assert (found[own] == number).mean() > 0.95


def test_discs_on_either_side_of_a_gap_name_what_is_next_to_them(corridor, spine):
    (_, y, z), bone, disc, process = spine
    tips = {value: tip for value, tip in tips_of(corridor).items() if value in (22, 24)}
    found = whole(assign_vertebrae(bone, tips, assign_discs(disc, tips, corridor), corridor), corridor)
    sloped = z + 0.35 * (y - 10)
    middle = bone & ~process & (np.abs(y - 26) < 10)
    own = {
        22: (TIPS[23] + 8, TIPS[22] - 8),
        23: (TIPS[24] + 8, TIPS[23] - 8),
        24: (TIPS[25] + 8, TIPS[24] - 8),
    }
    for number, (low, high) in own.items():
        assert (found[middle & (sloped > low) & (sloped < high)] == number).mean() > 0.95


def test_a_piece_between_two_vertebrae_goes_to_one_of_them_as_a_whole(corridor, spine):
    (x, y, z), bone, disc, process = spine
    root = (y < -8) & (y > -20)
    middle_23 = (TIPS[23] + TIPS[24]) / 2 - 0.35 * 16  # the middle of a body lies before the line of the tips
    upper = root & (x > 3) & (x < 8) & (z > middle_23 - 3) & (z < middle_23 + 5)
    lower = root & (x < -3) & (x > -8) & (z > middle_23 - 5) & (z < middle_23 + 3)
    tips = tips_of(corridor)
    pieces = (bone & ~process) | upper | lower
    found = whole(assign_vertebrae(pieces, tips, assign_discs(disc, tips, corridor), corridor), corridor)
    assert (found[upper] == 22).mean() > 0.9
    assert (found[lower] == 23).mean() > 0.9


def test_without_any_disc_in_the_mask_no_cell_has_a_value(corridor):
    empty = np.zeros(corridor.shape, dtype=bool)
    found = assign_discs(empty, tips_of(corridor), corridor)
    assert found.dtype == np.uint8
    assert not found.any()


def test_cells_at_the_border_read_the_last_coarse_cell():
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    cells = np.array([[0, 0, 0], [1, 4, 6], [1, 5, 7], [1, 6, 8], [0, 2, 3]], dtype=np.int32)
    assert read_coarse(labels, tuple(cells.T)).tolist() == [0, 23, 23, 23, 5]


def test_the_way_goes_through_the_mask_only():
    mask = np.ones((1, 9, 9), dtype=bool)
    mask[0, :8, 4] = False  # a wall with a gap at the bottom
    seeds = np.zeros(mask.sum(), dtype=np.int64)
    places = np.argwhere(mask)
    seeds[(places == (0, 0, 3)).all(axis=1)] = 1
    seeds[(places == (0, 8, 8)).all(axis=1)] = 2
    labels, way = nearest_by_way(mask, seeds, (1.0, 1.0, 1.0))
    assert labels.dtype == np.uint8
    assert labels[0, 0, 5] == 2
    assert labels[0, 0, 0] == 1
    assert way[0, 0, 0] == 3
    assert labels[0, 0, 4] == 0
    assert np.isinf(way[0, 0, 4])


def test_labels_spread_over_a_border_and_no_farther(corridor):
    labels = np.zeros((3, 20, 20), dtype=np.uint8)
    labels[1, 10, 10] = 7
    out = spread(labels, corridor)
    assert out[1, 11, 10] == out[0, 10, 10] == 7
    assert out[1, 13, 10] == 0
    assert out.dtype == np.uint8
    assert not spread(np.zeros_like(labels), corridor).any()
