"""One scan of a cohort: labelled once, whatever happened before, and never at the cost of a person's work.

A scan is finished when its JSON sidecar bears the fingerprint of its image, the weights and the options;
the sidecar is written last. What is finished is skipped, what is half-written is done again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

import numpy as np

from sct_deepspine._version import __version__
from sct_deepspine.errors import (
    DeepSpineError,
    GeometryError,
    ImageError,
    LabelsError,
    NoDiscsError,
    OutputError,
    UncertainError,
)
from sct_deepspine.io.bids import ScanFile, given_labels, unused_labels
from sct_deepspine.io.disc_labels import GivenLabels, read_disc_labels
from sct_deepspine.io.identity import ImageIdentity, file_sha256
from sct_deepspine.workflow.names import ResultNames, bids_names
from sct_deepspine.workflow.overview import (
    Row,
    forget_entry,
    keep_entry,
    keep_row,
    read_entry,
    shows_failure,
)
from sct_deepspine.workflow.record import Writer, edited_files, read_sidecar, remove_results

if TYPE_CHECKING:
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.segmentation.model import SegmentationModel
    from sct_deepspine.workflow.request import ScanRequest
    from sct_deepspine.workflow.result import ScanResult

    Models = tuple[LabelingModel, SegmentationModel | None]

__all__ = ["BatchOptions", "failed_row", "label_scan", "label_together"]

DERIVATIVES = Path("derivatives") / "sct_deepspine"
MANUAL = Path("derivatives") / "labels"
"""Where datasets of the Spinal Cord Toolbox keep labels that a person has checked."""

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

    @property
    def derivatives(self) -> Path:
        """Folder that all files go to."""
        return Path(self.results) / DERIVATIVES


@dataclass(frozen=True, eq=False)
class _Given:
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
        return hashlib.sha256(json.dumps(points).encode()).hexdigest()


def label_scan(
    scan: ScanFile,
    options: BatchOptions,
    model: LabelingModel | None = None,
    mask_model: SegmentationModel | None = None,
) -> Row:
    """Label one scan and write its files, unless that has been done; never raises.

    Labels that were edited by hand since an earlier run wrote them are kept as they are, and labels that the
    dataset has in ``derivatives/labels`` are taken as they are. Masks and the picture follow them.

    Parameters
    ----------
    scan
        The scan.
    options
        What is asked for.
    model
        A loaded model; by default the one that the options name, read once a process.
    mask_model
        The same of the masks, used if they are asked for.
    """
    started = time.perf_counter()
    try:
        models = _models(options, model, mask_model)
        job = _job(_Inputs.read(scan, options), options, models)
        if job.finished is not None:
            return job.row(job.finished, SKIPPED, 0.0)
        result = _process(job, options, models)
        sidecar = _save(job, options, result)
        return _kept(job, options, sidecar, time.perf_counter() - started)
    except Exception as error:  # one scan never stops the rest, whatever it is
        return _failure(scan, options, error, started)


def _kept(job: _Job, options: BatchOptions, sidecar: Mapping[str, Any], seconds: float) -> Row:
    row = job.row(sidecar, DONE, seconds)
    keep_row(options.derivatives, row)
    return row


def _failure(scan: ScanFile, options: BatchOptions, error: Exception, started: float) -> Row:
    """Return the row of a scan that failed; what an earlier run found and is no longer true goes."""
    if isinstance(error, DeepSpineError):
        if _is_about_image(error, scan):
            with suppress(OSError):
                _remove_found(bids_names(options.derivatives / scan.folder, scan.stem).sidecar)
        keeps_picture = isinstance(error, LabelsError)
        return failed_row(
            scan.name, options, str(error), started, image=_image_of(scan), keeps_picture=keeps_picture
        )
    if isinstance(error, OSError):  # a name that is too long, a folder that is gone
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return failed_row(scan.name, options, reason, started)
    text = " ".join(f"unexpected {type(error).__name__}: {error}".split())
    return failed_row(scan.name, options, text, started)


def _models(
    options: BatchOptions, model: LabelingModel | None, mask_model: SegmentationModel | None
) -> Models:
    model = model or _model(options.weights, options.device)
    if options.masks:
        return model, mask_model or _mask_model(options.weights_masks, options.device)
    return model, None


@lru_cache(maxsize=1)
def _model(weights: str | None, device: str | None) -> LabelingModel:
    """Load the model of a process that labels one scan after the other."""
    from sct_deepspine.labeling.model import LabelingModel

    return LabelingModel.load(weights, device=device)


@lru_cache(maxsize=1)
def _mask_model(weights: str | None, device: str | None) -> SegmentationModel:
    """Load the model of the masks, likewise."""
    from sct_deepspine.segmentation.model import SegmentationModel

    return SegmentationModel.load(weights, device=device)


def _image_of(scan: ScanFile) -> dict[str, Any]:
    """Return what tells the image of a scan on the page, as far as it can be read."""
    image = {"path": (scan.folder / scan.path.name).as_posix()}
    with suppress(ImageError):
        image["sha256"] = file_sha256(scan.path)
    return image


def failed_row(
    name: str,
    options: BatchOptions,
    error: str,
    started: float,
    *,
    image: dict[str, Any] | None = None,
    keeps_picture: bool = False,
) -> Row:
    """Return the row of a scan that failed, and show the failure on the page.

    Parameters
    ----------
    name
        Of the scan.
    options
        What is asked for.
    error
        Why it failed.
    started
        When it was begun.
    image
        What tells its image on the page.
    keeps_picture
        Whether the picture of an earlier run of this image stays, so that the labels of a person that were
        refused can be set right on the page.
    """
    from sct_deepspine.reporting.html import failed_entry

    row = Row(name, FAILED, seconds=round(time.perf_counter() - started, 2), error=error)
    with suppress(DeepSpineError, OSError):
        entry = failed_entry(name, error, image=image)
        earlier = read_entry(options.derivatives, name) if keeps_picture else None
        if earlier is not None and earlier.key == entry.key:
            entry = replace(earlier, error=error)
        keep_entry(options.derivatives, entry)
        keep_row(options.derivatives, row)
    return row


def _given(scan: ScanFile, names: ResultNames, options: BatchOptions) -> _Given | None:
    """Return the labels that a person made: corrections, our own that were edited, or the dataset's."""
    if scan.name in options.corrections:
        labels = read_disc_labels(options.corrections[scan.name])
        _refuse_other_version(labels, scan)
        return _Given(labels)
    earlier = read_sidecar(names.sidecar) or {}
    if names.labels.is_file():
        if edited_files(names.sidecar, [names.labels]):
            labels = read_disc_labels(names.labels)
            return _Given(_made_on(labels, earlier), names.labels, is_own=True)
        if earlier.get("Corrected") and "Labels" not in earlier:
            return _Given(_recorded_labels(earlier, names), names.labels, is_own=True)
    place = given_labels(scan)
    return _Given(read_disc_labels(place), place) if place else None


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
    labels = _made_on(read_disc_labels(points), earlier)
    return replace(labels, accepted=earlier.get("Accepted") is True)


