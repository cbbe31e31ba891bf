"""label_discs(): from an image to its discs.

The stages, each a public function that can be called and replaced: find the canal, predict maps on the
midsagittal plane along it, find candidates, refine them in the straightened spine, and assign levels to them
as one ordered sequence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from sct_deepspine.errors import NoDiscsError, RequestError, UncertainError
from sct_deepspine.geometry.background import without_fill
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.straightening import (
    ComposedSpace,
    ShearedSpace,
    StraighteningTransform,
    StraightSpace,
)
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.io.images import ImageLike
from sct_deepspine.labeling.anchors import Anchors, as_anchors, check_anchor_places, match_anchors
from sct_deepspine.labeling.assessment import Scene, assign_checked_levels
from sct_deepspine.labeling.canal import (
    ABOUT_CANAL_MM,
    coarse_view,
    find_centerline,
    follow_given,
    given_centerline,
)
from sct_deepspine.labeling.candidates import (
    columns_about,
    find_candidates,
    predict_midsagittal,
    spine_score,
)
from sct_deepspine.labeling.checks import WHAT_TO_CHECK, read_scan
from sct_deepspine.labeling.counting import Variant
from sct_deepspine.labeling.evidence import SEEN
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labeling.levels import Candidates, LevelAssignment, assign_levels
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.notes import find_notes
from sct_deepspine.labeling.refinement import refine_candidates
from sct_deepspine.labeling.review import find_warnings
from sct_deepspine.labels import Disc, DiscLabels, Note
from sct_deepspine.models.weights import Weights
from sct_deepspine.spacing import fill_skipped

__all__ = [
    "assign_checked_levels",
    "coarse_view",
    "find_candidates",
    "label_discs",
    "predict_midsagittal",
    "seems_upside_down",
    "straighten",
]

UPSIDE_DOWN = (
    "more of a spine is seen with the image turned upside down; is the orientation in its header right?"
)
UPSIDE_DOWN_CONFIDENCE = 0.5
"""No labels of such an image are more certain than this."""

ACROSS_A_VOID = "levels are counted across discs that are not seen"
ACROSS_A_VOID_CONFIDENCE = 0.8
"""Highest confidence where two discs or more lie in a void of signal: only distances tell how many there
are."""

PERHAPS_S1_S2, PERHAPS_S1_S2_CONFIDENCE = "levels are counted from a disc that may be S1/S2", 0.8
"""The warning where the lowest disc may as well be S1/S2, and the highest confidence of the levels."""

A_MOSAIC, MOSAIC_CONFIDENCE = "discs in a mosaic of slices are no discs of one spine", 0.3
"""The warning about such images, and the highest confidence of their levels."""

SHOWN_TWICE, REPEAT_CONFIDENCE = "discs that are shown twice are counted twice", 0.3
"""The warning where a part of the spine is repeated, and the highest confidence of the levels."""

TURNED_ALONE = 1.3
"""The image turned upside down must score more and show a landmark, or score this many times as much without
one, and as much as a spine must. The scans of ``val`` score 1.2 to 2 times as much upright, and show one;
short views and axial stacks come to 1.2 either way, and show none."""


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
        Where torch runs the networks, as it names it, if they are read from a file here. By default
        onnxruntime runs them if it is installed, else torch on the CPU.
    straight
        ``"auto"`` to straighten along the centreline, ``"off"`` to follow it without straightening, a
        line to straighten along instead, or a straight space, such as
        :class:`sct_deepspine.geometry.displacement.WarpedStraightSpace`.
    min_confidence
        Refuse labels whose levels are less certain than this.
    find_canal, refine, assign
        The stages that may be replaced, by functions that are called as their defaults are. With ``seg`` or
        ``centerline`` the canal is given, and ``find_canal`` can't be.
    return_maps
        Keep what the network saw and predicted in ``DiscLabels.prediction``.

    Returns
    -------
    DiscLabels
        Every visible disc from C2/C3 (3) to the one above the sacrum, usually L5/S1 (25), at its posterior
        tip.

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
    RequestError
        If two things are given that exclude each other, or ``straight`` is none of its kinds.
    WeightsError, DeviceError
        If the weights or the device can't be used.
    """
    known, given = as_anchors(anchor), given_centerline(seg, centerline)
    model = weights if isinstance(weights, LabelingModel) else LabelingModel.load(weights, device=device)
    volume = read_scan(image)
    view = DeobliquedVolume.of(without_fill(volume))
    coarse, off_canal = coarse_view(view, model.locate), None
    if given is not None:
        if find_canal is not find_centerline:
            raise RequestError("give a centreline (seg, centerline) or find_canal, not both")
        canal, off_canal = follow_given(given, coarse, model.locate, finder=model.canal)
    else:
        canal = find_canal(coarse, model.locate, finder=model.canal)
    prediction = predict_midsagittal(coarse, canal, model.locate)
    check_anchor_places(known, view.volume, canal)
    candidates = find_candidates(prediction, canal, view.volume)
    with ThreadPoolExecutor(1) as beside:  # neither needs the other, and each keeps one core busy
        scene = prediction, candidates, canal, view.volume, model
        turned = None if known else beside.submit(seems_upside_down, *scene)
        refined = candidates
        if model.refine is not None:
            space = straighten(view, canal, straight)
            refined = refine(view, space, coarse=prediction, candidates=candidates, predictor=model.refine)
        upside_down = turned is not None and turned.result()
    candidates = refined
    candidates, clamped = match_anchors(candidates, known, view.volume.grid)
    checked = assign_checked_levels(
        candidates, clamped, model, assign=assign, scene=Scene(prediction, canal, view)
    )
    tips = candidates.points[checked.assignment.indices]
    discs, landmarks = _assemble(tips, checked.assignment, view.volume, checked.variant)
    discs, notes = find_notes(discs, landmarks, checked, prediction, canal, view, off_canal=off_canal)
    doubts = _doubts(notes, upside_down=upside_down, anchored=bool(known))
    limit = min([1.0, *doubts.values()])
    assignment = checked.assignment.limited(limit)
    checked = replace(checked, assignment=assignment, warnings=(*checked.warnings, *doubts))
    found = find_warnings(discs, notes, checked, view, anchored=bool(known))
    warnings = *checked.warnings, *(note.sentence for note in notes), *found
    if assignment.level_confidence < min_confidence:
        compared = f"{assignment.level_confidence:.2f} < {min_confidence:g}"
        why = "; ".join(warnings) or "give the level of one disc, or labels of another scan"
        raise UncertainError(f"the levels are less certain than asked for ({compared}): {why}")
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
        view=checked.view,
        canal=canal,
        prediction=prediction if return_maps else None,
        notes=notes,
        evidence=checked.evidence.as_dict(),
        count=checked.counted.count if checked.counted is not None else None,
    ).limited(limit)


