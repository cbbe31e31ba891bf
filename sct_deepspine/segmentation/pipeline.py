"""segment_spine(): from an image to its masks.

The stages: label the discs, which also finds the canal; predict the tissues on sagittal planes of the
straightened spine; give every vertebra and disc the level of its labelled disc, by the way through the
tissue; and read it all at the voxels of the image, by the exact maps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label

from sct_deepspine.anatomy import DISC_VALUES, EXPECTED_SPACING_MM, PRESACRAL
from sct_deepspine.errors import LabelsError, NoDiscsError
from sct_deepspine.geometry.grid import FloatArray, Grid, point_text
from sct_deepspine.geometry.planes import normalise, sample
from sct_deepspine.geometry.reading import read_linear
from sct_deepspine.geometry.volume import DeobliquedVolume
from sct_deepspine.io.identity import grid_difference, same_box
from sct_deepspine.io.images import ImageLike
from sct_deepspine.labeling.canal import coarse_view, find_centerline
from sct_deepspine.labeling.checks import read_scan
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import label_discs, straighten
from sct_deepspine.labels import DiscLabels
from sct_deepspine.models.weights import Weights
from sct_deepspine.segmentation.corridor import Corridor, corridor_along, with_neighbours
from sct_deepspine.segmentation.levels import assign_discs, assign_vertebrae, read_coarse, spread
from sct_deepspine.segmentation.masks import (
    CANAL_VALUE,
    CORD_VALUE,
    SpineMasks,
    disc_mask_value,
    vertebra_mask_value,
)
from sct_deepspine.segmentation.model import SegmentationModel
from sct_deepspine.segmentation.tissues import Tissue, TissuePredictor

__all__ = ["predict_tissues", "read_at_voxels", "read_cord_levels", "segment_spine", "straight_tips"]

CORD_WEIGHT = 0.8
"""What is cord is decided with the cord's probability times this. At even weight the cords of eight scans
came out 6 to 25 % larger than those drawn by hand. Chosen on these scans, by area and Dice."""

MAX_ROUNDS = 5
"""Strays are taken out of the canal so many times at most; two do on nearly all scans."""

MIN_BREAK_MM = 4.0
"""A canal that is not seen for so long along the spine breaks off."""

BRIDGED_CELLS = 4
"""Pieces of a cord or a canal with no more rows than twice this between them are one."""


def segment_spine(
    image: ImageLike,
    *,
    labels: DiscLabels | None = None,
    weights: SegmentationModel | Weights | str | os.PathLike[str] | None = None,
    labeling: LabelingModel | Weights | str | os.PathLike[str] | None = None,
    device: str | None = None,
) -> SpineMasks:
    """Segment cord, canal, vertebrae and discs of a spine MRI.

    Parameters
    ----------
    image
        Path, nibabel image, SCT ``Image`` or ``(array, affine)``: one 3-D volume of any contrast,
        orientation and field of view. It is not altered.
    labels
        Its discs, from :func:`sct_deepspine.label_discs` or corrected by a person; by default they are
        labelled here.
    weights
        Loaded weights or a weights file of the masks instead of the shipped one.
    labeling
        The same of the labelling.
    device
        Where torch runs the networks, as it names it. By default onnxruntime runs them if it is
        installed, else torch on the CPU.

    Returns
    -------
    SpineMasks
        On the image's own grid. Nothing is segmented farther than 26 mm beside the canal, 60 mm behind it
        or 52 mm before it.

    Raises
    ------
    ImageError, GeometryError
        If the image can't be worked on.
    LabelsError
        If the labels are of an image on another grid.
    NoDiscsError
        If no spine is in the image.
    WeightsError, DeviceError
        If the weights or the device can't be used.
    """
    model = (
        weights if isinstance(weights, SegmentationModel) else SegmentationModel.load(weights, device=device)
    )
    volume = read_scan(image)
    if labels is not None and not same_box(labels.grid, volume.grid):
        difference = grid_difference(labels.grid, volume.grid)
        raise LabelsError(f"the labels are of another image ({difference}); label this one")
    view = DeobliquedVolume.of(volume)
    if labels is None or labels.canal is None:
        own = labeling if isinstance(labeling, LabelingModel) else LabelingModel.load(labeling, device=device)
        labels = label_discs(volume, weights=own) if labels is None else labels
    canal = labels.canal or find_centerline(coarse_view(view, own.locate), own.locate, finder=own.canal)
    space = straighten(view, canal)
    corridor = corridor_along(space, view.volume.grid, pixel_mm=model.predictor.pixel_mm)
    tissues = predict_tissues(view, corridor, model.predictor)
    tips = straight_tips(labels, corridor)
    spine = read_at_voxels(tissues, tips, corridor, volume.grid, presacral=labels.presacral)
    return SpineMasks(
        spine=spine,
        cord_levels=read_cord_levels(spine == CORD_VALUE, labels, corridor, volume.grid),
        grid=volume.grid,
        labels=labels.with_source(image),
        measured=model.measured,
        weights=model.identity,
        warnings=(*labels.warnings, *_doubts(tissues, corridor)),
    )


def _doubts(tissues: NDArray[np.float32], corridor: Corridor) -> list[str]:
    """Say where the canal is not seen between its ends."""
    likeliest = tissues.argmax(axis=0)
    rows = np.flatnonzero(((likeliest == Tissue.CORD) | (likeliest == Tissue.FLUID)).any(axis=(0, 2)))
    out = []
    for first, last in pairwise(rows.tolist()):
        length_mm = (last - first - 1) * corridor.pixel_mm
        if length_mm >= MIN_BREAK_MM:
            middle = np.array([[0.0, 0.0, corridor.z_mm[1] - (first + last + 1) / 2 * corridor.pixel_mm]])
            place = point_text(corridor.space.native_from_straight(middle)[0])
            out.append(
                f"the canal is not seen over {length_mm:.0f} mm near {place} mm: its mask has a gap there"
            )
    return out


def predict_tissues(
    view: DeobliquedVolume, corridor: Corridor, predictor: TissuePredictor
) -> NDArray[np.float32]:
    """Predict a score of each tissue in each cell, ``(tissues, planes, rows, columns)``.

    It is the tissue's probability, the cord's weighted by :data:`CORD_WEIGHT`; the highest one decides.
    Cord and canal are one piece each; what else is taken for cord is canal, what else for canal nothing.
    """
    tissues = np.zeros((len(Tissue), *corridor.shape), dtype=np.float32)
    tissues[Tissue.OTHER] = 1
    read = [
        sample(view.volume, plane, slab_mm=corridor.plane_step_mm) for plane in corridor.planes(view.axes)
    ]
    seen = [number for number, (_, inside) in enumerate(read) if inside.any()]
    images = [normalise(*pair) for pair in read]
    predicted = predictor.predict([with_neighbours(images, n, predictor.in_channels) for n in seen])
    for number, maps in zip(seen, predicted, strict=True):
        tissues[:, number] = np.where(read[number][1], maps, tissues[:, number])
    _continue_sideways(tissues, np.stack([inside for _, inside in read]))
    tissues[Tissue.CORD] *= CORD_WEIGHT
    cord = tissues.argmax(axis=0) == Tissue.CORD
    _move(tissues, Tissue.CORD, Tissue.FLUID, cord, ~_largest_piece(cord))
    for _ in range(MAX_ROUNDS):  # what is moved may make the other tissue the likeliest farther out
        likeliest = tissues.argmax(axis=0)
        canal = (likeliest == Tissue.CORD) | (likeliest == Tissue.FLUID)
        stray = canal & ~_largest_piece(canal)
        if not stray.any():
            break
        for tissue in (Tissue.CORD, Tissue.FLUID):
            _move(tissues, tissue, Tissue.OTHER, tissues.argmax(axis=0) == tissue, stray)
    return tissues


def _continue_sideways(tissues: NDArray[np.float32], inside: NDArray[np.bool_]) -> None:
    """Give the cells just beside the image the tissues of those within it.

    The outermost voxels lie between the last plane within and the first one beyond.
    """
    for here, beside in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        border = ~inside[here] & inside[beside]
        tissues[:, here] = np.where(border, tissues[:, beside], tissues[:, here])


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest piece of a mask, over gaps of a few rows."""
    bridged = binary_dilation(mask, np.ones((1, 2 * BRIDGED_CELLS + 1, 1)))
    pieces, count = label(bridged)
    if count < 2:
        return mask
    sizes = np.bincount(pieces[mask], minlength=count + 1)
    return mask & (pieces == sizes.argmax())


