"""What becomes of labels that a person made.

Three meanings, one rule for values (see :mod:`sct_deepspine.io.disc_labels`):

- *checked* labels are all the discs of this scan: taken as they are, or refused;
- *edits* are the automatic labels, changed by hand: what changed is found by comparison;
- *anchors* are labels of any scan of the session: those in view tell the levels, the other discs follow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from sct_deepspine.anatomy import DISC_VALUES, LANDMARK_VALUES, LAST_COMMON_VALUE, PRESACRAL, disc_name
from sct_deepspine.errors import LabelsError
from sct_deepspine.geometry.centerline import Centerline, places_along_line
from sct_deepspine.geometry.grid import FloatArray, Grid, point_text
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.bids import image_stem
from sct_deepspine.io.disc_labels import (
    GivenLabels,
    LabelledPoint,
    NotInFileError,
    read_disc_labels,
    unique_points,
)
from sct_deepspine.io.identity import file_sha256, grid_difference, same_box
from sct_deepspine.io.images import ImageLike
from sct_deepspine.labeling.anchors import MAX_TIP_MM
from sct_deepspine.labeling.corrections import Corrections, compare_labels
from sct_deepspine.labels import Disc, DiscLabels, VertebraCount
from sct_deepspine.workflow.request import LabelSource, ScanRequest

__all__ = [
    "OTHER_IMAGE",
    "WRITTEN_VALUES",
    "anchors_in_view",
    "as_looked",
    "checked_labels",
    "compared_edits",
    "edited_labels",
    "labels_of_page",
    "read_given",
    "read_given_by_image",
    "split_landmarks",
    "used_on",
    "with_landmarks",
]

WRITTEN_VALUES = range(1, DISC_VALUES.stop)
"""The top of C1 (1) to L5/S1 (25): what can stand in a label image. S1/S2 (26) is a landmark."""

UPPER_VALUES = frozenset(LANDMARK_VALUES[:2])
"""The top of C1 and C1/C2: written on request, or where a person set them."""

CANAL_STEP_MM = 1.0
"""The order of discs along the canal is found in steps of this length, mm."""

BESIDE_DISC_MM, FAR_FROM_TIP_MM = 5.0, 15.0
"""Labels are doubted of which half lie farther than the first from a disc along the spine, or farther than
the second from its tip. Some people label in the cord, 6 to 12 mm behind the tip."""

MIN_COMPARED = 3
"""With fewer labels or discs than this, their places are not judged."""

OTHER_IMAGE = "the labels were made on another image, or on another version of this one: check that they fit"
NOT_OF_THIS_IMAGE = 0.5
"""Confidence of labels that were made on another image file, and don't lie on the discs seen here."""

CERTAIN = 0.9
"""An image as sure of its levels as this is believed against a person's: the difference is pointed out."""


def labels_of_page(request: ScanRequest) -> GivenLabels | None:
    """Return the labels of a request that the review page saved and that were read before, if these are."""
    given = request.edits if request.labels is None else request.labels
    return given if isinstance(given, GivenLabels) and given.complete else None


def read_given(source: LabelSource, image: ImageLike) -> GivenLabels:
    """Read labels that a person made, of any kind that a request takes.

    Parameters
    ----------
    source
        What :func:`sct_deepspine.io.disc_labels.read_disc_labels` takes, or ``DiscLabels``.
    image
        The scan.
    """
    if isinstance(source, DiscLabels):
        below = [mark for mark in source.landmarks if mark.value > source.presacral + 1]  # S1/S2
        marks = [*source.discs, *below]
        points = tuple((mark.value, mark.point_world) for mark in marks)
        return GivenLabels(points, source.grid, presacral=source.presacral)
    return used_on(read_disc_labels(source, image=image), image)


def used_on(labels: GivenLabels, image: ImageLike) -> GivenLabels:
    """Return labels that know whether the image file that they were made on had another content than this."""
    made_on = labels.made_on
    if made_on is None or not made_on.sha256 or not isinstance(image, (str, os.PathLike)):
        return labels
    return replace(labels, other_image=made_on.sha256 != file_sha256(image))