def _doubts(notes: Sequence[Note], *, upside_down: bool, anchored: bool) -> dict[str, float]:
    """Return why all levels are doubted, each reason with the highest confidence that it allows."""
    kinds = {note.kind for note in notes}
    doubts = {UPSIDE_DOWN: UPSIDE_DOWN_CONFIDENCE} if upside_down else {}
    if sum(len(note.values) for note in notes if note.kind == "implant") > 1 and not anchored:
        doubts[ACROSS_A_VOID] = ACROSS_A_VOID_CONFIDENCE
    if "lowest disc" in kinds and not anchored:
        doubts[PERHAPS_S1_S2] = PERHAPS_S1_S2_CONFIDENCE
    if "mosaic" in kinds:
        doubts[A_MOSAIC] = MOSAIC_CONFIDENCE
    if "repeat" in kinds:
        doubts[SHOWN_TWICE] = REPEAT_CONFIDENCE
    return doubts


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
    raise RequestError(f"expected straight to be 'auto', 'off', a line or a straight space, got {straight!r}")


def seems_upside_down(
    prediction: PlanePrediction,
    candidates: Candidates,
    canal: Centerline,
    volume: Volume,
    model: LabelingModel,
) -> bool:
    """Return whether the coarse stage sees more of a spine when its plane is turned upside down.

    The rows of an image are stored the wrong way round now and then, and what comes out looks like labels.
    """
    narrow = columns_about(prediction, canal, ABOUT_CANAL_MM)
    image = np.ascontiguousarray(narrow.image[::-1])
    maps = model.locate.predict([image])[0]
    turned = find_candidates(replace(narrow, image=image, maps=maps), canal, volume)
    upright, other = (spine_score(found, model.parameters) for found in (candidates, turned))
    if other <= max(upright, model.minimum_score):
        return False
    assigned = assign_levels(turned, parameters=model.parameters)
    landmark = np.isin(assigned.values[assigned.probabilities > SEEN], model.landmarks).any()
    return bool(landmark or other > TURNED_ALONE * upright)


def _assemble(
    tips_world: FloatArray, assignment: LevelAssignment, volume: Volume, variant: Variant
) -> tuple[tuple[Disc, ...], tuple[Disc, ...]]:
    """Put discs and landmarks in order, with the discs that were stepped over filled in."""
    values, points, flags = fill_skipped(tips_world, assignment.values, prior=variant.spacing())
    seen = dict(zip(assignment.values.tolist(), assignment.probabilities.tolist(), strict=True))
    # A disc that was not seen is half as sure as the least sure one that was.
    every = [
        Disc(
            int(value),
            point,
            float(seen.get(int(value), min(seen.values()) / 2)),
            interpolated=bool(flag),
            presacral=variant.presacral,
        )
        for value, point, flag in zip(values, points, flags, strict=True)
    ]
    inside = volume.grid.contains_voxel(volume.grid.voxel_from_world(points))
    visible = [disc for disc, is_inside in zip(every, inside, strict=True) if is_inside]
    discs = tuple(disc for disc in visible if disc.value in variant.discs)
    if not discs:
        raise NoDiscsError(f"no disc was found in the image; {WHAT_TO_CHECK}")
    return discs, tuple(d for d in visible if d.value in variant.landmarks and not d.interpolated)
