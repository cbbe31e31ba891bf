"""label_discs(): from an image to its discs.

The stages, each a public function that can be called and replaced: find the canal, predict maps on the
midsagittal plane along it, find candidates, refine them in the straightened spine, and assign levels to them
as one ordered sequence.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from sct_deepspine.anatomy import DISC_VALUES, LANDMARK_VALUES
from sct_deepspine.errors import NoDiscsError, UncertainError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import SLAB_MM, midsagittal_plane, normalise, sample
from sct_deepspine.geometry.spacing import fill_skipped
from sct_deepspine.geometry.straightening import (
    ComposedSpace,
    ShearedSpace,
    StraighteningTransform,
    StraightSpace,
)
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.io.images import ImageLike
from sct_deepspine.labeling.anchors import Anchors, as_anchors, match_anchors
from sct_deepspine.labeling.calibration import view_kind
from sct_deepspine.labeling.canal import coarse_view, extend_centerline, find_centerline
from sct_deepspine.labeling.checks import (
    check_anchor_places,
    check_line,
    distance_from_canal_mm,
    given_centerline,
    read_scan,
)
from sct_deepspine.labeling.heatmaps import DiscPredictor, PlanePrediction
from sct_deepspine.labeling.levels import Candidates, LevelAssignment, assign_levels
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.refinement import refine_candidates
from sct_deepspine.labeling.review import check_anchors, find_warnings
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.models.weights import Weights

__all__ = [
    "assign_checked_levels",
    "assignment_score",
    "coarse_view",
    "find_candidates",
    "label_discs",
    "predict_midsagittal",
    "seems_upside_down",
    "straighten",
]

CANDIDATE_THRESHOLD = 0.1
BESIDE_CANAL_MM = 30.0
"""A tip is no farther than this from the canal, which is followed straight on beyond its ends."""

LENGTH_POWER = 0.75
"""An assignment's score is weighed against its number of discs to this power: chance makes short ones."""

UPSIDE_DOWN = (
    "more of a spine is seen with the image turned upside down; is the orientation in its header right?"
)
UPSIDE_DOWN_CONFIDENCE = 0.5
"""No labels of such an image are more certain than this."""

LANDMARK_SEEN = 0.5
"""A landmark is seen if this is exceeded by the probability that it is there."""


