"""Disc labels from a file: a label image, a CSV table, 3D Slicer markups, or corrections of the review page.

One rule holds for all of them. 1 (top of C1) to 25 (L5/S1) are points that can be written to a label image;
26 (S1/S2) is a landmark: it tells the level and is never written. 49, 50 and 60 are no levels and are
passed over. Any other value is an error.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.anatomy import FIRST_VALUE, LAST_VALUE, PRESACRAL, disc_name
from sct_deepspine.errors import GeometryError, LabelsError
from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.io.bids import image_stem
from sct_deepspine.io.identity import ImageIdentity, file_sha256, recorded_identity
from sct_deepspine.io.images import ImageLike, read_volume

__all__ = [
    "GivenLabels",
    "LabelledPoint",
    "NotInFileError",
    "ReviewedScan",
    "read_disc_labels",
    "read_page_corrections",
    "scan_of_image",
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
    accepted
        Whether these are the automatic labels, which the person accepted without an edit.
    presacral
        Vertebrae above the sacrum, where the labels were counted in such a spine.
    unplaced
        Names of labels that the file lists without a position.
    other_image
        Whether they were made on an image file with another content than the one that they are used for.
    """

    points: tuple[LabelledPoint, ...]
    grid: Grid | None = None
    made_on: ImageIdentity | None = None
    complete: bool = False
    absent: frozenset[int] = frozenset()
    accepted: bool = False
    presacral: int = PRESACRAL
    unplaced: tuple[str, ...] = ()
    other_image: bool = False


class NotInFileError(LabelsError):
    """The review page's file holds no labels of an image."""


@dataclass(frozen=True, eq=False)
class ReviewedScan:
    """What the review page saved of one scan.

    Parameters
    ----------
    key
        What the page knows it by.
    name
        What it is called there.
    labels
        Its discs, if they were corrected or accepted; None if it was only rated.
    sha256, path
        The image file's fingerprint, and its path; empty where the file does not record them.
    rating
        ``pass``, ``fail``, ``doubt``, empty if a rating was taken back, None if there is no rating.
    accepted
        Whether a person accepted the labels as they are; None if that is not known.
    """

    key: str
    name: str
    labels: GivenLabels | None
    sha256: str = ""
    path: str = ""
    rating: str | None = None
    accepted: bool | None = None


def read_disc_labels(
    source: ImageLike | GivenLabels | Mapping[int, Any], *, image: Any = None
) -> GivenLabels:
    """Read labels that a person made.

    Parameters
    ----------
    source
        Label image (path or any image that :func:`sct_deepspine.label_discs` takes), path of a CSV table, of
        3D Slicer markups or of the review page's ``corrections.json``, ``{value: (x, y, z)}`` in world mm, or
        labels that were read before.
    image
        The scan they are about. If it is a path, it tells which scan of ``corrections.json`` is meant.

    Raises
    ------
    ImageError
        If a label image can't be read.
    LabelsError
        If a table or a point list can't be read, the labels are none, too many, or no levels, or
        ``corrections.json`` holds no scan, or several, that may be this image.
    """
    if isinstance(source, GivenLabels):
        return source
    if isinstance(source, Mapping):
        return GivenLabels(_checked(_points_of(source)))
    if not isinstance(source, (str, os.PathLike)):
        return _read_image(source)
    path = Path(source)
    if path.suffix.lower() == ".json" and _is_of_page(path):
        return _labels_of_image(path, image)
    readers = {".csv": _read_table, ".json": _read_markups}
    labels = readers.get(path.suffix.lower(), _read_image)(path)
    return replace(labels, made_on=recorded_identity(path))


def _points_of(source: Mapping[int, Any]) -> list[LabelledPoint]:
    try:
        points = [(_whole(float(n)), np.asarray(point, dtype=np.float64)) for n, point in source.items()]
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
    # A grey image is recognised by its number of values; a few fractions are scaled labels.
    fractions = np.unique(data[broken])
    if 0 < len(fractions) <= MAX_LABELS:
        raise LabelsError(
            f"the labels hold the value {fractions[0]:g}; label values are whole numbers. Save the "
            "image as an integer type without scaling (scl_slope 1)"
        )
    return whole.astype(np.int64)