def read_given_by_image(source: LabelSource, images: Sequence[ImageLike]) -> dict[int, GivenLabels]:
    """Read labels about some of several images, by the number of the image.

    The file of the review page holds labels of each image that was corrected. All others are about one image:
    the one that the file beside them names, or that their own name begins with; else they may be about any.

    Raises
    ------
    LabelsError
        If they can't be read, or are about none of the images.
    """
    found: dict[int, GivenLabels] = {}
    refused: list[LabelsError] = []
    for n, image in enumerate(images):
        try:
            found[n] = read_given(source, image)
        except LabelsError as error:
            refused.append(error)
    if not found:
        raise next((error for error in refused if not isinstance(error, NotInFileError)), refused[0])
    of_page = {n: labels for n, labels in found.items() if labels.complete}
    if of_page:
        return of_page
    files = {n: Path(image) for n, image in enumerate(images) if isinstance(image, (str, os.PathLike))}
    made_on = [n for n, file in files.items() if n in found and _is_made_on(found[n], file)]
    return {n: found[n] for n in made_on or _named_after(source, files) or found}


def _is_made_on(labels: GivenLabels, image: Path) -> bool:
    return labels.made_on is not None and labels.made_on.sha256 == file_sha256(image)


def _named_after(source: LabelSource, files: Mapping[int, Path]) -> list[int]:
    """Return the images whose name the name of a file of labels begins with: those with the longest."""
    name = Path(source).name if isinstance(source, (str, os.PathLike)) else ""
    fitting = {n: stem for n, file in files.items() if name.startswith(stem := image_stem(file))}
    longest = max(map(len, fitting.values()), default=0)
    return [n for n, stem in fitting.items() if len(stem) == longest]


def split_landmarks(
    points: Sequence[LabelledPoint], presacral: int = PRESACRAL
) -> tuple[list[LabelledPoint], dict[int, FloatArray]]:
    """Part the points that can be written from landmarks (S1/S2), in a spine with so many vertebrae."""
    discs = [(value, point) for value, point in points if value <= presacral + 1]
    return discs, unique_points((value, point) for value, point in points if value > presacral + 1)


def anchors_in_view(
    points: Sequence[LabelledPoint], grid: Grid, presacral: int = PRESACRAL
) -> tuple[dict[int, FloatArray], tuple[str, ...]]:
    """Take labels of another scan as anchors: those that lie in an image, and a note about the others.

    Raises
    ------
    LabelsError
        If none lies in the image, or one value is at two places.
    """
    inside = grid.contains_voxel(grid.voxel_from_world(np.array([point for _, point in points])))
    anchors = unique_points(pair for pair, is_inside in zip(points, inside, strict=True) if is_inside)
    if not anchors:
        raise LabelsError("none of the labels lies in the image; do the two scans belong together?")
    skipped = sorted({value for value, _ in points} - anchors.keys())
    names = ", ".join(disc_name(value, presacral) for value in skipped)
    return anchors, ((f"outside the image, ignored: {names}",) if skipped else ())


def as_looked(points: Mapping[int, FloatArray], presacral: int) -> dict[int, FloatArray]:
    """Return discs by what they look like, as anchors are named, in a spine with this number of vertebrae.

    With 23 or 25 vertebrae, a disc looks like its value down to T11/T12. If there is none of these, the discs
    are named from the sacrum upwards.
    """
    if presacral == PRESACRAL:
        return dict(points)
    upper = {value: point for value, point in points.items() if value <= LAST_COMMON_VALUE}
    return upper or {value + PRESACRAL - presacral: point for value, point in points.items()}


def compared_edits(given: GivenLabels, automatic: DiscLabels) -> Corrections | None:
    """Return how the automatic labels were edited, or None if these are no edited copy of them.

    Parameters
    ----------
    given
        What the file holds.
    automatic
        The labels with C1/C2 and the top of C1, as they are written if nobody corrects them.

    Raises
    ------
    AnchorError
        If what was edited can be understood in more than one way.
    LabelsError
        If they are an edited copy, but the image lay elsewhere in the world when it was made.
    """
    points, _ = split_landmarks(given.points, automatic.presacral)
    voxel_mm = float(np.linalg.norm(automatic.grid.spacing_mm))
    corrections = compare_labels(points, automatic, voxel_mm) if points else None
    made_on = given.made_on.grid if given.made_on is not None else given.grid
    if corrections is None and made_on is not None and made_on.shape == automatic.grid.shape:
        _refuse_if_moved(points, made_on, automatic, voxel_mm)
    return corrections


def edited_labels(corrections: Corrections, given: GivenLabels, automatic: DiscLabels) -> DiscLabels:
    """Return the automatic labels as a person edited them, with the landmarks that the person set."""
    named = {value for value, _ in given.points}
    edited = corrections.apply(automatic.with_upper_discs()).without(UPPER_VALUES - named)
    _, landmarks = split_landmarks(given.points, automatic.presacral)
    return with_landmarks(edited, landmarks)