def label_discs(
    image: ImageLike,
    *,
    seg: ImageLike | None = None,
    centerline: Centerline | ArrayLike | None = None,
    anchor: Anchors | None = None,
    weights: LabelingModel | Weights | str | os.PathLike[str] | None = None,
    device: str | None = None,
    straight: str | Centerline | StraighteningTransform = "auto",
    min_confidence: float = 0.0,
    find_canal: Callable[..., Centerline] = find_centerline,
    refine: Callable[..., Candidates] = refine_candidates,
    assign: Callable[..., LevelAssignment] = assign_levels,
    return_maps: bool = False,
) -> DiscLabels:
    """Label the intervertebral discs of a spine MRI.

    Parameters
    ----------
    image
        Path, nibabel image, SCT ``Image`` or ``(array, affine)``: one 3-D volume of any contrast,
        orientation and field of view. It is not altered.
    seg
        Cord mask on any grid, of the same kinds; the centreline is then taken from it, and continued
        by the network where the image goes on far beyond it.
    centerline
        The centreline itself: a :class:`Centerline` or ``(N, 3)`` world points.
    anchor
        Discs whose level is known: ``{value: (x, y, z)}``, world mm, or one pair ``(value, (x, y, z))``.
        A coordinate that is not known is NaN; in an oblique image the others are then those of the image's
        middle. The other discs follow.
    weights
        Loaded weights or a weights file instead of the shipped one, which is read anew at each call: load it
        once (:meth:`LabelingModel.load`) to label many images.
    device
        Where torch runs the networks, as it names it. By default onnxruntime runs them if it is
        installed, else torch on the CPU.
    straight
        ``"auto"`` to straighten along the centreline, ``"off"`` to follow it without straightening, a
        line to straighten along instead, or a straight space, such as
        :class:`sct_deepspine.geometry.displacement.WarpedStraightSpace`.
    min_confidence
        Refuse labels whose levels are less certain than this.
    find_canal, refine, assign
        The stages that may be replaced, by functions that are called as their defaults are.
    return_maps
        Keep what the network saw and predicted in ``DiscLabels.prediction``.

    Returns
    -------
    DiscLabels
        Every visible disc from C2/C3 (3) to L5/S1 (25), at its posterior tip.

    Raises
    ------
    ImageError, GeometryError
        If the image or the mask can't be worked on.
    NoDiscsError
        If no spine is in the image.
    AnchorError
        If an anchor fits no disc, or most of the discs don't fit it.
    UncertainError
        If the levels are less certain than ``min_confidence``.
    WeightsError, DeviceError
        If the weights or the device can't be used.
    """
    known, given = as_anchors(anchor), given_centerline(seg, centerline)
    model = weights if isinstance(weights, LabelingModel) else LabelingModel.load(weights, device=device)
    volume = read_scan(image)
    view = DeobliquedVolume.of(volume)
    coarse = coarse_view(view, model.locate)
    follow = partial(extend_centerline, given) if given else find_canal
    canal = follow(coarse, model.locate, finder=model.canal)
    prediction = predict_midsagittal(coarse, canal, model.locate)
    check_line(given, prediction)
    check_anchor_places(known, view.volume, canal)
    candidates = find_candidates(prediction, canal, view.volume)
    upside_down = not known and seems_upside_down(prediction, candidates, canal, view.volume, model)
    if model.refine is not None:
        space = straighten(view, canal, straight)
        candidates = refine(view, space, coarse=prediction, candidates=candidates, predictor=model.refine)
    candidates, clamped = match_anchors(candidates, known, view.volume.grid)
    assignment, kind, doubts = assign_checked_levels(candidates, clamped, model, assign=assign)
    discs, landmarks = _assemble(candidates.points[assignment.indices], assignment, view.volume)
    if upside_down:
        doubted = min(assignment.level_confidence, UPSIDE_DOWN_CONFIDENCE)
        assignment, doubts = replace(assignment, level_confidence=doubted), (*doubts, UPSIDE_DOWN)
    warnings = *doubts, *find_warnings(discs, assignment, view, kind=kind, anchored=bool(known))
    if assignment.level_confidence < min_confidence:
        said = f"{assignment.level_confidence:.2f} < {min_confidence:g}"
        raise UncertainError(f"the levels are less certain than asked for ({said}): {'; '.join(warnings)}")
    if return_maps:
        prediction = replace(prediction, attention=model.locate.attention(prediction.image))
    return DiscLabels(
        discs=discs,
        grid=volume.grid,
        level_confidence=assignment.level_confidence,
        weights=model.identity,
        warnings=warnings,
        source=image,
        landmarks=landmarks,
        view=kind,
        canal=canal,
        prediction=prediction if return_maps else None,
    )


def straighten(
    view: DeobliquedVolume, canal: Centerline, straight: str | Centerline | StraighteningTransform = "auto"
) -> StraighteningTransform:
    """Return the straight space of a view, as :func:`label_discs` is asked for it."""
    if not isinstance(straight, (str, Centerline)):
        return straight
    line = (straight if isinstance(straight, Centerline) else canal).transformed(view.deobliqued_from_world)
    if straight == "off":
        return ComposedSpace(ShearedSpace(line), view.world_from_deobliqued)
    if straight == "auto" or isinstance(straight, Centerline):
        return ComposedSpace(StraightSpace(line), view.world_from_deobliqued)
    raise ValueError(f"expected straight to be 'auto', 'off', a line or a straight space, got {straight!r}")


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
    beside = distance_from_canal_mm(points, canal) < BESIDE_CANAL_MM
    inside = beside & volume.grid.contains_voxel(volume.grid.voxel_from_world(points))
    return Candidates(points[inside], score[inside], level[inside], prediction.codec.first_value)


