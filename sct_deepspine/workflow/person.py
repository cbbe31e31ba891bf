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
from sct_deepspine.errors import GeometryError, LabelsError
from sct_deepspine.io.bids import ScanFile, given_labels
from sct_deepspine.io.disc_labels import GivenLabels, read_disc_labels
from sct_deepspine.io.identity import ImageIdentity, file_sha256
from sct_deepspine.io.sidecar import read_sidecar
from sct_deepspine.workflow.names import ResultNames, bids_names
from sct_deepspine.workflow.record import edited_files

if TYPE_CHECKING:
    from sct_deepspine.workflow.result import ScanResult

__all__ = ["PersonLabels", "find_person_labels", "json_digest", "write_checked_copy"]


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
    """

    labels: GivenLabels
    place: Path | None = None
    is_own: bool = False

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
        If they can't be read, or were made on another version of the image.
    """
    if scan.name in corrections:
        labels = read_disc_labels(corrections[scan.name])
        _refuse_other_version(labels, scan)
        return PersonLabels(labels)
    earlier = read_sidecar(names.sidecar) or {}
    if names.labels.is_file():
        if edited_files(names, [names.labels]):
            labels = read_disc_labels(names.labels)
            return PersonLabels(_with_record(labels, earlier, "source"), names.labels, is_own=True)
        if earlier.get("Corrected") and "Labels" not in earlier:
            return PersonLabels(_recorded_labels(earlier, names), names.labels, is_own=True)
    place = given_labels(scan)
    return PersonLabels(read_disc_labels(place), place) if place else None


def _refuse_other_version(labels: GivenLabels, scan: ScanFile) -> None:
    """Refuse corrections whose image had another content than this one."""
    made_on = labels.made_on
    if made_on is not None and made_on.sha256 and made_on.sha256 != file_sha256(scan.path):
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


def write_checked_copy(result: ScanResult, folder: Path, stem: str, **record: Any) -> None:
    """Write corrected labels to where datasets of the Spinal Cord Toolbox keep them."""
    from sct_deepspine.workflow.result import save_result

    names = bids_names(folder, stem)
    save_result(replace(result, masks=None), names, overwrite=True, Corrected=True, **record)