def with_landmarks(labels: DiscLabels, points: Mapping[int, FloatArray]) -> DiscLabels:
    """Return labels with landmarks where a person set them, and those seen that are not written as discs."""
    marks = {mark.value: mark for mark in labels.landmarks}
    marks |= {value: Disc(value, point, 1.0, presacral=labels.presacral) for value, point in points.items()}
    kept = tuple(marks[value] for value in sorted(marks) if value not in labels)
    return replace(labels, landmarks=kept)


def _refuse_if_moved(
    points: Sequence[LabelledPoint], grid: Grid, automatic: DiscLabels, voxel_mm: float
) -> None:
    """Refuse labels that match the automatic ones voxel by voxel, but not in the world."""
    difference = grid_difference(grid, automatic.grid)
    if not difference or not points:
        return
    voxels = grid.voxel_from_world(np.array([point for _, point in points]))
    moved = automatic.grid.world_from_voxel(voxels)
    carried = [(value, point) for (value, _), point in zip(points, moved, strict=True)]
    if compare_labels(carried, automatic, voxel_mm) is not None:
        raise LabelsError(
            f"the labels were made on this image when its header was another one ({difference}); "
            "label the image again and repeat the edits, or restore the header"
        )


def checked_labels(given: GivenLabels, volume: Volume, *, base: DiscLabels | None = None) -> DiscLabels:
    """Take labels that a person checked as all the discs of a scan.

    Parameters
    ----------
    given
        What the person made.
    volume
        The scan.
    base
        What the networks found, of which the canal and the maps are kept; None if they saw no spine.

    Raises
    ------
    LabelsError
        If they were made on another version of the image, lie outside it or far from the spine, are out of
        order, leave out a level that is not marked as absent, or hold no disc.
    """
    _refuse_other_grid(given, volume.grid)
    if not given.points:
        raise LabelsError("every disc was removed; nothing is left to write")
    points, notes = _placed(given, volume.grid)
    name = partial(disc_name, presacral=given.presacral)
    missing = [v for v in range(min(points), max(points)) if v not in points and v not in given.absent]
    if given.complete:
        _refuse_gaps(missing, name)
    _check_places(points, base.canal if base is not None else None, name)
    differences = _differences(points, given, base)
    if not given.complete:
        notes += (*_doubts(missing, given), *differences)
    discs, landmarks = split_landmarks(list(points.items()), given.presacral)
    if not discs:
        raise LabelsError("the labels hold no disc from the top of C1 (1) to L5/S1 (25)")
    empty = DiscLabels((), volume.grid, 1.0)
    checked = replace(
        empty if base is None else base,
        discs=(),
        landmarks=(),
        level_confidence=1.0,
        warnings=notes,
        view="corrected",
        count=VertebraCount(given.presacral, 1.0) if given.presacral != PRESACRAL else None,
    )
    checked = checked.with_tips(dict(discs))
    if given.other_image and differences:
        checked = checked.limited(NOT_OF_THIS_IMAGE)
    marks = tuple(Disc(value, point, 1.0, presacral=given.presacral) for value, point in landmarks.items())
    return replace(checked, landmarks=marks)


def _refuse_other_grid(given: GivenLabels, grid: Grid) -> None:
    """Refuse labels whose image, as the file recorded it, was this one before it was moved.

    The page's labels hold for this image alone. A label image is judged by its own header, and a table that
    was made on an image with other voxels may be of another scan of the session.
    """
    made_on = given.made_on.grid if given.made_on is not None else grid
    if same_box(made_on, grid) or (given.grid is not None and not given.complete):
        return
    difference = grid_difference(made_on, grid)
    if given.complete or _has_same_voxels(made_on, grid):
        raise LabelsError(
            f"the labels were made on another version of the image ({difference}); "
            "correct this one, or restore the other"
        )


def _has_same_voxels(one: Grid, other: Grid) -> bool:
    """Return whether two grids have voxels of one size in the same numbers, wherever they lie."""
    return one.shape == other.shape and bool(np.allclose(one.spacing_mm, other.spacing_mm, rtol=1e-3))


def _placed(given: GivenLabels, grid: Grid) -> tuple[dict[int, FloatArray], tuple[str, ...]]:
    """Return the points by value; those out of view are passed over if the labels have other voxels."""
    if given.grid is not None and not same_box(given.grid, grid):
        if _has_same_voxels(given.grid, grid):
            difference = grid_difference(given.grid, grid)
            raise LabelsError(
                f"the label image has the voxels of the image but lies elsewhere ({difference}): one of the "
                "headers was changed since; restore it, or label this image again"
            )
        return anchors_in_view(given.points, grid, given.presacral)
    points = unique_points(given.points)
    places = grid.voxel_from_world(np.array(list(points.values())))
    outside = [n for n, inside in zip(points.items(), grid.contains_voxel(places), strict=True) if not inside]
    if outside:
        value, point = outside[0]
        raise LabelsError(
            f"{value} ({disc_name(value, given.presacral)}) at {point_text(point)} mm lies outside the "
            "image; were the labels made on another scan?"
        )
    return points, ()