def _move(
    tissues: NDArray[np.float32],
    source: Tissue,
    target: Tissue,
    likeliest: NDArray[np.bool_],
    where: NDArray[np.bool_],
) -> None:
    """Give one tissue's score to another where it is the likeliest and about there, within a mask."""
    near = binary_dilation(likeliest & where, iterations=2) & where
    tissues[target][near] += tissues[source][near]
    tissues[source][near] = 0


def straight_tips(labels: DiscLabels, corridor: Corridor) -> dict[int, FloatArray]:
    """Return the straight ``(3,)`` posterior tip of each disc, by value.

    Raises
    ------
    NoDiscsError
        If there is none.
    """
    discs = [disc for disc in labels.discs if DISC_VALUES[0] <= disc.value <= labels.presacral + 1]
    if not discs:
        raise NoDiscsError("the labels hold no disc from C2/C3 (3) to L5/S1 (25)")
    points = corridor.space.straight_from_native(np.array([disc.point_world for disc in discs]))
    return {disc.value: point for disc, point in zip(discs, points, strict=True) if np.isfinite(point).all()}


def read_at_voxels(
    tissues: NDArray[np.float32],
    tips: Mapping[int, FloatArray],
    corridor: Corridor,
    grid: Grid,
    *,
    presacral: int = PRESACRAL,
) -> NDArray[np.uint8]:
    """Return the whole mask on a grid: tissues read between the cells, levels at the nearest one.

    Parameters
    ----------
    tissues
        What :func:`predict_tissues` returned.
    tips
        Disc value → straight ``(3,)`` posterior tip.
    corridor
        Where the cells are.
    grid
        The image's.
    presacral
        Vertebrae above the sacrum.
    """
    likeliest = tissues.argmax(axis=0)
    discs = assign_discs(likeliest == Tissue.DISC, tips, corridor)
    vertebrae = assign_vertebrae(likeliest == Tissue.VERTEBRA, tips, discs, corridor)
    names = {
        Tissue.DISC: _renamed(spread(discs, corridor), {v: disc_mask_value(v, presacral) for v in tips}),
        Tissue.VERTEBRA: _renamed(
            spread(vertebrae, corridor), {n: vertebra_mask_value(n) for n in range(1, presacral + 1)}
        ),
    }
    spine = np.zeros(grid.shape, dtype=np.uint8)
    near = binary_dilation(likeliest != Tissue.OTHER, np.ones((3, 3, 3)))
    of_cells = np.ascontiguousarray(np.moveaxis(tissues, 0, -1))
    for box, cells in corridor.cells_of_voxels(grid):
        spine[box] = _values_at(cells, near, of_cells, names)
    return spine