def _made_on(labels: GivenLabels, earlier: Mapping[str, Any]) -> GivenLabels:
    """Add which image an earlier run was about, so that its labels are not taken for another one's."""
    with suppress(KeyError, TypeError, ValueError, GeometryError):  # sidecars before 0.9.0 do not say
        made_on = ImageIdentity.from_dict(earlier["source"])
        labels = replace(labels, made_on=made_on)
    with suppress(TypeError, ValueError):
        known = {value for value, _ in labels.points}  # what was added since is there
        absent = frozenset(int(value) for value in earlier.get("Absent", ())) - known
        labels = replace(labels, absent=absent)
    return labels


def _is_about_image(error: DeepSpineError, scan: ScanFile) -> bool:
    """Tell whether an error says that an image, which is there, has no such labels as were found before."""
    about = NoDiscsError, UncertainError, GeometryError, ImageError
    return isinstance(error, about) and scan.path.is_file()


def _remove_found(sidecar: Path) -> None:
    """Remove what an earlier run found, which is no longer true; what a person set is."""
    if not (read_sidecar(sidecar) or {}).get("Corrected"):
        remove_results(sidecar)


@dataclass(frozen=True, eq=False)
class _Inputs:
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
    given: _Given | None
    sha256: str

    @classmethod
    def read(cls, scan: ScanFile, options: BatchOptions) -> _Inputs:
        names = bids_names(options.derivatives / scan.folder, scan.stem)
        return cls(scan, names, _given(scan, names, options), file_sha256(scan.path))

    @property
    def given_digest(self) -> str | None:
        return self.given.digest if self.given else None


