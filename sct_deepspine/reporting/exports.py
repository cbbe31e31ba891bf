"""Files beside the label image: 3D Slicer markups, heat maps and attention as NIfTI."""

from __future__ import annotations

import json
import os

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from sct_deepspine.anatomy import disc_name
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.io.files import write_text, written_whole
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labels import DiscLabels

__all__ = ["heatmap_volumes", "markups", "write_attention", "write_heatmaps", "write_markups"]

MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/"
    "Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
)


def markups(labels: DiscLabels) -> str:
    """Return the discs as a 3D Slicer point list (``.mrk.json``), in LPS as Slicer writes it."""
    points = [
        {
            "id": str(disc.value),
            "label": disc.name,
            "description": f"{disc.value}, confidence {disc.confidence:.2f}",
            "position": [round(float(c), 4) for c in disc.point_world * (-1, -1, 1)],
            "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for disc in labels.discs
    ]
    node = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "controlPoints": points,
    }
    return json.dumps({"@schema": MARKUPS_SCHEMA, "markups": [node]}, indent=2) + "\n"


def write_markups(labels: DiscLabels, path: str | os.PathLike[str]) -> None:
    """Write the discs as a 3D Slicer point list.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    write_text(path, markups(labels))


def write_heatmaps(prediction: PlanePrediction, path: str | os.PathLike[str]) -> None:
    """Write one heat map per value, 4-D: ``(1, columns, rows, levels)``; see :func:`heatmap_volumes`.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    _write_plane(prediction, np.moveaxis(prediction.maps.heat, 0, -1), path)


def heatmap_volumes(prediction: PlanePrediction) -> str:
    """Return, as JSON, which volume of the heat maps is which value."""
    volumes = [
        {"volume": index, "value": int(value), "name": disc_name(int(value))}
        for index, value in enumerate(prediction.codec.values)
    ]
    return json.dumps({"volumes": volumes}, indent=2) + "\n"


def write_attention(prediction: PlanePrediction, path: str | os.PathLike[str]) -> None:
    """Write the attention map, ``(1, columns, rows)``.

    Raises
    ------
    ValueError
        If the network has no attention.
    OutputError
        If it can't be written there.
    """
    if prediction.attention is None:
        raise ValueError("this network has no attention map")
    _write_plane(prediction, prediction.attention, path)


def _write_plane(
    prediction: PlanePrediction, maps: NDArray[np.float32], path: str | os.PathLike[str]
) -> None:
    """Write maps of cells as a volume one voxel thick that overlays the image in a viewer.

    A plane that bends sideways is written flat, at its mean lateral position.
    """
    data = np.swapaxes(maps, 0, 1)[None, :, ::-1]
    with written_whole(path) as partial:
        nib.save(nib.Nifti1Image(np.ascontiguousarray(data, dtype=np.float32), _affine(prediction)), partial)


def _affine(prediction: PlanePrediction) -> FloatArray:
    plane, codec = prediction.plane, prediction.codec
    cell_mm = plane.pixel_mm * codec.stride
    rows = prediction.maps.any_disc.shape[0]
    lowest = codec.pixel_from_cell([[rows - 1, 0]])[0]
    along = plane.points_world[0, 0] @ plane.axes
    along[0] = (plane.points_world @ plane.axes)[..., 0].mean()
    along += plane.pixel_mm * np.array([0, lowest[1], -lowest[0]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = cell_mm * plane.axes, plane.axes @ along
    return affine
