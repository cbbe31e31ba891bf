"""Labels that a person made of a scan of a cohort: where they stand, and for which image they were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sct_deepspine.anatomy import PRESACRAL
from sct_deepspine.errors import DeepSpineError, GeometryError, LabelsError, OutputError
from sct_deepspine.io.bids import ScanFile, given_labels
from sct_deepspine.io.disc_labels import GivenLabels, read_disc_labels
from sct_deepspine.io.identity import ImageIdentity
from sct_deepspine.io.sidecar import read_sidecar
from sct_deepspine.workflow.given import used_on
from sct_deepspine.workflow.names import ResultNames, bids_names
from sct_deepspine.workflow.record import edited_files

if TYPE_CHECKING:
    from sct_deepspine.workflow.result import ScanResult

__all__ = [
    "FOLDER",
    "PersonLabels",
    "find_person_labels",
    "folder_digest",
    "has_checked_copy",
    "json_digest",
    "record_of",
    "write_checked_copy",
]

FOLDER, PAGE, EDITED = "ImageFolder", "PageCorrections", "EditedByHand"
"""What the sidecar calls the fingerprints of the image's folder and of the page's corrections, and whether
the label image was edited since."""

SAME_POINT_MM = 0.01
"""Points of two tables that are no farther apart are the same."""


def json_digest(content: Any) -> str:
    """Return the SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class PersonLabels:
    """Labels that a person made of a scan, and where they stand.

    Parameters
    ----------
    labels
        The discs.
    place
        The file; None for corrections of the page.
    is_own
        Whether the file is the one in the folder of results, which stays as it is.
    is_edited
        Whether that file was edited by hand, since the last run or before.
    notes
        What a person should know of labels that were not used instead of these.
    """

    labels: GivenLabels
    place: Path | None = None
    is_own: bool = False
    is_edited: bool = False
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of values and places, as exactly as the sidecar holds them."""
        points: list[Any] = sorted(
            (value, np.round(point, 4).tolist()) for value, point in self.labels.points
        )
        if self.labels.absent or self.labels.accepted:
            points.append([sorted(self.labels.absent), self.labels.accepted])
        return json_digest(points)


def find_person_labels(
    scan: ScanFile, names: ResultNames, corrections: Mapping[str, GivenLabels | Mapping[int, Any]]
) -> PersonLabels | None:
    """Return the labels that a person made: corrections, our own that were edited, or the dataset's.

    Parameters
    ----------
    scan
        The scan.
    names
        Where its results are.
    corrections
        Scan's name → the discs that a person says it has.

    Raises
    ------
    LabelsError
        If they can't be read, were made on another version of the image, or nobody can tell which of two
        labels are the later ones.
    """
    chosen = _own_labels(scan, names)
    if scan.name in corrections:
        labels = read_disc_labels(corrections[scan.name])
        _refuse_other_version(labels, scan)
        chosen = _later_labels(PersonLabels(labels), chosen, names)
    place = given_labels(scan)
    if place is None:
        return chosen
    if chosen is None:
        return PersonLabels(_read_file(place), place)
    is_our_copy = not edited_files(bids_names(place.parent, scan.stem), [place])
    if is_our_copy or _are_the_same(chosen.labels, _read_file(place)):
        return chosen
    text = f"{place} was not used: corrections and labels corrected in the results come first, and differ"
    return replace(chosen, notes=(text,))


def _are_the_same(one: GivenLabels, other: GivenLabels) -> bool:
    """Return whether two labels of an image are the same, as exactly as a label image holds them."""
    here, there = dict(one.points), dict(other.points)
    if here.keys() != there.keys():
        return False
    grid = one.grid or other.grid
    places = np.array([[*here.values()], [there[value] for value in here]])
    if grid is None:
        return bool(np.linalg.norm(places[0] - places[1], axis=1).max(initial=0) <= SAME_POINT_MM)
    voxels = np.round(grid.voxel_from_world(places.reshape(-1, 3))).reshape(places.shape)
    return bool((voxels[0] == voxels[1]).all())


def _read_file(path: Path) -> GivenLabels:
    """Read a file of labels; what is wrong with it is said with its name."""
    try:
        return read_disc_labels(path)
    except DeepSpineError as error:
        text = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise LabelsError(f"{text}; repair it, or move it away") from error


def _own_labels(scan: ScanFile, names: ResultNames) -> PersonLabels | None:
    """Return what a person set in the folder of results: edits of our file, or corrections taken over."""
    if not names.labels.is_file():
        return None
    earlier = read_sidecar(names.sidecar)
    if earlier is None:
        sidecar = names.sidecar
        record = f"{sidecar} is not this command's" if sidecar.exists() else f"there is no {sidecar}"
        raise LabelsError(
            f"{record}, so nobody can tell whether a person made {names.labels.name}; if it was checked, "
            "move it to derivatives/labels of the dataset; to label the scan again, delete its files there"
        )
    is_edited = bool(edited_files(names, [names.labels]))
    if is_edited:
        labels = _with_landmarks(_with_record(_read_file(names.labels), earlier, "source"), earlier)
    elif earlier.get("Corrected") and "Labels" not in earlier:
        labels = _recorded_labels(earlier, names)
    else:
        return None
    labels = used_on(labels, scan.path)
    if labels.other_image and earlier.get(FOLDER) not in (None, folder_digest(scan)):
        raise LabelsError(
            f"{names.labels} holds labels that a person made of another image of this name, in another "
            "folder; write the results of this folder elsewhere (-o)"
        )
    is_edited = is_edited or earlier.get(EDITED) is True
    return PersonLabels(labels, names.labels, is_own=True, is_edited=is_edited)


def folder_digest(scan: ScanFile) -> str:
    """Return what tells the folder of an image from others, without naming it."""
    return json_digest(scan.path.parent.absolute().as_posix())


def record_of(given: PersonLabels, earlier: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a sidecar holds of where a person's labels come from.

    That is the fingerprint of the page's corrections that were applied last, and whether edits of the label
    image followed.
    """
    if not given.is_own:
        return {PAGE: given.digest} if given.place is None else {}
    before = earlier or {}
    record = {PAGE: before[PAGE]} if PAGE in before else {}
    return record | ({EDITED: True} if given.is_edited else {})


