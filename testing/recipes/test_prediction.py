from dataclasses import dataclass, field

import numpy as np
import pytest

from sct_deepspine.errors import ImageError, WeightsError
from sct_deepspine.models.config import UNetConfig
from sct_deepspine.models.predictor import Predictor
from sct_deepspine.models.weights import SHIPPED
from sct_deepspine.recipes.dataset import MaskSlices, slices_of
from sct_deepspine.recipes.folders import Sample
from sct_deepspine.recipes.prediction import PIXEL_MM, MaskModel
from sct_deepspine.recipes.task import MaskCodec, MaskTask, Standardisation


@dataclass
class FakeNetwork:
    """Draws what it sees, or a value that counts its calls; keeps what it was shown."""

    channels: int = 1
    constant: bool = False
    seen: list = field(default_factory=list)

    @property
    def config(self):
        return UNetConfig(channels=1, in_channels=self.channels, width=4)

    def run(self, planes):
        self.seen.append(np.array(planes))
        maps = planes[:, :1].copy()
        if self.constant:
            maps[:] = np.arange(len(maps))[:, None, None, None]
        return maps

    def attention(self, planes):
        return None


def model(network, patch=None, standard=None):
    standard = standard or Standardisation("training", (0.0,) * network.channels, (1.0,) * network.channels)
    task = MaskTask(MaskCodec((0, 255)), standard, network.channels, patch=patch)
    return MaskModel(Predictor(network, task.codec, PIXEL_MM), task)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("patch", "stride"), [(None, None), (8, None), (16, None), (64, None), (8, 3), (16, 3), (64, 3)]
)
def test_every_pixel_is_predicted_where_it_is(patch, stride, rng):
    image = rng.normal(size=(3, 1, 29, 37))
    maps = model(FakeNetwork(), patch).probabilities(image, stride=stride)
    assert maps.shape == (2, 3, 29, 37)
    np.testing.assert_allclose(maps[1], sigmoid(image[:, 0]), atol=1e-6)


def test_probabilities_of_overlapping_patches_are_averaged():
    maps = model(FakeNetwork(constant=True), 8).probabilities(np.zeros((1, 1, 8, 16)), stride=4)
    own = sigmoid(np.arange(3))  # patches at 0, 4 and 8
    np.testing.assert_allclose(maps[1, 0, 0, :4], own[0], rtol=1e-6)
    np.testing.assert_allclose(maps[1, 0, 0, 4:8], own[:2].mean(), rtol=1e-6)
    np.testing.assert_allclose(maps[1, 0, 0, 8:12], own[1:].mean(), rtol=1e-6)


def test_the_mask_has_the_values_of_the_training_masks(rng):
    image = rng.normal(size=(2, 1, 13, 17))
    mask = model(FakeNetwork()).predict(image)
    np.testing.assert_array_equal(mask, np.where(image[:, 0] >= 0, 255, 0))


@pytest.mark.parametrize("kind", ["training", "image"])
def test_a_network_sees_in_prediction_what_it_saw_in_training(kind, rng):
    """Published code standardised the skin images in training only."""
    image = rng.integers(0, 255, (1, 3, 24, 32)).astype(np.uint8)
    sample = Sample("one", "one", image, np.zeros((1, 24, 32), dtype=int))
    standard = Standardisation.fit(kind, [sample])
    network = FakeNetwork(channels=3)
    fitted = model(network, standard=standard)
    trained = MaskSlices(slices_of([sample], fitted.task), fitted.task, seed=0, length=1)[0]["image"]
    fitted.probabilities(image)
    np.testing.assert_allclose(network.seen[0][0], trained.numpy(), atol=1e-5)
    assert abs(network.seen[0].mean()) < 1e-3


def test_an_image_of_other_channels_is_refused():
    with pytest.raises(ImageError, match="has 3 channels, the network was trained on 1"):
        model(FakeNetwork()).predict(np.zeros((1, 3, 8, 8)))


@pytest.mark.parametrize(
    ("patch", "stride", "message"), [(None, 4, "no stride"), (8, 9, "1 to"), (8, 0, "1 to")]
)
def test_a_stride_that_does_nothing_or_leaves_gaps_is_refused(patch, stride, message):
    with pytest.raises(ValueError, match=message):
        model(FakeNetwork(), patch).predict(np.zeros((1, 1, 8, 8)), stride=stride)


def test_weights_of_another_kind_are_refused():
    with pytest.raises(WeightsError, match="no network of masks"):
        MaskModel.load(SHIPPED)
