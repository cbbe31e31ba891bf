import numpy as np
from scipy.special import expit
from scipy.special import softmax as scipy_softmax

from sct_deepspine.models.maps import sigmoid, softmax


def test_probabilities_are_scipys_for_logits_of_any_size():
    logits = np.append(np.random.default_rng(1).normal(0, 9, (5, 7)), [[-900.0] * 7, [900.0] * 7], axis=0)
    np.testing.assert_allclose(sigmoid(logits), expit(logits), atol=1e-15)
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits, axis=0), atol=1e-15)


def test_single_precision_stays_single():
    logits = np.zeros((2, 3), dtype=np.float32)
    assert sigmoid(logits).dtype == softmax(logits).dtype == np.float32
