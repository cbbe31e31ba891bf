"""What is to be done with one scan of a cohort, and whether it was done before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sct_deepspine._version import __version__
from sct_deepspine.io.bids import ScanFile
from sct_deepspine.io.disc_labels import GivenLabels
from sct_deepspine.io.identity import file_sha256
from sct_deepspine.io.sidecar import read_sidecar
from sct_deepspine.workflow.names import ResultNames, bids_names
from sct_deepspine.workflow.overview import Row, shows_failure
from sct_deepspine.workflow.person import PersonLabels, find_person_labels, json_digest

if TYPE_CHECKING:
    from sct_deepspine.workflow.scan import Models

__all__ = ["CORRECTED", "DONE", "FAILED", "SKIPPED", "BatchOptions", "Inputs", "Job", "plan_job"]

DERIVATIVES = Path("derivatives") / "sct_deepspine"

WARP = "warp_template2anat.nii.gz"
"""What a registration leaves that came to its end."""

DONE, SKIPPED, CORRECTED, FAILED = "done", "skipped", "corrected", "failed"


@dataclass(frozen=True)
class BatchOptions:
    """What is asked for, the same for every scan.

    Parameters
    ----------
    results
        Folder of results; ``derivatives/sct_deepspine`` is made in it.
    weights, device
        As in ``label_discs``.
    upper
        Whether to write C1/C2 and the top of C1, too.
    corrections
        Scan's name → the discs that a person says it has; see
        :func:`sct_deepspine.io.disc_labels.read_page_corrections`.
    masks
        Whether to segment cord, canal, vertebrae and discs, too.
    weights_masks
        Weights file of the masks.
    csv, slicer
        Whether to write each scan's discs as a table, and as a point list of 3D Slicer, too.
    min_confidence
        Refuse levels less certain than this.
    together
        Whether the scans of a BIDS session are labelled as one spine.
    register
        Contrast of the template to register each scan to (``t1``, ``t2`` or ``t2s``) with our own cord, which
        needs ``masks``; None to register none.
    template
        Folder of the template; SCT's PAM50 by default.
    """

    results: Path
    weights: str | None = None
    device: str | None = None
    upper: bool = False
    corrections: Mapping[str, GivenLabels | Mapping[int, Any]] = field(default_factory=dict)
    masks: bool = False
    weights_masks: str | None = None
    csv: bool = False
    slicer: bool = False
    min_confidence: float = 0.0
    together: bool = False
    register: str | None = None
    template: str | None = None

    @property
    def derivatives(self) -> Path:
        """Folder that all files go to."""
        return Path(self.results) / DERIVATIVES


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is known of a scan before it is labelled.

    Parameters
    ----------
    scan
        The scan.
    names
        Where its files go.
    given
        Labels that a person made of it, if there are any.
    sha256
        Of the image file.
    """

    scan: ScanFile
    names: ResultNames
    given: PersonLabels | None
    sha256: str

    @classmethod
    def read(cls, scan: ScanFile, options: BatchOptions) -> Inputs:
        """Read what is known of a scan.

        Raises
        ------
        LabelsError
            If labels of a person can't be used.
        OSError
            If the image can't be read.
        """
        names = bids_names(options.derivatives / scan.folder, scan.stem)
        return cls(scan, names, find_person_labels(scan, names, options.corrections), file_sha256(scan.path))

    @property
    def given_digest(self) -> str | None:
        """SHA-256 of a person's labels, and of what is said of others; None if there are none."""
        if self.given is None or not self.given.notes:
            return self.given.digest if self.given else None
        return json_digest([self.given.digest, *self.given.notes])


def _fingerprints(
    inputs: Inputs, options: BatchOptions, models: Models, beside: Sequence[str]
) -> dict[str, str]:
    """Return the SHA-256 of all that the labels depend on, and if they are asked for, the masks.

    ``beside`` are those of the session's other images.
    """
    model, mask_model = models
    on: list[Any] = [inputs.sha256, model.identity["sha256"], options.device, options.upper]
    on += [options.min_confidence, __version__, inputs.given_digest, *beside]
    prints = {"Fingerprint": json_digest(on)}
    if mask_model is not None:
        prints["MasksFingerprint"] = json_digest([*on, mask_model.identity["sha256"]])
    return prints


def _finished(names: ResultNames, prints: Mapping[str, str], options: BatchOptions) -> dict[str, Any] | None:
    """Return the sidecar of a scan for which all this was done before, else None."""
    sidecar = read_sidecar(names.sidecar)
    same = sidecar is not None and all(sidecar.get(name) == value for name, value in prints.items())
    needed = [names.labels]
    needed += [names.csv] if options.csv else []
    needed += [names.markups] if options.slicer else []
    # A person may have taken a mask away; without a spine in view there is none.
    needed += names.masks.values() if options.masks and sidecar and "masks" in sidecar else ()
    return sidecar if same and all(path.is_file() for path in needed) else None


@dataclass(frozen=True, eq=False)
class Job(Inputs):
    """What is to be done with one scan.

    Parameters
    ----------
    prints
        Fingerprints of all that its files depend on.
    finished
        The sidecar of an earlier run that did just this; None if it is to be done.
    """

    prints: Mapping[str, str]
    finished: Mapping[str, Any] | None

    def row(self, sidecar: Mapping[str, Any], status: str, seconds: float) -> Row:
        """Return the row of a scan that has labels."""
        return _row(self.scan.name, CORRECTED if self.given else status, sidecar, seconds)


def plan_job(inputs: Inputs, options: BatchOptions, models: Models, beside: Sequence[str] = ()) -> Job:
    """Return what is to be done with a scan.

    Parameters
    ----------
    inputs
        What is known of it.
    options
        What is asked for.
    models
        The networks.
    beside
        Fingerprints of the session's other images.
    """
    prints = _fingerprints(inputs, options, models, beside)
    finished = _finished(inputs.names, prints, options)
    is_registered = (inputs.names.registration / WARP).is_file()
    if shows_failure(options.derivatives, inputs.scan.name) or (options.register and not is_registered):
        finished = None
    return Job(**vars(inputs), prints=prints, finished=finished)


def _row(name: str, status: str, sidecar: Mapping[str, Any], seconds: float) -> Row:
    discs = sidecar["discs"]
    return Row(
        scan=name,
        status=status,
        discs=len(discs),
        first=discs[0]["name"],
        last=discs[-1]["name"],
        level_confidence=sidecar["level_confidence"],
        least_confidence=min(disc["confidence"] for disc in discs),
        warnings="; ".join(sidecar["warnings"]),
        seconds=round(seconds, 2),
    )