def _fingerprints(
    inputs: _Inputs, options: BatchOptions, models: Models, beside: Sequence[str]
) -> dict[str, str]:
    """Return the SHA-256 of all that the labels depend on, and if they are asked for, the masks.

    ``beside`` are those of the session's other images.
    """
    model, mask_model = models
    on: list[Any] = [inputs.sha256, model.identity["sha256"], options.device, options.upper]
    on += [options.min_confidence, __version__, inputs.given_digest, *beside]
    prints = {"Fingerprint": _digest(on)}
    if mask_model is not None:
        prints["MasksFingerprint"] = _digest([*on, mask_model.identity["sha256"]])
    return prints


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _finished(names: ResultNames, prints: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the sidecar of a scan for which all this was done before, else None."""
    sidecar = read_sidecar(names.sidecar)
    same = sidecar is not None and all(sidecar.get(name) == value for name, value in prints.items())
    return sidecar if same and names.labels.is_file() else None


@dataclass(frozen=True, eq=False)
class _Job(_Inputs):
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


def _job(inputs: _Inputs, options: BatchOptions, models: Models, beside: Sequence[str] = ()) -> _Job:
    prints = _fingerprints(inputs, options, models, beside)
    finished = _finished(inputs.names, prints)
    if finished is not None and shows_failure(options.derivatives, inputs.scan.name):
        finished = None
    return _Job(**vars(inputs), prints=prints, finished=finished)


def _request(job: _Job, options: BatchOptions) -> ScanRequest:
    """Return what is asked for of one scan."""
    from sct_deepspine.workflow.request import ScanRequest

    return ScanRequest(
        labels=job.given.labels if job.given else None,
        upper=options.upper and job.given is None,
        masks=options.masks,
        maps=True,
        min_confidence=options.min_confidence,
    )


def _process(job: _Job, options: BatchOptions, models: Models) -> ScanResult:
    """Process one scan by itself."""
    from sct_deepspine.workflow.scan import process_scan

    model, mask_model = models
    return process_scan(str(job.scan.path), _request(job, options), model=model, mask_model=mask_model)


def _save(job: _Job, options: BatchOptions, result: ScanResult, **record: Any) -> dict[str, Any]:
    """Write the files of a scan and its entry on the page; return what the sidecar holds."""
    from sct_deepspine.workflow.result import Outputs, save_result

    scan, names, given = job.scan, job.names, job.given
    record = {**job.prints, **record}
    writers: dict[Path, Writer] = {}
    if given is not None:
        if names.sidecar.exists() and read_sidecar(names.sidecar) is None:
            raise OutputError(f"{names.sidecar} is not this command's; move it away")
        record["Corrected"] = True
        if given.labels.absent:
            record["Absent"] = sorted(given.labels.absent)
        if given.labels.accepted:
            record["Accepted"] = True
        if given.is_own:
            writers[names.labels] = partial(copyfile, names.labels)  # stays as the person left it
        elif given.place is not None:
            record["Labels"] = str(given.place)
        else:
            said = {name: record[name] for name in ("Absent", "Accepted") if name in record}
            _write_checked_copy(result, Path(options.results) / MANUAL / scan.folder, scan.stem, **said)
    unused = [
        f"{path.name} looks like disc labels of this scan and was not used" for path in unused_labels(scan)
    ]
    if unused:
        result = result.with_notes(unused)
    saved = save_result(
        result,
        names,
        Outputs(csv=options.csv, slicer=options.slicer),
        keep_edited=given is not None,
        writers=writers,
        **record,
    )
    sidecar = read_sidecar(saved.written[1]) or {}
    if result.labels.prediction is not None:
        keep_entry(options.derivatives, _entry(result, job, sidecar))
    else:
        forget_entry(options.derivatives, scan.name)
    return sidecar


def label_together(
    scans: Sequence[ScanFile],
    options: BatchOptions,
    model: LabelingModel | None = None,
    mask_model: SegmentationModel | None = None,
) -> list[Row]:
    """Label the scans of one session as one spine, unless that has been done; never raises.

    A session is done again when one of its images, or a person's labels of one, have changed. Scans that
    can't be read fail by themselves; if no spine is in any of them, each is labelled alone.
    """
    started = time.perf_counter()
    failed: dict[str, Row] = {}
    jobs: list[_Job] = []
    try:
        models = _models(options, model, mask_model)
        readable: list[_Inputs] = []
        for scan in scans:
            try:
                readable.append(_Inputs.read(scan, options))
            except Exception as error:
                failed[scan.name] = _failure(scan, options, error, started)
        for inputs in readable:
            beside = [str((other.sha256, other.given_digest)) for other in readable if other is not inputs]
            jobs.append(_job(inputs, options, models, sorted(beside)))
        if all(job.finished is not None for job in jobs):
            rows = {job.scan.name: job.row(job.finished or {}, SKIPPED, 0.0) for job in jobs}
            return [(failed | rows)[scan.name] for scan in scans]
        rows = _label_jobs(jobs, options, models, started)
        return [(failed | rows)[scan.name] for scan in scans]
    except Exception as error:
        return [failed.get(scan.name) or _failure(scan, options, error, started) for scan in scans]


def _label_jobs(
    jobs: Sequence[_Job], options: BatchOptions, models: Models, started: float
) -> dict[str, Row]:
    """Label the scans of a session together; return a row for each, by name."""
    from sct_deepspine.labeling.checks import read_scan
    from sct_deepspine.workflow.session import process_jobs, refuse_uncertain

    rows: dict[str, Row] = {}
    volumes: dict[str, Any] = {}
    for job in jobs:
        try:
            volumes[job.scan.name] = read_scan(str(job.scan.path))
        except Exception as error:
            rows[job.scan.name] = _failure(job.scan, options, error, started)
    together = [job for job in jobs if job.scan.name in volumes]
    if not together:
        return rows
    try:
        found = process_jobs(
            [volumes[job.scan.name] for job in together],
            [_request(job, options) for job in together],
            names=[job.scan.path.name for job in together],
            models=models,
        )
    except NoDiscsError:
        return rows | {job.scan.name: label_scan(job.scan, options, *models) for job in together}
    names = [job.scan.path.name for job in together]
    for n, (job, result) in enumerate(zip(together, found.scans, strict=True)):
        before = time.perf_counter()
        try:
            if not result.labels.discs:
                raise NoDiscsError("no disc was found in the image, and none of the session lies in it")
            refuse_uncertain(result, job.scan.path.name)
            result = result.with_source(str(job.scan.path))
            sidecar = _save(job, options, result, session=found.record(n, names))
            share = (before - started) / len(together) if n == 0 else time.perf_counter() - before
            rows[job.scan.name] = _kept(job, options, sidecar, share)
        except Exception as error:
            rows[job.scan.name] = _failure(job.scan, options, error, before)
    return rows


def _entry(result: ScanResult, job: _Job, sidecar: Mapping[str, Any]) -> Any:
    from sct_deepspine.reporting.html import make_entry

    scan = job.scan
    image = (sidecar.get("source") or {}) | {"path": (scan.folder / scan.path.name).as_posix()}
    told = job.given.labels if job.given else None
    return make_entry(result.labels, result.volume, scan.name, masks=result.masks, image=image, told=told)


def _write_checked_copy(result: ScanResult, folder: Path, stem: str, **record: Any) -> None:
    """Write corrected labels to where datasets of the Spinal Cord Toolbox keep them."""
    from sct_deepspine.workflow.result import save_result

    names = bids_names(folder, stem)
    save_result(replace(result, masks=None), names, overwrite=True, Corrected=True, **record)


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
