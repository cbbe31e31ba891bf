"""Whether levels and places survive changes that leave the anatomy alone.

The midsagittal plane is read again under a few changes, all in one call of the network: other grey values,
one end or the other cut off, a little blur. What is certain is found again, at the same place and with the
same level; half a level off is a disagreement.

Axes: ``r`` reading, ``k`` disc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.canal import ABOUT_CANAL_MM
from sct_deepspine.labeling.candidates import columns_about, find_candidates
from sct_deepspine.labeling.heatmaps import DiscPredictor, MapArray, PlanePrediction
from sct_deepspine.labeling.levels import Candidates, LevelPath
from sct_deepspine.labeling.refinement import REACH_MM

__all__ = ["CHANGES", "Agreement", "Reading", "agreement", "landmark_support", "read_again"]

CUT_MM, CUT_SHARE = 25.0, 0.2
"""Cut off one end of the view, or this share of its height if that is less: more than a cervical level, less
than a lumbar one."""

BLUR_MM = 1.0
"""Standard deviation of the blur: what the slices of a coarser scan lose."""

SAME_MM = 6.0
"""A disc is found again within this distance: less than half of the shortest level (15 mm)."""

LANDMARK_MM = 10.0
"""A landmark is found again within this distance: its place is known to a few mm only."""

SEEN = 0.5
"""A disc or landmark is seen where the probability of its level exceeds this."""

STRONG = 0.2
"""A peak of the any-disc map of a reading counts as a disc found again from here on."""

AGAIN_SHARE = 0.7
"""Share of the discs that a reading which agrees finds again."""

LEVEL_FLOOR, FAINT = 1e-4, 0.01
"""Added to levels, and to scores, before one is divided by another: nothing is ruled out by one reading."""

Change = Callable[[MapArray, float], MapArray]
"""Changes a normalised plane (0 outside the image), given the edge of its pixels in mm."""


def _power(exponent: float) -> Change:
    def change(image: MapArray, pixel_mm: float) -> MapArray:
        inside = image != 0
        if not inside.any():
            return image
        low, high = image[inside].min(), image[inside].max()
        grey = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1) ** exponent
        mean, spread = grey[inside].mean(), grey[inside].std()
        return np.where(inside, (grey - mean) / max(float(spread), 1e-3), 0).astype(np.float32)

    return change


def _without_end(end: int) -> Change:
    def change(image: MapArray, pixel_mm: float) -> MapArray:
        rows = np.flatnonzero((image != 0).any(axis=1))
        out, count = image.copy(), max(1, round(min(CUT_MM / pixel_mm, CUT_SHARE * len(rows))))
        out[rows[:count] if end > 0 else rows[-count:]] = 0
        return out

    return change


def _blurred(image: MapArray, pixel_mm: float) -> MapArray:
    from scipy.ndimage import gaussian_filter

    inside = (image != 0).astype(np.float32)
    sigma = BLUR_MM / pixel_mm
    share = np.maximum(gaussian_filter(inside, sigma), 1e-3)
    return np.where(inside > 0, gaussian_filter(image, sigma) / share, 0).astype(np.float32)


CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        "inverted": lambda image, pixel_mm: -image,
        "gamma 0.5": _power(0.5),
        "gamma 2": _power(2.0),
        "cut above": _without_end(1),
        "cut below": _without_end(-1),
        "blurred": _blurred,
    }
)
"""The changes by name."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read on a changed plane.

    Parameters
    ----------
    change
        Name of the change.
    candidates
        What the coarse stage found there, world points; places are compared with these.
    refined
        The candidates of the view as it is, with the coarse stage's part of their scores and levels from this
        reading, and what it found besides.
    path
        Levels of ``refined``; None where nothing was found.
    level
        ``(K, L)`` what the reading says of the levels of the view's candidates.
    shown
        ``(rows,)`` which rows of the plane the change left.
    """

    change: str
    candidates: Candidates
    refined: Candidates
    path: LevelPath | None
    level: FloatArray
    shown: NDArray[np.bool_]


def read_again(
    prediction: PlanePrediction,
    canal: Centerline,
    volume: Volume,
    predictor: DiscPredictor,
    *,
    candidates: Candidates,
    decode: Callable[[Candidates], LevelPath],
    changes: Mapping[str, Change] = CHANGES,
) -> list[Reading]:
    """Read the midsagittal plane under each change, in one call of the network.

    Parameters
    ----------
    prediction
        Of the plane as it is.
    canal
        Along the spine.
    volume
        That the plane was read of, for what lies in it.
    predictor
        The coarse network.
    candidates
        Of the view as it is, refined or not.
    decode
        Finds the best levels.
    changes
        By name.
    """
    narrow = columns_about(prediction, canal, ABOUT_CANAL_MM)
    images = [change(narrow.image, narrow.plane.pixel_mm) for change in changes.values()]
    said_score, said_level = prediction.at(candidates.points)
    readings = []
    for name, image, maps in zip(changes, images, predictor.predict(images), strict=True):
        changed = replace(narrow, image=image, maps=maps)
        found = find_candidates(changed, canal, volume)
        score, level = changed.at(candidates.points)
        joint = (candidates.level + LEVEL_FLOOR) * (level + LEVEL_FLOOR) / (said_level + LEVEL_FLOOR)
        refined = replace(
            candidates,
            score=np.clip(candidates.score * np.sqrt((score + FAINT) / (said_score + FAINT)), 0, 1),
            level=joint / joint.sum(axis=1, keepdims=True),
        )
        refined = _with_others(refined, found)
        path = decode(refined) if len(refined.score) else None
        readings.append(Reading(name, found, refined, path, level, (image != 0).any(axis=1)))
    return readings


def _with_others(refined: Candidates, found: Candidates) -> Candidates:
    """Add what was found far from all candidates, in order."""
    if not len(found.score):
        return refined
    distance = np.linalg.norm(found.points[:, None] - refined.points, axis=2)
    other = distance.min(axis=1, initial=np.inf) > REACH_MM
    points = np.vstack([refined.points, found.points[other]])
    order = np.argsort(-points[:, 2], kind="stable")
    return replace(
        refined,
        points=points[order],
        score=np.append(refined.score, found.score[other])[order],
        level=np.vstack([refined.level, found.level[other]])[order],
    )


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far readings of a changed view agree with its labels.

    Parameters
    ----------
    levels
        Share of the readings that find seven of ten discs again, and none within 6 mm with another value.
    places
        Share of the discs that are found again, of whatever level.
    discs
        ``(K,)`` share of the readings that find each disc again, of those that show its place.
    """

    levels: float
    places: float
    discs: FloatArray


