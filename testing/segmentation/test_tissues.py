import numpy as np
import pytest

from sct_deepspine.segmentation.tissues import ANY_TISSUE, Tissue, TissueCodec


def test_every_tissue_is_one_bit_of_the_set_of_all():
    assert sum(tissue.bit for tissue in Tissue) == ANY_TISSUE


def test_maps_become_probabilities():
    raw = np.zeros((5, 2, 3), dtype=np.float32)
    raw[Tissue.CORD, 0, 1] = 10
    maps = TissueCodec().split(raw)
    np.testing.assert_allclose(maps.sum(axis=0), 1, rtol=1e-6)
    assert maps[:, 0, 1].argmax() == Tissue.CORD
    np.testing.assert_allclose(maps[:, 1, 2], 0.2)


def test_another_number_of_maps_is_refused():
    with pytest.raises(ValueError, match="expected 5 maps, got 4"):
        TissueCodec().split(np.zeros((4, 2, 2)))
