"""label_discs(): from an image to its discs.

The story: turn to the image's slices, find the canal, lay a sheet along it, draw heat maps on it, find
candidates, look again, finely, in the straightened spine, and read the candidates as an ordered sequence of
levels.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import ArrayLike

from sct_deepspine.anatomy import disc_name
from sct_deepspine.errors import AnchorError, NoDiscsError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray, slices_from_world
from sct_deepspine.geometry.planes import SLAB_MM, middle_sheet, normalise, sample
from sct_deepspine.geometry.spacing import SpacingPrior, fill_skipped
from sct_deepspine.geometry.straightening import MovedSpace, PointMap, SlidSpace, StraightSpace
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.images import ImageLike, read_mask, read_volume
from sct_deepspine.labeling.anchors import Anchors, as_anchors, match_anchors
from sct_deepspine.labeling.calibration import Calibration, view_kind
from sct_deepspine.labeling.canal import extend_centerline, find_centerline
from sct_deepspine.labeling.heatmaps import DrawnSheet
from sct_deepspine.labeling.levels import Candidates, Sequence, decode
from sct_deepspine.labeling.refinement import look_again
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.models.predictor import Artist
from sct_deepspine.models.weights import Weights, load_weights

__all__ = ["label_discs", "spine_score"]

CANDIDATE_THRESHOLD = 0.1
BEYOND_MM = 60.0
BESIDE_CANAL_MM = 30.0
"""A tip is no farther than this from the canal, which is followed straight on beyond its ends."""

LENGTH_POWER = 0.75
"""A sequence's score is weighed against its number of discs to this power: chance makes short ones."""

UNCERTAIN = 0.5
ODD_SPACING = 1.5


