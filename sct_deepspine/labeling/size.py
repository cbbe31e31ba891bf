"""Whether the spine would look more like one if the voxels had another size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.planes import SamplingPlane
from sct_deepspine.geometry.reading import read_linear_axis
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.canal import ABOUT_CANAL_MM
from sct_deepspine.labeling.candidates import columns_about, find_candidates, spine_score
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labeling.model import LabelingModel

__all__ = ["wrong_size"]

FACTORS = 0.5, 2.0
"""Other sizes that are tried: voxels that are given twice too large, and half as large as they are."""

CLEARLY = 1.2
"""A spine of another size must score this many times as much. Of 600 right views of ``val`` none came to more
than 0.9 at half the size, but for those whose voxels had been made 1.4 times too large."""

TALLEST_ENLARGED_MM = 160.0
"""Taller views are not enlarged, which takes four times as long: twice as large they would be a whole
spine."""


def wrong_size(prediction: PlanePrediction, canal: Centerline, volume: Volume, model: LabelingModel) -> float:
    """Return how many times too large the voxels seem to be, 2 or 0.5; 1 if they don't.

    Parameters
    ----------
    prediction
        Of the midsagittal plane.
    canal
        Along the spine.
    volume
        That the plane was read of.
    model
        The coarse network, and what a spine must score.
    """
    narrow = columns_about(prediction, canal, ABOUT_CANAL_MM)
    own = _score(prediction, canal, volume, model, 1.0)
    scores = {
        factor: _score(_resized(narrow, factor, model), canal, volume, model, factor)
        for factor in FACTORS
        if factor < 1 or narrow.plane.shape[0] * narrow.plane.pixel_mm < TALLEST_ENLARGED_MM
    }
    best = max(scores, key=lambda factor: scores[factor])
    return 1 / best if scores[best] > max(CLEARLY * own, model.minimum_score) else 1.0


def _resized(narrow: PlanePrediction, factor: float, model: LabelingModel) -> PlanePrediction:
    """Predict the maps of the same plane, shrunk or enlarged."""
    image = narrow.image
    for axis, count in enumerate(narrow.image.shape):
        image = read_linear_axis(image, np.linspace(0, count - 1, max(1, round(count * factor))), axis)
    places = [(np.arange(n) + 0.5) / factor - 0.5 for n in image.shape]
    pixels = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, 2)
    points = narrow.plane.world_from_pixel(pixels).reshape(*image.shape, 3)
    plane = SamplingPlane(points, narrow.plane.pixel_mm / factor, narrow.plane.axes)
    return replace(narrow, plane=plane, image=image, maps=model.locate.predict([image])[0])


def _score(
    prediction: PlanePrediction, canal: Centerline, volume: Volume, model: LabelingModel, factor: float
) -> float:
    found = find_candidates(prediction, canal, volume)
    return spine_score(replace(found, points=factor * found.points), model.parameters)