def _later_labels(page: PersonLabels, own: PersonLabels | None, names: ResultNames) -> PersonLabels:
    """Return corrections of the page, unless the file that they led to was edited since.

    Raises
    ------
    LabelsError
        If the file was edited, and not after these corrections: one of the two would be lost.
    """
    if own is None or not own.is_edited:
        return page
    if (read_sidecar(names.sidecar) or {}).get(PAGE) == page.digest:
        return own
    raise LabelsError(
        f"{names.labels} was edited by hand, and the corrections hold other labels of this scan; delete the "
        "files of the scan there to use the corrections, or take it out of them"
    )


def _refuse_other_version(labels: GivenLabels, scan: ScanFile) -> None:
    """Refuse corrections whose image had another content than this one."""
    if used_on(labels, scan.path).other_image:
        raise LabelsError(
            f"the corrections of {scan.name} were made on another version of the image; correct this one, "
            "or restore the other"
        )


def _recorded_labels(earlier: Mapping[str, Any], names: ResultNames) -> GivenLabels:
    """Return the discs of a corrected scan as its sidecar holds them: exactly as they were set."""
    try:
        points = {int(disc["value"]): disc["world_mm"] for disc in [*earlier["discs"], *earlier["landmarks"]]}
    except (KeyError, TypeError, ValueError) as error:
        raise LabelsError(f"{names.sidecar} no longer holds the discs that were set ({error})") from error
    made_on = "MadeOn" if "MadeOn" in earlier else "source"
    labels = _with_record(read_disc_labels(points), earlier, made_on)
    return replace(labels, accepted=earlier.get("Accepted") is True)


def _with_record(labels: GivenLabels, earlier: Mapping[str, Any], image: str) -> GivenLabels:
    """Add what an earlier run recorded of labels: on which image they were made, what is absent.

    Labels edited since were made on the image of that run (``source``); labels that it took over, on the one
    that they were made on before (``MadeOn``).
    """
    with suppress(KeyError, TypeError, ValueError, GeometryError):  # sidecars before 0.9.0 do not say
        made_on = ImageIdentity.from_dict(earlier[image])
        labels = replace(labels, made_on=made_on)
    with suppress(TypeError, ValueError):
        known = {value for value, _ in labels.points}  # what was added since is there
        absent = frozenset(int(value) for value in earlier.get("Absent", ())) - known
        labels = replace(labels, absent=absent)
    number = (earlier.get("presacral_vertebrae") or {}).get("number", PRESACRAL)
    if labels.points and max(value for value, _ in labels.points) == number + 1:
        labels = replace(labels, presacral=number)  # still the disc above the sacrum
    return labels


def _with_landmarks(labels: GivenLabels, earlier: Mapping[str, Any]) -> GivenLabels:
    """Add the S1/S2 that a person set before, which a label image can't hold."""
    known = {value for value, _ in labels.points}
    marks = earlier.get("landmarks", ()) if earlier.get("Corrected") else ()
    with suppress(KeyError, TypeError, ValueError):  # edited by hand
        kept = [(int(m["value"]), np.asarray(m["world_mm"], float)) for m in marks]
        kept = [
            (value, point) for value, point in kept if value > labels.presacral + 1 and value not in known
        ]
        return replace(labels, points=(*labels.points, *kept))
    return labels


def has_checked_copy(folder: Path, stem: str) -> bool:
    """Return whether :func:`write_checked_copy` wrote a copy that nobody has edited since."""
    names = bids_names(folder, stem)
    return names.labels.is_file() and not edited_files(names, [names.labels])


def write_checked_copy(result: ScanResult, folder: Path, stem: str, **record: Any) -> None:
    """Write corrected labels to where datasets of the Spinal Cord Toolbox keep them.

    Raises
    ------
    OutputError
        If other labels that a person made are there.
    """
    from sct_deepspine.workflow.result import save_result

    names = bids_names(folder, stem)
    if edited_files(names, [names.labels]):
        points = tuple((disc.value, disc.point_world) for disc in result.labels.discs)
        if not _are_the_same(_read_file(names.labels), GivenLabels(points)):
            raise OutputError(
                f"{names.labels} holds labels that a person made, other than the corrections; move it away, "
                "or take the scan out of the corrections"
            )
    save_result(replace(result, masks=None), names, overwrite=True, Corrected=True, **record)
