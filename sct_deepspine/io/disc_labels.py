"""Disc labels from a file: a label image, a CSV table, 3D Slicer markups, or corrections of the review page.

One rule holds for all of them. 1 (top of C1) to 25 (L5/S1) are points that can be written to a label image;
26 (S1/S2) is a landmark: it tells the level and is never written. 49, 50 and 60 are no levels and are
passed over. Any other value is an error.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.anatomy import FIRST_VALUE, LAST_VALUE, disc_name
from sct_deepspine.errors import LabelsError
from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.io.identity import ImageIdentity
from sct_deepspine.io.images import ImageLike, read_volume

__all__ = [
    "GivenLabels",
    "LabelledPoint",
    "read_disc_labels",
    "read_page_corrections",
    "unique_points",
]

LabelledPoint = tuple[int, FloatArray]
"""Disc value and ``(3,)`` world point."""

NOT_LEVELS = (49, 50, 60)
"""SCT's values of the pontomedullary groove and junction and of the conus: no levels, passed over."""

MAX_LABELS = 40
"""A file with more labels than this is no file of disc labels."""

WHOLE = 0.01
"""A label value no farther than this from a whole number is that number: some tools store 2.9999."""

ONE_PLACE_MM = 0.01
"""Two labels nearer to each other than this, in mm, are at one place."""


@dataclass(frozen=True, eq=False)
class GivenLabels:
    """What a person says of the discs of a scan.

    Parameters
    ----------
    points
        Value and world point of each label, in the file's order.
    grid
        Grid of the label image; None for a table or a point list.
    made_on
        The image they were made on, where the file records it.
    complete
        Whether these are all the discs of the image, as the review page saves them.
    absent
        Values that the person marked as not there, such as those of fused vertebrae.
    """

    points: tuple[LabelledPoint, ...]
    grid: Grid | None = None
    made_on: ImageIdentity | None = None
    complete: bool = False
    absent: frozenset[int] = frozenset()


def read_disc_labels(source: ImageLike | GivenLabels | Mapping[int, Any]) -> GivenLabels:
    """Read labels that a person made.

    Parameters
    ----------
    source
        Label image (path or any image that :func:`sct_deepspine.label_discs` takes), path of a CSV table or
        of 3D Slicer markups, ``{value: (x, y, z)}`` in world mm, or labels that were read before.

    Raises
    ------
    ImageError
        If a label image can't be read.
    LabelsError
        If a table or a point list can't be read, or the labels are none, too many, or no levels.
    """
    if isinstance(source, GivenLabels):
        return source
    if isinstance(source, Mapping):
        return GivenLabels(_checked(_points_of(source)))
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.suffix.lower() == ".csv":
            return GivenLabels(_checked(_read_table(path)))
        if path.suffix.lower() == ".json":
            return GivenLabels(_checked(_read_markups(path)))
    return _read_image(source)


def _points_of(source: Mapping[int, Any]) -> list[LabelledPoint]:
    try:
        points = [(int(value), np.asarray(point, dtype=np.float64)) for value, point in source.items()]
    except (TypeError, ValueError) as error:
        raise LabelsError(f"expected {{value: (x, y, z)}} in world mm, got {source!r}") from error
    for value, point in points:
        if point.shape != (3,) or not np.isfinite(point).all():
            raise LabelsError(f"label {value}: expected a world point (x, y, z), got {point.tolist()}")
    return points


def _checked(points: Iterable[LabelledPoint]) -> tuple[LabelledPoint, ...]:
    """Leave out what is no level, and refuse what is no disc label."""
    levels = tuple((value, point) for value, point in points if value not in NOT_LEVELS)
    if not levels:
        raise LabelsError("the labels hold no disc")
    strange = sorted({value for value, _ in levels if not FIRST_VALUE <= value <= LAST_VALUE})
    if strange:
        raise LabelsError(f"the labels hold the value {strange[0]}; discs are {FIRST_VALUE} to {LAST_VALUE}")
    for number, (value, point) in enumerate(levels):
        for other, place in levels[:number]:
            if value != other and np.linalg.norm(point - place) < ONE_PLACE_MM:
                raise LabelsError(f"the labels {other} and {value} are at one place; which one is it?")
    return levels


def unique_points(points: Iterable[LabelledPoint]) -> dict[int, FloatArray]:
    """Return labels as value → ``(3,)`` world point.

    Raises
    ------
    LabelsError
        If one value is at two places.
    """
    out: dict[int, FloatArray] = {}
    for value, point in points:
        if value in out:
            raise LabelsError(f"the labels have {value} at two places; which one is it?")
        out[value] = point
    return out


