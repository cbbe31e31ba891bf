from dataclasses import replace

import pytest
from fakes import PaintReader

from sct_deepspine.labeling.heatmaps import DiscCodec
from sct_deepspine.training.dataset import PlaneSettings
from sct_deepspine.training.validation import Validation, write_convergence

CODEC = DiscCodec(stride=2)
PLANES = PlaneSettings(shape=(64, 32), pixel_mm=4.0)
STRAIGHT = PlaneSettings(shape=(96, 64), pixel_mm=1.0, straight=True, turn_degrees=10.0)


@pytest.mark.parametrize("settings", [replace(PLANES, pixel_mm=2.0), STRAIGHT], ids=["native", "straight"])
def test_a_perfect_network_has_a_perfect_score(settings, phantom, painted, tmp_path):
    validation = Validation([replace(phantom, volume=painted, landmarks={})], CODEC, settings)
    figures = validation.score(PaintReader(settings.pixel_mm, CODEC), 300, tmp_path)
    assert figures["missed"] == 0
    assert figures["mean_mm"] < 0.5
    if not settings.straight:  # the bright band by which levels are read is not wholly in view else
        assert figures["right"] == 1
        assert figures["score"] > 0.98
    assert [path.name for path in tmp_path.iterdir()] == ["validation_000300.png"]


def test_a_network_that_predicts_nothing_misses_everything(phantom, tmp_path):
    blank = PaintReader(PLANES.pixel_mm, CODEC, edit=lambda m: replace(m, any_disc=0 * m.any_disc))
    figures = Validation([phantom], CODEC, PLANES).score(blank, 1, tmp_path)
    assert (figures["missed"], figures["right"]) == (1, 0)
    assert figures["score"] < -1


def test_pictures_become_a_film(tmp_path):
    from PIL import Image

    assert write_convergence(tmp_path) is None
    for step in (1, 2, 3):
        Image.new("RGB", (40, 30), (80 * step, 0, 0)).save(tmp_path / f"validation_{step:06d}.png")
    path = write_convergence(tmp_path)
    with Image.open(path) as film:
        assert film.n_frames == 3
        assert film.size == (40, 30)
