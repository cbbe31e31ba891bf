"""What may be discs on a sagittal plane, before levels are assigned to them."""

from __future__ import annotations

from dataclasses import replace

from sct_deepspine.geometry.centerline import Centerline, distance_from_line_mm
from sct_deepspine.geometry.planes import SLAB_MM, midsagittal_plane, normalise, sample
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.labeling.heatmaps import DiscPredictor, PlanePrediction
from sct_deepspine.labeling.levels import Candidates, DecodingParameters, LevelAssignment, best_path

__all__ = ["assignment_score", "columns_about", "find_candidates", "predict_midsagittal", "spine_score"]

CANDIDATE_THRESHOLD = 0.1
"""Least height of a peak of the any-disc map, 0 to 1. Chosen on ``val``."""

BESIDE_CANAL_MM = 30.0
"""A tip is no farther than this from the canal, which is followed straight on beyond its ends."""

LENGTH_POWER = 0.75
"""An assignment's score is weighed against its number of discs to this power: chance makes short ones."""


def predict_midsagittal(
    view: DeobliquedVolume, canal: Centerline, predictor: DiscPredictor
) -> PlanePrediction:
    """Predict the coarse maps on one plane along the spine."""
    plane = midsagittal_plane(view, canal, predictor.pixel_mm)
    image = normalise(*sample(view.volume, plane, slab_mm=SLAB_MM))
    return PlanePrediction(plane, image, predictor.predict([image])[0], predictor.codec)


def find_candidates(prediction: PlanePrediction, canal: Centerline, volume: Volume) -> Candidates:
    """Find what may be discs, as world points that lie in the image and beside the canal."""
    cells, score, level = prediction.codec.decode(prediction.maps, threshold=CANDIDATE_THRESHOLD)
    points = prediction.plane.world_from_pixel(prediction.codec.pixel_from_cell(cells))
    beside = distance_from_line_mm(points, canal) < BESIDE_CANAL_MM
    inside = beside & volume.grid.contains_voxel(volume.grid.voxel_from_world(points))
    return Candidates(points[inside], score[inside], level[inside], prediction.codec.first_value)


def columns_about(prediction: PlanePrediction, canal: Centerline, margin_mm: float) -> PlanePrediction:
    """Keep the columns of a prediction's plane and image near the canal; its maps stay as they are."""
    columns = prediction.plane.columns_about(canal.samples_world, margin_mm)
    narrow = replace(prediction.plane, points_world=prediction.plane.points_world[:, columns])
    return replace(prediction, plane=narrow, image=prediction.image[:, columns])


def spine_score(candidates: Candidates, parameters: DecodingParameters) -> float:
    """Return :func:`assignment_score` of the best assignment of some candidates; 0 if there are none."""
    if not len(candidates.score):
        return 0.0
    path = best_path(candidates, parameters=parameters)
    return path.score / len(path.values) ** LENGTH_POWER


def assignment_score(assignment: LevelAssignment) -> float:
    """Return how well an assignment shows that there is a spine: its score, weighed against its length."""
    return assignment.score / len(assignment.values) ** LENGTH_POWER