def _values_at(
    cells: tuple[NDArray[np.float32], ...],
    near: NDArray[np.bool_],
    tissues: NDArray[np.float32],
    names: Mapping[Tissue, NDArray[np.uint8]],
) -> NDArray[np.uint8]:
    """Return the mask values at continuous cells; ``near`` any tissue only, tissues by cell."""
    out = np.zeros(cells[0].shape, dtype=np.uint8)
    with np.errstate(invalid="ignore"):
        within = [(cell > -0.5) & (cell < n - 0.5) for cell, n in zip(cells, near.shape, strict=True)]
    inside = np.flatnonzero(np.logical_and.reduce(within))
    places = np.stack([cell.ravel()[inside] for cell in cells])
    nearest = tuple(np.round(places).astype(np.int32))
    active = near[nearest]
    places, nearest = places[:, active], tuple(axis[active] for axis in nearest)
    tissue = read_linear(tissues, places).argmax(axis=-1)
    value = np.zeros(len(tissue), dtype=np.uint8)
    value[tissue == Tissue.CORD], value[tissue == Tissue.FLUID] = CORD_VALUE, CANAL_VALUE
    for kind, named in names.items():
        of_kind = tissue == kind
        value[of_kind] = read_coarse(named, tuple(axis[of_kind] for axis in nearest))
    out.reshape(-1)[inside[active]] = value
    return out


def _renamed(labels: NDArray[np.uint8], names: Mapping[int, int]) -> NDArray[np.uint8]:
    table = np.zeros(256, dtype=np.uint8)
    table[list(names)] = list(names.values())
    return table[labels]


def read_cord_levels(
    cord: NDArray[np.bool_], labels: DiscLabels, corridor: Corridor, grid: Grid
) -> NDArray[np.uint8]:
    """Return the cord by vertebral level: between the discs' projections on the canal, on the image's grid.

    One vertebra is added beyond the first and the last disc, as high as the template's proportions make it;
    the cord beyond that has no level.
    """
    whole = labels.with_upper_discs()
    values = whole.values.tolist()
    projections = corridor.space.straight_from_native(whole.points_world)[:, 2]
    heights = dict(zip(values, projections.tolist(), strict=True))
    first, last = min(heights), max(heights)
    borders = [heights[first] + EXPECTED_SPACING_MM[max(first - 1, 1)], *heights.values()]
    borders.append(heights[last] - EXPECTED_SPACING_MM[min(last, DISC_VALUES[-1])])
    numbers = np.array([0, first - 1, *values, 0], dtype=np.uint8)
    out = np.zeros(cord.shape, dtype=np.uint8)
    voxels = np.argwhere(cord)
    z = corridor.space.straight_from_native(grid.world_from_voxel(voxels))[:, 2]
    out[tuple(voxels.T)] = numbers[np.searchsorted(-np.array(borders), -z)]
    return out