def label_discs(
    image: ImageLike,
    *,
    seg: ImageLike | None = None,
    centerline: Centerline | ArrayLike | None = None,
    anchor: Anchors | None = None,
    weights: Any = None,
    device: str | None = None,
    straight: str | Centerline | PointMap = "auto",
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
        A weights file instead of the shipped one.
    device
        Where torch runs the networks, as it names it. By default onnxruntime runs them if it is
        installed, else torch on the CPU.
    straight
        ``"auto"`` to straighten along the centreline, ``"off"`` to follow it without straightening, a
        line to straighten along instead, or a straight space, such as
        :class:`sct_deepspine.geometry.displacement.WarpedStraightSpace`.
    return_maps
        Keep what the network saw and drew in ``DiscLabels.drawn``.

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
        If an anchor fits no disc.
    WeightsError, DeviceError
        If the weights or the device can't be used.
    """
    volume = read_volume(image)
    known = _inside_image(as_anchors(anchor), volume)
    trained = load_weights(weights, device=device)
    ras = volume.as_ras()
    turn = slices_from_world(ras.grid)
    back = np.linalg.inv(turn)
    slices = ras.moved(turn)
    coarse = slices.block_mean((SLAB_MM / 2, trained.locate.pixel_mm, trained.locate.pixel_mm))
    given = _given_centerline(seg, centerline)
    line = (
        extend_centerline(given.moved(turn), coarse, trained.locate)
        if given
        else find_centerline(coarse, trained.locate)
    )
    drawn = _draw(coarse, line, trained.locate)
    found = _find_candidates(drawn, line, slices)
    if trained.refine is not None:
        space = _space(straight, line, turn)
        found = look_again(slices, space, coarse=drawn, found=found, artist=trained.refine)
    found = replace(found, points=apply_affine(back, found.points))
    found, clamped = match_anchors(found, known, ras.grid)
    sequence = _read_levels(found, clamped, trained)
    if not clamped:
        sequence = _calibrated(sequence, trained.calibration)
    discs = _assemble(found.points[sequence.indices], sequence, volume)
    return DiscLabels(
        discs=discs,
        grid=volume.grid,
        level_confidence=sequence.level_confidence,
        weights=trained.identity,
        warnings=_warnings(discs, sequence),
        source=image,
        drawn=replace(drawn, sheet=drawn.sheet.moved(back), attention=trained.locate.attention(drawn.plane))
        if return_maps
        else None,
    )


def _inside_image(anchors: dict[int, FloatArray], volume: Volume) -> dict[int, FloatArray]:
    """Refuse an anchor whose whole point lies outside the image."""
    for value, point in anchors.items():
        if (
            np.isfinite(point).all()
            and not volume.grid.contains_voxel(volume.grid.voxel_from_world(point))[0]
        ):
            place = ", ".join(f"{c:.0f}" for c in point)
            raise AnchorError(
                f"anchor {value}: ({place}) mm lies outside the image; give world RAS+ coordinates"
            )
    return anchors


def _given_centerline(seg: ImageLike | None, centerline: Centerline | ArrayLike | None) -> Centerline | None:
    if isinstance(centerline, Centerline):
        return centerline
    if centerline is not None:
        return Centerline.from_points(centerline)
    if seg is not None:
        mask = read_mask(seg)
        return Centerline.from_mask(mask.data, mask.grid)
    return None


def _space(straight: str | Centerline | PointMap, line: Centerline, turn: FloatArray) -> PointMap:
    if straight == "auto":
        return StraightSpace(line)
    if straight == "off":
        return SlidSpace(line)
    if isinstance(straight, Centerline):
        return StraightSpace(straight.moved(turn))
    if not isinstance(straight, str):
        return MovedSpace(straight, turn)
    raise ValueError(f"expected straight to be 'auto', 'off', a line or a straight space, got {straight!r}")


def _draw(volume: Volume, line: Centerline, artist: Artist) -> DrawnSheet:
    """Draw the coarse maps on one sheet along the spine."""
    sheet = middle_sheet(volume, line, artist.pixel_mm)
    plane = normalise(*sample(volume, sheet, slab_mm=SLAB_MM))
    return DrawnSheet(sheet, plane, artist.draw([plane])[0], artist.codec)


def _find_candidates(drawn: DrawnSheet, line: Centerline, volume: Volume) -> Candidates:
    """Find what may be discs, as world points that lie in the image and beside the canal."""
    cells, strength, level = drawn.codec.decode(drawn.maps, threshold=CANDIDATE_THRESHOLD)
    points = drawn.sheet.world_from_pixel(drawn.codec.pixel_from_cell(cells))
    canal = line.points_world(np.arange(-BEYOND_MM, line.length_mm + BEYOND_MM, 2.0))
    beside = np.linalg.norm(points[:, None] - canal, axis=2).min(axis=1) < BESIDE_CANAL_MM
    inside = beside & volume.grid.contains_voxel(volume.grid.voxel_from_world(points))
    return Candidates(points[inside], strength[inside], level[inside], drawn.codec.first_value)


def _read_levels(found: Candidates, clamped: dict[int, int], trained: Weights) -> Sequence:
    if not len(found.strength):
        raise NoDiscsError("no disc was found in the image; is it a sagittal view of a spine?")
    sequence = decode(found, anchors=clamped, parameters=trained.decoding)
    score = spine_score(sequence)
    if score < trained.least_score and not clamped:
        raise NoDiscsError(
            f"no sequence of discs was found in the image (score {score:.1f}, "
            f"{trained.least_score:.1f} needed); is it a sagittal view of a spine?"
        )
    return sequence


def spine_score(sequence: Sequence) -> float:
    """Return how well a sequence shows that there is a spine: its score, weighed against its length."""
    return sequence.score / len(sequence.values) ** LENGTH_POWER


def _calibrated(sequence: Sequence, calibration: Calibration) -> Sequence:
    """Correct the decoding's probabilities by how often such ones were right."""
    kind = view_kind(sequence.values.tolist())
    return replace(
        sequence,
        probabilities=calibration.of_discs(sequence.probabilities, kind),
        level_confidence=calibration.of_scan(sequence.level_confidence, kind),
    )


def _assemble(tips_world: FloatArray, sequence: Sequence, volume: Volume) -> tuple[Disc, ...]:
    """Put the discs in order, with those that were stepped over filled in."""
    values, points, flags = fill_skipped(tips_world, sequence.values)
    seen = dict(zip(sequence.values.tolist(), sequence.probabilities.tolist(), strict=True))
    # A disc that was not seen is half as sure as the least sure one that was.
    discs = [
        Disc(int(value), point, float(seen.get(int(value), min(seen.values()) / 2)), bool(flag))
        for value, point, flag in zip(values, points, flags, strict=True)
    ]
    inside = volume.grid.contains_voxel(volume.grid.voxel_from_world(points))
    return tuple(disc for disc, visible in zip(discs, inside, strict=True) if visible)


def _warnings(discs: tuple[Disc, ...], sequence: Sequence) -> tuple[str, ...]:
    """Tell what a person should look at."""
    out = []
    if sequence.level_confidence < UNCERTAIN:
        settle = discs[len(discs) // 2].name
        text = f"the level is uncertain (probability {sequence.level_confidence:.2f} that all are right"
        if sequence.runner_up_shift:
            text += f"; the likeliest other reading is {sequence.runner_up_shift:+d}"
        text += f"); give the level of one disc, for instance the one labelled {settle}, as an anchor"
        out.append(text)
    out += _odd_spacings(discs)
    filled = [disc_name(disc.value) for disc in discs if disc.interpolated]
    if filled:
        out.append(f"not seen, placed between its neighbours: {', '.join(filled)}")
    return tuple(out)


def _odd_spacings(discs: tuple[Disc, ...]) -> list[str]:
    """Tell which neighbours are oddly far apart or near, for this person's size."""
    expected = SpacingPrior().spacing_mm
    pairs = list(pairwise(discs))
    distances = [float(np.linalg.norm(upper.point_world - lower.point_world)) for upper, lower in pairs]
    ratios = [distance / expected[upper.value] for distance, (upper, _) in zip(distances, pairs, strict=True)]
    return [
        f"{upper.name} and {lower.name} are {distance:.0f} mm apart, {ratio / np.median(ratios):.1f} times "
        "the expected; look for a missed disc or an extra, missing or fused vertebra"
        for (upper, lower), distance, ratio in zip(pairs, distances, ratios, strict=True)
        if not 1 / ODD_SPACING < ratio / np.median(ratios) < ODD_SPACING
    ]