def _read_image(source: ImageLike) -> GivenLabels:
    from scipy.ndimage import center_of_mass, find_objects, label

    volume = read_volume(source)
    labels = _whole_numbers(volume.data)
    values = np.unique(labels[labels > 0])
    if len(values) > MAX_LABELS:
        raise LabelsError(f"the labels hold {len(values)} values; is it an image of disc labels?")
    points: list[LabelledPoint] = []
    # Each value is looked for where it is; their ranks are small numbers, whatever they are.
    ranks = np.where(labels > 0, np.searchsorted(values, labels) + 1, 0)
    for value, box in zip(values, find_objects(ranks), strict=True):
        groups, count = label(labels[box] == value, structure=np.ones((3, 3, 3)))
        if len(points) + count > MAX_LABELS:
            raise LabelsError(f"there are more than {MAX_LABELS} labels; is it an image of disc labels?")
        centres = np.array(center_of_mass(groups > 0, groups, range(1, count + 1)))
        centres += [part.start for part in box]
        points += [(int(value), point) for point in volume.grid.world_from_voxel(centres)]
    return GivenLabels(_checked(points), volume.grid)


def _whole_numbers(data: NDArray[Any]) -> NDArray[np.int64]:
    """Return label values as integers; refuse a scaled label image."""
    if data.dtype.kind in "biu":
        return data.astype(np.int64)
    whole = np.round(data)
    broken = np.abs(data - whole) > WHOLE
    # A grey image is told as such by its number of values; a few fractions are scaled labels.
    fractions = np.unique(data[broken])
    if 0 < len(fractions) <= MAX_LABELS:
        raise LabelsError(
            f"the labels hold the value {fractions[0]:g}; label values are whole numbers. Save the "
            "image as an integer type without scaling (scl_slope 1)"
        )
    return whole.astype(np.int64)


def _read_table(path: Path) -> list[LabelledPoint]:
    """Read a CSV table; its columns may be parted by semicolons, as spreadsheets of some languages do."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        header = text.split("\n", 1)[0]
        delimiter = ";" if header.count(";") > header.count(",") else ","
        rows = [
            row
            for row in csv.DictReader(text.splitlines(), delimiter=delimiter)
            if any((cell or "").strip() for cell in row.values() if not isinstance(cell, list))
        ]
        number = (lambda cell: float(cell.replace(",", "."))) if delimiter == ";" else float
        return [(int(row["value"]), np.array([number(row[f"{axis}_mm"]) for axis in "xyz"])) for row in rows]
    except (OSError, AttributeError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise LabelsError(f"{path} is no table of discs with value, x_mm, y_mm and z_mm ({error})") from error


def _read_markups(path: Path) -> list[LabelledPoint]:
    """Read a 3D Slicer point list; points that were never placed are passed over."""
    names = {disc_name(value): value for value in range(FIRST_VALUE, LAST_VALUE + 1)}
    try:
        (markups,) = json.loads(path.read_text(encoding="utf-8-sig"))["markups"]
        flip = {"LPS": (-1, -1, 1), "RAS": (1, 1, 1)}[markups["coordinateSystem"]]
        return [
            (names[point["label"]], np.array(point["position"], dtype=np.float64).reshape(3) * flip)
            for point in markups["controlPoints"]
            if point.get("positionStatus", "defined") == "defined" and point.get("position")
        ]
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabelsError(
            f"{path} is no 3D Slicer point list whose labels are names of discs ({error})"
        ) from error


def read_page_corrections(path: str | os.PathLike[str]) -> dict[str, GivenLabels]:
    """Read the ``corrections.json`` that the review page saves: scan's name → its discs.

    In the first form of the file an entry is a list of discs; in the second it also holds the image that
    the scan was.

    Raises
    ------
    LabelsError
        If it is no such file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        return {str(name): _page_entry(entry) for name, entry in content["scans"].items()}
    except LabelsError as error:
        raise LabelsError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelsError(f"{path} holds no corrections of the review page ({error})") from error


def _page_entry(entry: Any) -> GivenLabels:
    values = entry if isinstance(entry, Mapping) else {"discs": entry}
    points = [
        (int(disc["value"]), np.array([float(c) for c in disc["world_mm"]]).reshape(3))
        for disc in values["discs"]
    ]
    image = values.get("image")
    return GivenLabels(
        _checked(points) if points else (),
        made_on=ImageIdentity.from_dict(image) if image else None,
        complete=True,
        absent=frozenset(int(value) for value in values.get("absent", ())),
    )
