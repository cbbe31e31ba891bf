"""The weights that come with the package."""

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sct_deepspine import NoDiscsError, label_discs
from sct_deepspine.evaluation.run import evaluate_folder
from sct_deepspine.io.images import read_volume
from sct_deepspine.models.weights import SHIPPED, load_weights
from sct_deepspine.simulation.phantom import make_phantom


def test_they_are_small_whole_and_hold_all_networks():
    assert sum(path.stat().st_size for path in SHIPPED.parent.iterdir()) < 10e6
    weights = load_weights()
    assert set(weights.networks) == {"canal", "locate", "refine"}
    assert weights.card["licence"]
    assert weights.card["training_data"]


@pytest.mark.parametrize(("first", "last", "seed"), [(3, 12, 101), (17, 25, 102)])
def test_a_phantom_of_another_person_is_labelled(first, last, seed):
    scan = make_phantom(np.random.default_rng(seed), first=first, last=last, voxel_mm=(4.0, 1.5, 1.5))
    labels = label_discs(scan.volume)
    found = {disc.value: disc.point_world for disc in labels.discs}
    assert set(found) >= set(scan.discs)
    errors = [np.linalg.norm(found[value] - tip) for value, tip in scan.discs.items()]
    assert np.median(errors) < 3.0


@pytest.mark.parametrize("grain_mm", [0.0, 2.0, 6.0])
def test_noise_has_no_spine(grain_mm):
    data = np.random.default_rng(0).normal(100, 20, (30, 200, 200))
    data = gaussian_filter(data, [min(grain_mm, 1), grain_mm, grain_mm])
    with pytest.raises(NoDiscsError):
        label_discs((data, np.eye(4)))


@pytest.mark.parametrize(("first", "last"), [(3, 12), (14, 22), (17, 25)])
def test_a_body_without_a_spine_has_no_discs(first, last):
    rng = np.random.default_rng(first)
    scan = make_phantom(rng, first=first, last=last, spine=False, voxel_mm=(4.0, 1.5, 1.5))
    with pytest.raises(NoDiscsError):
        label_discs(nib.Nifti1Image(scan.volume.data, scan.volume.grid.affine))


@pytest.mark.data
def test_real_t2w_scans_bear_the_right_levels(data_folder):
    results = list(evaluate_folder(data_folder / "val"))
    t2w = [result.score for result in results if result.score.contrast == "T2w"]
    assert len(t2w) >= 10
    assert all(score.levels_right for score in t2w)
    assert np.median([error for score in t2w for error in score.errors_mm]) < 2.0


@pytest.mark.data
@pytest.mark.parametrize("name", ["cervical_23_T2w", "spider034_T2w"])
def test_two_slabs_that_were_stacked_are_doubted(data_folder, name):
    volume = read_volume(data_folder / "val" / f"{name}.nii.gz").as_ras()
    half, overlap = volume.grid.shape[2] // 2, round(20 / volume.grid.spacing_mm[2])
    lower, upper = volume.data[:, :, : half + overlap], volume.data[:, :, half - overlap :]
    data = np.concatenate([lower, upper], axis=2)
    labels = label_discs((data, volume.grid.affine))
    assert labels.level_confidence <= 0.3
    assert max(labels.confidence) <= 0.3
    (note,) = [note for note in labels.notes if note.kind == "repeat"]
    assert note.sentence.startswith("the 40 mm above ")
    assert not any(note.kind == "repeat" for note in label_discs(volume).notes)


@pytest.mark.data
@pytest.mark.parametrize("name", ["cervical_20_T2w", "lumbar_a_T1w", "spider078_T2w"])
def test_an_image_stored_upside_down_is_doubted(data_folder, name):
    image = nib.load(data_folder / "val" / f"{name}.nii.gz")
    data = np.asarray(image.dataobj)
    axis = [code in "SI" for code in nib.aff2axcodes(image.affine)].index(True)
    upright, turned = (label_discs((d, image.affine)) for d in (data, np.flip(data, axis)))
    assert not any("upside down" in warning for warning in upright.warnings)
    assert upright.level_confidence > 0.9
    assert any("upside down" in warning for warning in turned.warnings)
    assert turned.level_confidence <= 0.5