def _read_table(path: Path) -> GivenLabels:
    """Read a CSV table; its columns may be parted by semicolons or tabs, as some spreadsheets do."""
    try:
        lines = [line for line in _table_text(path).splitlines() if line.strip(" ;,\t")]
        if lines and lines[0].lower().startswith("sep="):
            del lines[0]
        delimiter = max(",;\t", key=lines[0].count) if lines else ","
        number = (lambda cell: float(cell.replace(",", "."))) if delimiter != "," else float
        columns = [column.strip().strip('"') for column in lines[0].split(delimiter)] if lines else []
        points = [
            (_whole(number(row["value"])), np.array([number(row[f"{axis}_mm"]) for axis in "xyz"]))
            for row in csv.DictReader(lines[1:], columns, delimiter=delimiter, skipinitialspace=True)
        ]
    except KeyError as error:
        raise LabelsError(
            f"{path} is no table of discs: it has no column {error}; value, x_mm, y_mm and z_mm are needed"
        ) from error
    except (OSError, AttributeError, TypeError, ValueError, csv.Error) as error:
        raise LabelsError(f"{path} is no table of discs with value, x_mm, y_mm and z_mm ({error})") from error
    return GivenLabels(_checked(points))


def _table_text(path: Path) -> str:
    """Return the text of a table as spreadsheets save it: UTF-8, UTF-16 with a mark, or Latin-1."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError(f"the value {number:g} is no whole number")
    return int(number)


def _read_markups(path: Path) -> GivenLabels:
    """Read a 3D Slicer point list; points that were never placed are named and passed over."""
    names = {
        disc_name(value, presacral): value
        for presacral in (PRESACRAL - 1, PRESACRAL + 1, PRESACRAL)  # of one name, the usual value counts
        for value in range(FIRST_VALUE, LAST_VALUE + presacral - PRESACRAL + 1)
    }
    try:
        (markups,) = json.loads(path.read_text(encoding="utf-8-sig"))["markups"]
        flip = {"LPS": (-1, -1, 1), "RAS": (1, 1, 1)}[markups["coordinateSystem"]]
        points, unplaced = [], []
        for point in markups["controlPoints"]:
            if point.get("positionStatus", "defined") == "defined" and point.get("position"):
                place = np.array(point["position"], dtype=np.float64).reshape(3) * flip
                points.append((names[point["label"]], place))
            else:
                unplaced.append(str(point.get("label", "")))
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabelsError(
            f"{path} is no 3D Slicer point list whose labels are names of discs ({error})"
        ) from error
    return GivenLabels(_checked(points), unplaced=tuple(unplaced))


RATINGS = "pass", "fail", "doubt"


def _is_of_page(path: Path) -> bool:
    """Distinguish corrections of the review page from a point list of 3D Slicer."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "scans" in content


