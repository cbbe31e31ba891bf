"""label_discs(): from an image to its discs.

The stages, each a public function that can be called and replaced: find the canal, predict maps on the
midsagittal plane along it, find candidates, refine them in the straightened spine, and assign levels to them
as one ordered sequence.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import maximum_filter

from sct_deepspine.anatomy import DISC_VALUES, LANDMARK_VALUES
from sct_deepspine.errors import AnchorError, GeometryError, ImageError, NoDiscsError, UncertainError
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
from sct_deepspine.io.images import ImageLike, read_mask, read_volume
from sct_deepspine.labeling.anchors import Anchors, as_anchors, match_anchors
from sct_deepspine.labeling.calibration import view_kind
from sct_deepspine.labeling.canal import extend_centerline, find_centerline
from sct_deepspine.labeling.heatmaps import DiscPredictor, PlanePrediction
from sct_deepspine.labeling.levels import Candidates, LevelAssignment, assign_levels
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.refinement import refine_candidates
from sct_deepspine.labeling.review import check_anchors, find_warnings, oblique_warning
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.models.weights import Weights

__all__ = [
    "assign_checked_levels",
    "assignment_score",
    "check_line",
    "find_candidates",
    "label_discs",
    "predict_midsagittal",
    "read_scan",
    "straighten",
]

CANDIDATE_THRESHOLD = 0.1
BEYOND_MM = 60.0
BESIDE_CANAL_MM = 30.0
"""A tip is no farther than this from the canal, which is followed straight on beyond its ends."""

LENGTH_POWER = 0.75
"""An assignment's score is weighed against its number of discs to this power: chance makes short ones."""

SHORTEST_SIDE_MM = 20.0
"""An image whose second longest side is shorter shows no spine: its voxel sizes are wrong."""

SAMPLED_VOXELS, FEWEST_GREYS = 200_000, 12
"""Of so many voxels, a scan has more different grey values than this."""

CANAL_REACH_CELLS, CANAL_SEEN, CANAL_SHARE, FEWEST_CANAL_ROWS = 5, 0.2, 0.34, 15
"""A given centreline is on the canal if, within two cells, the canal map exceeds this along a third
of it. Where fewer rows than these show a canal, the given line is trusted."""

FARTHEST_ANCHOR_MM = 40.0
"""An anchor is no farther than this from the canal."""

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
    find_canal: Callable[[DeobliquedVolume, DiscPredictor], Centerline] = find_centerline,
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
    volume = read_scan(image)
    known = as_anchors(anchor)
    model = weights if isinstance(weights, LabelingModel) else LabelingModel.load(weights, device=device)
    view = DeobliquedVolume.of(volume)
    coarse = view.block_mean((SLAB_MM / 2, model.locate.pixel_mm, model.locate.pixel_mm))
    given = _given_centerline(seg, centerline)
    canal = extend_centerline(given, coarse, model.locate) if given else find_canal(coarse, model.locate)
    _check_places(known, volume, canal)
    prediction = predict_midsagittal(coarse, canal, model.locate)
    if given:
        check_line(given, prediction)
    candidates = find_candidates(prediction, canal, volume)
    if model.refine is not None:
        space = straighten(view, canal, straight)
        candidates = refine(view, space, coarse=prediction, candidates=candidates, predictor=model.refine)
    candidates, clamped = match_anchors(candidates, known, view.volume.grid)
    assignment, kind, doubts = assign_checked_levels(candidates, clamped, model, assign=assign)
    discs, landmarks = _assemble(candidates.points[assignment.indices], assignment, volume)
    warnings = (*oblique_warning(view), *find_warnings(discs, assignment, view=kind, anchored=bool(known)))
    if assignment.level_confidence < min_confidence:
        raise UncertainError(
            "the levels are less certain than asked for "
            f"({assignment.level_confidence:.2f} < {min_confidence:g}): {'; '.join((*doubts, *warnings))}"
        )
    if return_maps:
        prediction = replace(prediction, attention=model.locate.attention(prediction.image))
    return DiscLabels(
        discs=discs,
        grid=volume.grid,
        level_confidence=assignment.level_confidence,
        weights=model.identity,
        warnings=(*doubts, *warnings),
        source=image,
        landmarks=landmarks,
        view=kind,
        prediction=prediction if return_maps else None,
    )


