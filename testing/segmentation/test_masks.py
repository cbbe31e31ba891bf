import json

import nibabel as nib
import numpy as np
import pytest
from fakes import fake_mask_model, fake_model

from sct_deepspine import segment_spine
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.segmentation.masks import SpineMasks, disc_mask_value, vertebra_mask_value

GRID = Grid((5, 7, 11), np.diag([2.0, 1.0, 1.5, 1.0]))


@pytest.fixture
def masks():
    spine = np.zeros(GRID.shape, dtype=np.uint8)
    spine[2, 3, :6] = 1
    spine[2, 4, :] = 2
    spine[1:4, 5, 2:5] = 44
    spine[1:4, 5, 5] = 95
    levels = np.where(spine == 1, 23, 0).astype(np.uint8)
    discs = (Disc(23, np.array([4.0, 4, 12]), 0.95), Disc(24, np.array([4.0, 4, 6]), 0.6))
    return SpineMasks(spine, levels, GRID, DiscLabels(discs, GRID, 0.6), measured=frozenset({44}))


def test_the_values_are_those_of_totalspineseg():
    vertebrae = [vertebra_mask_value(number) for number in range(1, 25)]
    assert vertebrae == [*range(11, 18), *range(21, 33), *range(41, 46)]
    assert [disc_mask_value(v) for v in range(3, 26)] == [*range(63, 68), *range(71, 83), *range(91, 96), 100]


@pytest.mark.parametrize(("function", "value"), [(vertebra_mask_value, 26), (disc_mask_value, 2)])
def test_values_that_are_none_are_refused(function, value):
    with pytest.raises(ValueError, match=f"got {value}"):
        function(value)


def test_the_canal_holds_the_cord(masks):
    assert masks.cord.sum() == 6
    assert masks.canal.sum() == 17


def test_each_structure_has_a_volume_a_confidence_and_what_is_doubtful(masks):
    body, disc = masks.structures
    assert (body.name, body.value, body.volume_mm3) == ("L4", 44, pytest.approx(9 * 3.0))
    assert (disc.name, disc.value) == ("L4/L5", 95)
    assert body.confidence == 0.6  # the less certain of the two discs beside it
    assert body.unsure
    assert body.measured
    assert not disc.measured


def test_the_files_hold_what_their_names_say(masks, tmp_path):
    for part in masks.parts:
        masks.save(tmp_path / f"t2_{part}.nii.gz", part=part)
    read = {path.name: np.asarray(nib.load(path).dataobj) for path in tmp_path.iterdir()}
    assert set(read) == {f"t2_{n}.nii.gz" for n in ("spine", "seg", "canal", "seg_labeled")}
    assert np.array_equal(read["t2_spine.nii.gz"], masks.spine)
    assert np.array_equal(read["t2_seg.nii.gz"], masks.cord)
    assert np.array_equal(read["t2_canal.nii.gz"], masks.canal)
    assert np.array_equal(read["t2_seg_labeled.nii.gz"], masks.cord_levels)


def test_the_facts_are_json(masks):
    facts = json.loads(json.dumps(masks.as_dict()))
    assert facts["cord_mm3"] == 18.0
    assert [part["unsure"] for part in facts["structures"]] == [True, True]


def test_masks_show_themselves_in_notebooks(phantom, painted_file):
    masks = segment_spine(painted_file, weights=fake_mask_model(), labeling=fake_model())
    html = masks._repr_html_()
    assert "data:image/png;base64," in html
    assert "<th>cm³</th>" in html
    assert masks.structures[0].name in html
