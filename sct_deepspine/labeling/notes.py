"""What is odd in an image, and where: each finding a sentence that says what to do."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from nibabel.affines import apply_affine

from sct_deepspine.anatomy import DISC_VALUES, EXPECTED_SPACING_MM, LAST_VALUE, disc_name
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import point_text
from sct_deepspine.geometry.volume import DeobliquedVolume
from sct_deepspine.labeling.assessment import CheckedLevels
from sct_deepspine.labeling.canal import OffCanal
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labeling.structure import (
    find_flat_discs,
    find_repeat,
    find_step,
    find_voids,
    mosaic_tiles,
)
from sct_deepspine.labels import Disc, Note, NoteKind

__all__ = ["find_notes"]

MIN_BODY, MAX_BODY = 0.6, 1.35
"""Distances between discs, as shares of an adult's. Subjects differ by 7 % (standard deviation); a child of
five has about 0.65."""

EDGE_MM, LEANING_MM = 3.0, 8.0
"""The canal leaves the image where it is nearer than this to the outermost slice, if it runs so much farther
from it elsewhere: thin slabs are narrow everywhere."""

LARGE_SACRAL_DISC, TAKEN_FOR_L5_S1 = 0.78, 0.04
"""Height of the any-disc map at S1/S2, and probability that it is L5/S1, from which on it is as large as a
disc. Of 44 lumbar scans 4 have either, 3 of the 4 whose S1/S2 was seen to be large by eye among them."""

ODD_WITH_SACRUM = 0.22
"""Where either looks like the other, the levels are doubted if a distance between discs is odd by more than
this (log-ratio). Of 48 right views with a large S1/S2 2 are, of 4 wrong ones of composites 3."""

MIN_BELOW_MM = 8.0
"""Where the image ends nearer than this below an S1/S2 as large as a disc, little tells it from L5/S1."""

LIKE_S1_S2, AS_WELL_S1_S2 = 0.05, 0.2
"""Probability that the disc taken for L5/S1 is S1/S2 from which this is said, and from which the levels are
doubted. Of 457 right views that show S1/S2, 20 have the first and one has the second; of five wrong ones, all
of one person whose S1/S2 is a disc, four and three."""


def find_notes(
    discs: tuple[Disc, ...],
    landmarks: tuple[Disc, ...],
    checked: CheckedLevels,
    prediction: PlanePrediction,
    canal: Centerline,
    view: DeobliquedVolume,
    *,
    off_canal: OffCanal | None = None,
) -> tuple[tuple[Disc, ...], tuple[Note, ...]]:
    """Find what is odd.

    Parameters
    ----------
    discs, landmarks
        As they were labelled.
    checked
        Their levels.
    prediction
        Of the midsagittal plane.
    canal
        Along the spine.
    view
        The volume.
    off_canal
        Where a given centreline was not followed.

    Returns
    -------
    discs
        The discs given; those of which nothing is seen are flagged as interpolated.
    notes
        What was found.
    """
    voids = find_voids(prediction, discs)
    flat = [
        disc for disc in find_flat_discs(prediction, discs) if disc not in voids and not disc.interpolated
    ]
    notes = [
        *_off_canal(off_canal, view),
        *_mosaic(view),
        *_wrong_size(discs, checked),
        *_leaving(canal, view),
        *_voids(voids),
        *map(_flat, flat),
        *_repeat(prediction, canal),
        *_step(prediction, canal, discs),
        *_ambiguous_sacrum(discs, landmarks, prediction, checked),
        *_odd_count(discs, checked),
    ]
    unseen = {disc.value for disc in (*voids, *flat)}
    return tuple(replace(d, interpolated=True) if d.value in unseen else d for d in discs), tuple(notes)


def _off_canal(off: OffCanal | None, view: DeobliquedVolume) -> list[Note]:
    if off is None:
        return []
    slices = np.round(view.volume.grid.voxel_from_world(off.points_world)[:, 2]).astype(int)
    slices = np.clip(slices, 0, view.volume.grid.shape[2] - 1)
    sentence = (
        f"the cord mask or centreline lies up to {off.farthest_mm:.0f} mm off the spinal canal in slices "
        f"{slices.min()} to {slices.max()}, counted from the inferior end, and is not followed there; "
        "check it"
    )
    return [Note("mask", sentence, point_world=off.points_world[len(off.points_world) // 2])]


def _mosaic(view: DeobliquedVolume) -> list[Note]:
    tiles = mosaic_tiles(view.volume)
    if tiles is None:
        return []
    down, across = tiles
    sentence = (
        f"the slices look like mosaics of {down} × {across} slices in one picture: the labels are then "
        "meaningless; convert the scanner's files with dcm2niix, which unpacks mosaics"
    )
    return [Note("mosaic", sentence)]


def _wrong_size(discs: tuple[Disc, ...], checked: CheckedLevels) -> list[Note]:
    """Note if the voxels seem to have another size, by the network's eye or by the discs' distances."""
    advice = "check the voxel sizes in the header"
    if checked.size_factor != 1:
        times = "twice" if checked.size_factor > 1 else "half"
        text = f"the header seems to give the voxels {times} their true size, at which a spine is seen better"
        return [Note("voxel size", f"{text}; {advice}")]
    seen = [disc for disc in discs if not disc.interpolated]
    ratios = [
        float(np.linalg.norm(upper.point_world - lower.point_world)) / EXPECTED_SPACING_MM[upper.value]
        for upper, lower in pairwise(seen)
        if lower.value == upper.value + 1
    ]
    size = float(np.median(ratios)) if len(ratios) > 1 else 1.0
    if MIN_BODY < size < MAX_BODY:
        return []
    return [
        Note(
            "voxel size",
            f"the discs are {size:.1f} times as far apart as an adult's, if the levels are right; {advice}",
        )
    ]


def _leaving(canal: Centerline, view: DeobliquedVolume) -> list[Note]:
    """Note where the canal comes so near to the outermost slices that discs may lie outside."""
    low, high = view.extent_mm()
    across = apply_affine(view.deobliqued_from_world, canal.samples_world)[:, 0]
    margin = np.minimum(across - low[0], high[0] - across)
    worst = int(margin.argmin())
    if not (margin[worst] < EDGE_MM and margin.max() - margin[worst] > LEANING_MM):
        return []
    point = canal.samples_world[worst]
    sentence = (
        f"the canal leaves the image sideways near {point_text(point)} mm; discs there are only "
        "partly in the slab, or outside it: check their points, or scan more slices"
    )
    return [Note("canal leaves the image", sentence, point_world=point)]


def _voids(discs: list[Disc]) -> list[Note]:
    if not discs:
        return []
    names = ", ".join(disc.name for disc in discs)
    sentence = (
        f"no signal at {names}, as around an implant: nothing is seen of them; correct their points by hand, "
        "and check the levels"
    )
    return [Note("implant", sentence, tuple(d.value for d in discs), discs[len(discs) // 2].point_world)]


def _flat(disc: Disc) -> Note:
    sentence = (
        f"{disc.name} hardly stands out from the vertebrae above and below; they may be fused, or the "
        "point lies on a vertebra: look whether a disc is there"
    )
    return Note("fused", sentence, (disc.value,), disc.point_world)


def _repeat(prediction: PlanePrediction, canal: Centerline) -> list[Note]:
    found = find_repeat(prediction, canal)
    if found is None:
        return []
    place, length_mm = found
    sentence = (
        f"the {length_mm:.0f} mm above z = {place[2]:.0f} mm reappear directly below: overlapping slabs "
        "seem to have been stacked; stitch them, or label each by itself"
    )
    return [Note("repeat", sentence, point_world=place)]


def _step(prediction: PlanePrediction, canal: Centerline, discs: tuple[Disc, ...]) -> list[Note]:
    found = find_step(prediction, canal, discs)
    if found is None:
        return []
    place, step_mm = found
    way = "anteriorly" if step_mm > 0 else "posteriorly"
    sentence = (
        f"below z = {place[2]:.0f} mm the image is shifted by {abs(step_mm):.0f} mm {way}: bad stitching, or "
        "the subject moved; a level may be missing or shown twice there, so count the discs "
        "across the step"
    )
    return [Note("step", sentence, point_world=place)]


def _odd_count(discs: tuple[Disc, ...], checked: CheckedLevels) -> list[Note]:
    """Note if the spine has a vertebra more or less than 24 above the sacrum."""
    counted = checked.counted
    if counted is None or counted.count.is_usual:
        return []
    lowest = discs[-1]
    return [Note("vertebra count", counted.count.finding, (lowest.value,), lowest.point_world)]


def _ambiguous_sacrum(
    discs: tuple[Disc, ...], landmarks: tuple[Disc, ...], prediction: PlanePrediction, checked: CheckedLevels
) -> list[Note]:
    """Note if S1/S2 looks like a disc, or the lowest disc like S1/S2: the levels may be one off."""
    lowest, first = DISC_VALUES[-1], prediction.codec.first_value
    if checked.counted is not None or first + prediction.codec.levels <= LAST_VALUE:
        return []  # the levels are counted from C2, not from the sacrum
    advice = "count from C2 or T12 in another scan, or see which vertebra has ribs"
    kind: NoteKind = "transitional sacrum"
    if checked.evidence.odd_spacing > ODD_WITH_SACRUM:
        kind = "lowest disc"
    for disc in discs[-1:]:
        _, level = prediction.at(disc.point_world[None])
        as_landmark = level[0, LAST_VALUE - first]
        if disc.value != lowest or disc.interpolated or as_landmark < LIKE_S1_S2:
            continue
        sentence = (
            f"{disc.name} looks much like {disc_name(LAST_VALUE)}: the levels may be one too high; {advice}"
        )
        if as_landmark >= AS_WELL_S1_S2:
            kind = "lowest disc"
        return [Note(kind, sentence, (lowest,), disc.point_world)]
    for mark in landmarks:
        score, level = prediction.at(mark.point_world[None])
        is_large = score[0] >= LARGE_SACRAL_DISC or level[0, lowest - first] >= TAKEN_FOR_L5_S1
        if mark.value != LAST_VALUE or not is_large:
            continue
        if _below_mm(mark, prediction) < MIN_BELOW_MM:
            kind = "lowest disc"
        sentence = (
            f"{mark.name} looks as large as a disc: the lowest disc may be {mark.name}, and the levels "
            f"one too high; {advice}"
        )
        return [Note(kind, sentence, (lowest,), mark.point_world)]
    return []


def _below_mm(mark: Disc, prediction: PlanePrediction) -> float:
    """Return how much of the image lies below a point."""
    shown = np.flatnonzero((prediction.image != 0).any(axis=1))
    row = prediction.plane.pixel_from_world(mark.point_world[None])[0, 0]
    return float((max(shown, default=len(prediction.image)) - row) * prediction.plane.pixel_mm)