def read_scan(image: ImageLike) -> Volume:
    """Read an image, and refuse what is no scan.

    Raises
    ------
    ImageError
        If it can't be read, is too small for a spine, or holds a few values only, as masks do.
    """
    volume = read_volume(image)
    lengths = volume.grid.spacing_mm * volume.grid.shape
    if np.sort(lengths)[1] < SHORTEST_SIDE_MM:
        met = " × ".join(f"{length:.3g}" for length in lengths)
        raise ImageError(f"the image is {met} mm small; are the voxel sizes in the header right (mm)?")
    sampled = volume.data.ravel(order="K")[:: max(1, volume.data.size // SAMPLED_VOXELS)]
    values = np.unique(sampled)
    if len(values) <= FEWEST_GREYS:
        raise ImageError(
            f"the image holds {len(values)} different values only; is it a mask or a label image, not a scan?"
        )
    return volume


def check_line(line: Centerline, prediction: PlanePrediction) -> None:
    """Refuse a given centreline that does not run along the canal that the network sees.

    Raises
    ------
    GeometryError
        If less than a third of it lies on the canal.
    """
    codec, canal = prediction.codec, prediction.maps.canal
    cells = np.round(codec.cell_from_pixel(prediction.plane.pixel_from_world(line.samples_world))).astype(int)
    inside = ((cells >= 0) & (cells < canal.shape)).all(axis=1)
    seen = maximum_filter(canal, size=CANAL_REACH_CELLS)[tuple(cells[inside].T)] > CANAL_SEEN
    is_seen_elsewhere = (canal.max(axis=1) > CANAL_SEEN).sum() > FEWEST_CANAL_ROWS
    if inside.any() and is_seen_elsewhere and seen.mean() < CANAL_SHARE:
        raise GeometryError(
            "the cord mask or centreline does not run along the spinal canal of the image "
            f"({seen.mean():.0%} of it does); do they belong together?"
        )


def _check_places(anchors: dict[int, FloatArray], volume: Volume, canal: Centerline) -> None:
    """Refuse an anchor whose whole point lies outside the image or far from the spine."""
    for value, point in anchors.items():
        if not np.isfinite(point).all():
            continue
        place = ", ".join(f"{c:.0f}" for c in point)
        if not volume.grid.contains_voxel(volume.grid.voxel_from_world(point))[0]:
            raise AnchorError(
                f"anchor {value}: ({place}) mm lies outside the image; give world RAS+ coordinates"
            )
        distance = float(_from_canal_mm(point[None], canal)[0])
        if distance > FARTHEST_ANCHOR_MM:
            raise AnchorError(
                f"anchor {value}: ({place}) mm lies {distance:.0f} mm from the spine that was found; "
                "give the posterior tip of the disc"
            )


def _from_canal_mm(points_world: FloatArray, canal: Centerline) -> FloatArray:
    """Return the distance of points from the canal, which is followed straight on beyond its ends."""
    line = canal.points_world(np.arange(-BEYOND_MM, canal.length_mm + BEYOND_MM, 2.0))
    return np.linalg.norm(points_world[:, None] - line, axis=2).min(axis=1)


def _given_centerline(seg: ImageLike | None, centerline: Centerline | ArrayLike | None) -> Centerline | None:
    if seg is not None and centerline is not None:
        raise ValueError("give seg or centerline, not both: each of them says where the cord is")
    if isinstance(centerline, Centerline):
        return centerline
    if centerline is not None:
        return Centerline.from_points(centerline)
    if seg is not None:
        mask = read_mask(seg)
        return Centerline.from_mask(mask.data, mask.grid)
    return None


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
    beside = _from_canal_mm(points, canal) < BESIDE_CANAL_MM
    inside = beside & volume.grid.contains_voxel(volume.grid.voxel_from_world(points))
    return Candidates(points[inside], score[inside], level[inside], prediction.codec.first_value)


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
