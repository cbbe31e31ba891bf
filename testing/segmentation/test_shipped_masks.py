"""The weights of the masks that come with the package."""

import numpy as np
import pytest

from sct_deepspine import segment_spine
from sct_deepspine.evaluation.masks import segment_and_score
from sct_deepspine.io.annotations import read_scans
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.models.weights import load_weights
from sct_deepspine.segmentation.masks import disc_mask_value, vertebra_mask_value
from sct_deepspine.segmentation.model import SHIPPED_MASKS, SegmentationModel
from sct_deepspine.simulation.perturbations import Case
from sct_deepspine.simulation.phantom import make_phantom


def test_their_card_says_what_was_measured_and_what_was_not():
    weights = load_weights(SHIPPED_MASKS)
    assert set(weights.networks) == {"segment"}
    assert weights.card["licence"]
    assert weights.card["training_data"]
    known = {1, 2, *map(vertebra_mask_value, range(1, 25)), *map(disc_mask_value, range(3, 26))}
    assert SegmentationModel.load().measured < known
    assert weights.card["segmentation"]["not_measured"]


def test_a_phantom_of_another_person_is_segmented():
    scan = make_phantom(np.random.default_rng(102), first=17, last=25, voxel_mm=(4.0, 1.5, 1.5))
    spine = segment_spine(scan.volume).spine
    for found, true in (
        ((spine == 1) | (spine == 2), scan.tissue.data >= 3),
        (spine >= 63, scan.tissue.data == 2),
    ):
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.75


@pytest.mark.data
def test_real_scans_are_segmented(data_folder):
    model, labeling = SegmentationModel.load(), LabelingModel.load()
    least = {"canal": 0.85, "discs": 0.8, "vertebrae": 0.85, "cord": 0.88, "bodies": 0.93}
    chosen = ("cervical_23", "spider034", "VB2_10")
    for scan in (s for s in read_scans(data_folder / "val") if s.name.startswith(chosen)):
        case = Case("plain", scan.volume, scan.discs, scan.span_z_mm)
        result = segment_and_score(scan, case, model=model, labeling=labeling)
        assert result.scores
        for score in result.scores:
            assert score.dice > least[score.structure]
            assert np.isnan(score.right_level) or score.right_level > least["bodies"]
