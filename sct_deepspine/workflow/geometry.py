"""What a header says twice, or not at all: transforms that contradict each other, or none."""

from __future__ import annotations

from sct_deepspine.errors import GeometryError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.io.identity import grid_difference
from sct_deepspine.io.images import ImageLike, lacks_orientation, other_geometry, read_mask, read_volume

__all__ = ["check_mask_space", "geometry_notes"]


def geometry_notes(image: ImageLike, used: Grid) -> tuple[str, ...]:
    """Say that the header of an image holds no orientation, or which one was used of two that differ."""
    if lacks_orientation(image):
        return (
            "the header holds no orientation (qform and sform codes are 0): the axes were taken to run to "
            "the left, forwards and upwards; check left and right, and convert the scan again with dcm2niix",
        )
    other = other_geometry(image)
    if other is None:
        return ()
    return (
        f"the header holds two geometries ({grid_difference(used, other)}): the sform was used, not the "
        "qform; make them agree (sct_image -set-sform-to-qform, or -set-qform-to-sform)",
    )


def check_mask_space(mask: ImageLike, image: ImageLike) -> None:
    """Refuse a mask that lies where the image's unused transform puts it.

    Raises
    ------
    GeometryError
        If it does.
    """
    other = other_geometry(image)
    if other is None:
        return
    grid = read_mask(mask).grid
    if not grid_difference(grid, other) and grid_difference(grid, read_volume(image).grid):
        raise GeometryError(
            "the mask lies where the qform of the image puts it, but the image is read by its sform; make "
            "the two transforms of the image agree, then make the mask again"
        )