def _doubts(missing: Sequence[int], given: GivenLabels) -> tuple[str, ...]:
    """Say what is missing among labels that are taken as they are."""
    out = [f"{name} has no position in the file of labels" for name in given.unplaced]
    absent = "is not among the labels; the registration needs them without a gap"
    out += [f"{disc_name(value, given.presacral)} {absent}" for value in missing]
    return tuple(out)


def _differences(points: Mapping[int, FloatArray], given: GivenLabels, base: DiscLabels | None) -> list[str]:
    """Compare labels with the discs that are seen: where they lie, and which levels they have.

    Whoever edited our labels of this image has seen our levels: other ones are meant.
    """
    outside = len({value for value, _ in given.points} - points.keys())
    if outside > len(points):
        return [
            f"{outside} of {outside + len(points)} labels lie outside the image: were they made on another?"
        ]
    seen = [disc for disc in base.discs if not disc.interpolated] if base is not None else []
    if base is None or base.canal is None or min(len(points), len(seen)) < MIN_COMPARED:
        return ["too few discs were detected to compare the labels with"] if given.other_image else []
    tips = np.array([disc.point_world for disc in seen])
    places = np.array([*points.values()])
    along, _ = places_along_line(places, base.canal, step_mm=CANAL_STEP_MM)
    tips_along, _ = places_along_line(tips, base.canal, step_mm=CANAL_STEP_MM)
    within = (along > tips_along.min() - BESIDE_DISC_MM) & (along < tips_along.max() + BESIDE_DISC_MM)
    if given.other_image and 2 * within.sum() < len(places):
        return ["half of the labels or more lie where no disc was detected: do they belong to this image?"]
    if within.sum() < MIN_COMPARED:
        return []
    gap = np.abs(along[within, None] - tips_along)
    nearest = gap.argmin(axis=1)
    apart = np.linalg.norm(places[within] - tips[nearest], axis=1)
    if np.median(gap.min(axis=1)) > BESIDE_DISC_MM or np.median(apart) > FAR_FROM_TIP_MM:
        return [
            f"half of the labels lie {np.median(apart):.0f} mm or more from the detected discs: were they "
            "made on another image, was this one moved since, or do they mark vertebrae?"
        ]
    values = np.array([*points])[within]
    shifts = set((values - [seen[n].value for n in nearest]).tolist())
    has_seen_ours = given.made_on is not None and not given.other_image
    if len(shifts) == 1 and shifts != {0} and not has_seen_ours and base.level_confidence >= CERTAIN:
        (shift,) = shifts
        return [
            f"the labels are {abs(shift)} level{'s' if abs(shift) > 1 else ''} "
            f"{'below' if shift > 0 else 'above'} what the image shows with a confidence of "
            f"{base.level_confidence:.2f}; look at the dens or the sacrum"
        ]
    return []


def _refuse_gaps(missing: Sequence[int], name: Callable[[int], str]) -> None:
    """Refuse labels between which one is missing that is not marked as absent."""
    if missing:
        value = missing[0]
        raise LabelsError(
            f"{value} ({name(value)}) is missing between discs above and below; add it on the review "
            "page, renumber the discs, or mark it as not there"
        )


def _check_places(
    points: dict[int, FloatArray], canal: Centerline | None, name: Callable[[int], str]
) -> None:
    """Refuse points that lie far from the canal, or out of order along it."""
    values = sorted(points)
    places = np.array([points[value] for value in values])
    if canal is None:
        depth = -places[:, 2]
    else:
        arc, distance = places_along_line(places, canal, step_mm=CANAL_STEP_MM)
        far = distance > MAX_TIP_MM
        if far.any():
            first = int(far.argmax())
            raise LabelsError(
                f"{values[first]} ({name(values[first])}) at {point_text(places[first])} mm lies "
                f"{distance[first]:.0f} mm from the spine that was found; was the image moved since?"
            )
        depth = -arc
    for (upper, above), (lower, below) in pairwise(zip(values, depth, strict=True)):
        if below < above:
            raise LabelsError(
                f"{lower} ({name(lower)}) lies above {upper} ({name(upper)}); values grow downwards"
            )
