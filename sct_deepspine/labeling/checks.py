"""What is checked before an image is labelled: that it is a scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sct_deepspine.errors import ImageError
from sct_deepspine.geometry.background import sampled_voxels
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.images import ImageLike, read_volume

__all__ = ["WHAT_TO_CHECK", "read_scan"]

WHAT_TO_CHECK = "is a spine in view, and is the header's orientation right?"
"""What a person should look at where no spine is found."""

MIN_SIDE_MM = 20.0
"""An image whose second longest side is shorter shows no spine: its voxel sizes are wrong."""

SAMPLED_VOXELS, MIN_GREYS = 200_000, 12
"""A scan has more than the second number of different grey values among the first number of voxels."""


def read_scan(image: ImageLike) -> Volume:
    """Read an image, and refuse what is no scan.

    Raises
    ------
    ImageError
        If it can't be read, is too small for a spine, or holds a few values only, as masks do.
    """
    if isinstance(image, Volume) and image.is_scan:
        return image
    volume = read_volume(image)
    lengths = volume.grid.spacing_mm * volume.grid.shape
    if np.sort(lengths)[1] < MIN_SIDE_MM:
        met = " × ".join(f"{length:.3g}" for length in lengths)
        raise ImageError(f"the image measures {met} mm; are the voxel sizes in the header right (mm)?")
    sampled = sampled_voxels(volume.data, SAMPLED_VOXELS)
    values, _ = np.unique(sampled, return_counts=True)  # without counts it loads numpy.ma first
    if len(values) <= MIN_GREYS:
        raise ImageError(
            f"the image holds {len(values)} different values only; is it a mask or a label image, not a scan?"
        )
    return replace(volume, is_scan=True)
