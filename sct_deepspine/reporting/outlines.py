"""Outlines of masks on a plane, as SVG paths in its pixels."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from contourpy import LineType, contour_generator
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import SamplingPlane, read_labels
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.segmentation.masks import CANAL_VALUE, CORD_VALUE, SpineMasks

__all__ = ["outline", "outlined_structures"]


def outline(mask: NDArray[np.bool_]) -> str:
    """Return the path about the true pixels of a mask, x the column and y the row; empty for an empty mask.

    Examples
    --------
    >>> outline(np.eye(1, dtype=bool))
    'M-0.5 0L0 -0.5L0.5 0L0 0.5Z'
    """
    boxes = find_objects(mask.astype(np.uint8))
    if not boxes:
        return ""
    rows, columns = boxes[0]
    around = np.pad(mask[rows, columns], 1).astype(np.float64)
    generator = contour_generator(z=around, line_type=LineType.Separate)
    corner = np.array([columns.start, rows.start]) - 1
    lines = cast("list[FloatArray]", generator.lines(0.5))  # as they are with that line type
    return "".join(_path(_corners(line[:-1]) + corner) for line in lines)


def _corners(line: FloatArray) -> FloatArray:
    """Leave out the points of a closed line at which it goes straight on."""
    to, on = line - np.roll(line, 1, axis=0), np.roll(line, -1, axis=0) - line
    return line[np.abs(to[:, 0] * on[:, 1] - to[:, 1] * on[:, 0]) > 1e-9]


def _path(line: FloatArray) -> str:
    points = (f"{x:.1f} {y:.1f}".replace(".0", "").replace("-0 ", "0 ") for x, y in line)
    return "M" + "L".join(points) + "Z"


def outlined_structures(masks: SpineMasks, **planes: SamplingPlane) -> tuple[dict[str, Any], ...]:
    """Return canal, cord and every vertebra and disc of the masks with its outline on each plane.

    Returns
    -------
    tuple
        ``kind`` (canal, cord, vertebra or disc), ``name``, ``unsure``, ``measured``, and by the name of each
        plane a path, empty where the structure isn't met.
    """
    whole = Volume(masks.spine, masks.grid)
    read = {name: read_labels(whole, plane) for name, plane in planes.items()}
    found: list[tuple[dict[str, Any], tuple[int, ...]]] = []
    for kind, values in (("canal", (CORD_VALUE, CANAL_VALUE)), ("cord", (CORD_VALUE,))):
        if np.isin(masks.spine, values).any():
            measured = values[-1] in masks.measured
            found.append(({"kind": kind, "name": kind, "unsure": False, "measured": measured}, values))
    for part in masks.structures:
        kind = "disc" if "/" in part.name else "vertebra"
        about = {"kind": kind, "name": part.name, "unsure": part.unsure, "measured": part.measured}
        found.append((about, (part.value,)))
    return tuple(
        about | {name: outline(np.isin(mask, values)) for name, mask in read.items()}
        for about, values in found
    )