def agreement(
    readings: Sequence[Reading],
    prediction: PlanePrediction,
    points: FloatArray,
    values: NDArray[np.int_],
    *,
    landmarks: Sequence[int],
) -> Agreement:
    """Compare readings with discs and landmarks that were found in the view as it is.

    Parameters
    ----------
    readings
        Of the changed plane.
    prediction
        Of the plane as it is; places are compared on it.
    points, values
        ``(K, 3)`` world points and ``(K,)`` values of discs and landmarks.
    landmarks
        Values that are no disc.
    """
    rows = [_comparison(reading, prediction, points, values, landmarks) for reading in readings]
    shown, again, agrees = (np.array(column) for column in zip(*rows, strict=True))
    is_disc = ~np.isin(values, list(landmarks))
    counted = shown & is_disc
    total = np.maximum(shown.sum(axis=0), 1)
    return Agreement(
        levels=float(agrees.mean()),
        places=float((again & counted).sum() / max(counted.sum(), 1)),
        discs=(again & shown).sum(axis=0)[is_disc] / total[is_disc],
    )


def _comparison(
    reading: Reading,
    prediction: PlanePrediction,
    points: FloatArray,
    values: NDArray[np.int_],
    landmarks: Sequence[int],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], bool]:
    """Return which places a reading shows and finds again, and whether it agrees."""
    plane = prediction.plane
    here = plane.pixel_from_world(points) * plane.pixel_mm
    row = np.clip(np.round(here[:, 0] / plane.pixel_mm).astype(int), 0, len(reading.shown) - 1)
    shown = reading.shown[row]
    nothing = np.zeros(len(values), dtype=bool)
    if reading.path is None:
        return shown, nothing, False
    is_landmark = np.isin(values, list(landmarks))
    reach = np.where(is_landmark, LANDMARK_MM, SAME_MM)[:, None]

    def near_to(points_world: FloatArray) -> NDArray[np.bool_]:
        there = plane.pixel_from_world(points_world) * plane.pixel_mm
        return np.linalg.norm(here[:, None] - there, axis=2) < reach

    strong = reading.candidates.score > STRONG
    again = np.asarray(near_to(reading.candidates.points[strong]).any(axis=1))
    near = near_to(reading.refined.points[reading.path.indices])
    equal = values[:, None] == reading.path.values
    other = (near & ~equal)[~is_landmark].any()
    discs = shown & ~is_landmark
    enough = (again & discs).sum() >= AGAIN_SHARE * max(discs.sum(), 1)
    return shown, again, bool(enough and not other and discs.any())


def landmark_support(
    readings: Sequence[Reading],
    prediction: PlanePrediction,
    candidates: Candidates,
    indices: Sequence[int],
    *,
    values: Sequence[int],
) -> float:
    """Return how probable the best of some landmarks is at its place, on average over the readings.

    Parameters
    ----------
    readings, prediction
        As of :func:`agreement`; readings that do not show the place are left out.
    candidates
        Of the view as it is.
    indices, values
        Which of them are landmarks, and which.

    Returns
    -------
    float
        0 if there is none.
    """
    best = 0.0
    for k, value in zip(indices, values, strict=True):
        pixel = prediction.plane.pixel_from_world(candidates.points[k][None])[0, 0]
        row = int(np.clip(round(float(pixel)), 0, prediction.plane.shape[0] - 1))
        column = value - candidates.first_value
        seen = [float(reading.level[k, column]) for reading in readings if reading.shown[row]]
        best = max(best, float(np.mean(seen)) if seen else 0.0)
    return best
