"""Where the truth of a scan is known, and the loss counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.anatomy import DISC_VALUES
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.io.annotations import LabelledScan

__all__ = ["is_known"]

UNKNOWN_MM = 6.0, 40.0
"""Where the next landmark beyond the last labelled point may lie, mm from it."""


def is_known(scan: LabelledScan, z_mm: FloatArray) -> NDArray[np.bool_]:
    """Return at which world z an empty "any disc" map is the truth.

    Nothing above the dens and nothing below S1/S2 is predicted, so that the span is open there, except
    where a landmark must be that is not labelled. A scan without any disc is one without a spine.
    """
    low, high = scan.span_z_mm
    if not scan.discs:
        return np.ones(z_mm.shape, dtype=bool)
    top, bottom = min(scan.levels), max(scan.levels)
    known = ((z_mm < high) | (top <= DISC_VALUES[0])) & ((z_mm > low) | (bottom >= DISC_VALUES[-1]))
    if 1 < top <= DISC_VALUES[0]:
        above = z_mm - scan.levels[top][2]
        known &= (above < UNKNOWN_MM[0]) | (above > UNKNOWN_MM[1] * (top - 1))
    if bottom == DISC_VALUES[-1]:
        below = scan.levels[bottom][2] - z_mm
        known &= (below < UNKNOWN_MM[0]) | (below > UNKNOWN_MM[1])
    return known