def seems_upside_down(
    prediction: PlanePrediction,
    candidates: Candidates,
    canal: Centerline,
    volume: Volume,
    model: LabelingModel,
) -> bool:
    """Tell whether the coarse stage sees more of a spine when its plane is turned upside down.

    The rows of an image are stored the wrong way round now and then, and what comes out looks like labels.
    """
    image = np.ascontiguousarray(prediction.image[::-1])
    turned = replace(prediction, image=image, maps=model.locate.predict([image])[0])
    scores = [
        assignment_score(assign_levels(found, anchors={}, parameters=model.parameters))
        if len(found.score)
        else 0.0
        for found in (candidates, find_candidates(turned, canal, volume))
    ]
    return scores[1] > scores[0]


def assign_checked_levels(
    candidates: Candidates,
    clamped: dict[int, int],
    model: LabelingModel,
    *,
    assign: Callable[..., LevelAssignment] = assign_levels,
) -> tuple[LevelAssignment, str, tuple[str, ...]]:
    """Assign levels, refuse what is no spine, and correct the probabilities by how often such were right.

    Returns
    -------
    assignment
        With the anchors, if there are any.
    view
        Kind of the view; see :func:`sct_deepspine.labeling.calibration.view_kind`.
    warnings
        About anchors that the image contradicts.

    Raises
    ------
    NoDiscsError
        If no assignment scores enough.
    AnchorError
        If the anchors don't fit the image.
    """
    if not len(candidates.score):
        raise NoDiscsError("no disc was found in the image; is it a sagittal view of a spine?")
    free = assign(candidates, anchors={}, parameters=model.parameters)
    score = assignment_score(free)
    if score < model.minimum_score and not clamped:
        raise NoDiscsError(
            f"no sequence of discs was found in the image (score {score:.1f}, "
            f"{model.minimum_score:.1f} needed); is it a sagittal view of a spine?"
        )
    sure = free.values[free.probabilities > LANDMARK_SEEN]
    kind = view_kind(sure.tolist() or free.values.tolist(), model.landmarks)
    free = replace(
        free,
        probabilities=model.calibration.of_discs(free.probabilities, kind),
        level_confidence=model.calibration.of_scan(free.level_confidence, kind),
    )
    if not clamped:
        return free, kind, ()
    assignment = assign(candidates, anchors=clamped, parameters=model.parameters)
    confidence, doubts = check_anchors(assignment, free, clamped)
    return replace(assignment, level_confidence=confidence), kind, doubts


def assignment_score(assignment: LevelAssignment) -> float:
    """Return how well an assignment shows that there is a spine: its score, weighed against its length."""
    return assignment.score / len(assignment.values) ** LENGTH_POWER


def _assemble(
    tips_world: FloatArray, assignment: LevelAssignment, volume: Volume
) -> tuple[tuple[Disc, ...], tuple[Disc, ...]]:
    """Put discs and landmarks in order, with the discs that were stepped over filled in."""
    values, points, flags = fill_skipped(tips_world, assignment.values)
    seen = dict(zip(assignment.values.tolist(), assignment.probabilities.tolist(), strict=True))
    # A disc that was not seen is half as sure as the least sure one that was.
    every = [
        Disc(int(value), point, float(seen.get(int(value), min(seen.values()) / 2)), bool(flag))
        for value, point, flag in zip(values, points, flags, strict=True)
    ]
    inside = volume.grid.contains_voxel(volume.grid.voxel_from_world(points))
    visible = [disc for disc, is_inside in zip(every, inside, strict=True) if is_inside]
    discs = tuple(disc for disc in visible if disc.value in DISC_VALUES)
    if not discs:
        raise NoDiscsError("no disc was found in the image; is it a sagittal view of a spine?")
    return discs, tuple(d for d in visible if d.value in LANDMARK_VALUES and not d.interpolated)
