import numpy as np
import pytest

from sct_deepspine.models.images import with_channels


def test_one_channel_is_repeated_and_several_are_kept():
    grey = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert np.array_equal(with_channels(grey, 3)[:, 2], grey)
    several = np.stack([grey, -grey], axis=1)
    assert with_channels(several, 2) is several


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="takes 3 channels, the images have 2"):
        with_channels(np.zeros((1, 2, 8, 8), dtype=np.float32), 3)