def read_page_corrections(path: str | os.PathLike[str]) -> tuple[ReviewedScan, ...]:
    """Read the ``corrections.json`` that the review page saves.

    In the first form of the file, scans are named and hold a list of discs. In the second they have a key,
    and hold the image that the scan was, its rating and what is not there, too.

    Raises
    ------
    LabelsError
        If it is no such file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        if content.get("format", 2) not in (1, 2):
            raise LabelsError(f"its format {content['format']} is of a later version than this one reads")
        return tuple(_reviewed(str(key), entry) for key, entry in content["scans"].items())
    except LabelsError as error:
        raise LabelsError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelsError(f"{path} holds no corrections of the review page ({error})") from error


def _reviewed(key: str, entry: Any) -> ReviewedScan:
    """Read one scan of the file, of either form."""
    values = entry if isinstance(entry, Mapping) else {"discs": entry}
    name, image = str(values.get("name", key)), values.get("image") or {}
    rating, accepted = values.get("rating"), values.get("accepted")
    if rating and rating not in RATINGS:
        raise LabelsError(f"{name}: expected the rating {', '.join(RATINGS)}, got {rating!r}")
    try:
        labels = _page_labels(values, image) if values.get("discs") is not None else None
    except LabelsError as error:
        raise LabelsError(f"{name}: {error}") from error
    return ReviewedScan(
        key,
        name,
        labels,
        str(image.get("sha256") or ""),
        str(image.get("path") or ""),
        rating,
        None if accepted is None else bool(accepted),
    )


def _page_labels(values: Mapping[str, Any], image: Mapping[str, Any]) -> GivenLabels:
    points = [
        (int(disc["value"]), np.array([float(c) for c in disc["world_mm"]]).reshape(3))
        for disc in values["discs"]
    ]
    absent = frozenset(int(value) for value in values.get("absent") or ())
    both = sorted(absent & {value for value, _ in points})
    if both:
        raise LabelsError(f"{both[0]} ({disc_name(both[0])}) is labelled and marked as not there")
    made_on = None
    if image.get("sha256"):
        try:
            made_on = ImageIdentity.from_dict(image)
        except (GeometryError, KeyError) as error:
            raise LabelsError(f"its image has no grid ({error})") from error
    is_accepted = values.get("accepted") is True and not any(disc.get("edit") for disc in values["discs"])
    return GivenLabels(
        _checked(points) if points else (),
        made_on=made_on,
        complete=True,
        absent=absent,
        accepted=is_accepted,
        presacral=_known_number(values.get("presacral", PRESACRAL)),
    )


def _known_number(value: Any) -> int:
    if value not in (PRESACRAL - 1, PRESACRAL, PRESACRAL + 1):
        raise LabelsError(f"expected 23, 24 or 25 presacral vertebrae, got {value!r}")
    return int(value)


def scan_of_image(scans: Iterable[ReviewedScan], *, sha256: str, path: str) -> ReviewedScan | None:
    """Return what the review page saved of an image, found by its fingerprint, then by its name.

    Parameters
    ----------
    scans
        From :func:`read_page_corrections`.
    sha256
        The image file's fingerprint.
    path
        Its path; any name of a scan that it ends with fits.

    Returns
    -------
    ReviewedScan or None
        None if no scan fits.

    Raises
    ------
    LabelsError
        If several scans fit, or the one of this name was another version of the image.
    """
    scans = list(scans)
    same = [scan for scan in scans if scan.sha256 == sha256]
    named = [scan for scan in same if _is_named(scan, path)]
    fitting = same if len(same) == 1 else named or same
    if not fitting:
        fitting = [scan for scan in scans if _is_named(scan, path)]
        changed = [scan for scan in fitting if scan.sha256]
        if changed and len(changed) == len(fitting):
            raise LabelsError(
                f"the corrections of {changed[0].name} were made on another version of the image; "
                "correct this one, or restore the other"
            )
        fitting = [scan for scan in fitting if scan not in changed]
    if len(fitting) > 1:
        names = " and ".join(scan.path or scan.name for scan in fitting[:2])
        raise LabelsError(f"several scans of the corrections may be this image: {names}")
    return fitting[0] if fitting else None


def _is_named(scan: ReviewedScan, path: str) -> bool:
    """Return whether a scan of the page bears the name of an image, or lay at its path."""
    words = scan.name.replace(" / ", "/").split("/")
    parts = [*Path(path).parent.parts, image_stem(path)]
    if scan.path and Path(scan.path).is_absolute():
        return Path(scan.path) == Path(path)
    return words == parts[-len(words) :] or (scan.name.count(" / ") > 0 and words[-1] == parts[-1])


def _labels_of_image(path: Path, image: Any) -> GivenLabels:
    """Return the discs that the review page saved of an image."""
    scans = [scan for scan in read_page_corrections(path) if scan.labels is not None]
    if not isinstance(image, (str, os.PathLike)):
        if len(scans) == 1 and scans[0].labels is not None:
            return scans[0].labels  # where its image lay is checked
        raise LabelsError(f"{path} holds {len(scans)} corrected scans: give the image as a path to say which")
    place = Path(image).resolve()
    try:
        found = scan_of_image(scans, sha256=file_sha256(place), path=str(place))
    except LabelsError as error:
        raise LabelsError(f"{path}: {error}") from error
    if found is None or found.labels is None:
        raise NotInFileError(f"{path} holds no corrections of {Path(image).name}")
    return found.labels
