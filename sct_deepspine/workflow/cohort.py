"""One scan of a cohort: labelled once, whatever happened before, and never at the cost of a person's work.

A scan is finished when its JSON sidecar bears the fingerprint of its image, the weights and the options;
the sidecar is written last. What is finished is skipped, what is half-written is done again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from sct_deepspine.errors import (
    DeepSpineError,
    GeometryError,
    ImageError,
    LabelsError,
    NoDiscsError,
    OutputError,
    SctError,
    UncertainError,
)
from sct_deepspine.io.bids import ScanFile, unused_labels
from sct_deepspine.io.disc_labels import read_disc_labels
from sct_deepspine.io.identity import file_sha256, grid_difference
from sct_deepspine.io.sidecar import read_sidecar
from sct_deepspine.workflow.dataset import describe_labels
from sct_deepspine.workflow.job import (
    DONE,
    FAILED,
    SKIPPED,
    BatchOptions,
    Inputs,
    Job,
    plan_job,
)
from sct_deepspine.workflow.names import ResultNames, bids_names
from sct_deepspine.workflow.overview import (
    Row,
    forget_entry,
    keep_entry,
    keep_row,
    name_files,
    read_entry,
)
from sct_deepspine.workflow.person import (
    FOLDER,
    folder_digest,
    has_checked_copy,
    record_of,
    write_checked_copy,
)
from sct_deepspine.workflow.record import Writer, remove_results

if TYPE_CHECKING:
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.segmentation.model import SegmentationModel
    from sct_deepspine.workflow.person import PersonLabels
    from sct_deepspine.workflow.request import ScanRequest
    from sct_deepspine.workflow.result import ScanResult
    from sct_deepspine.workflow.scan import Models

__all__ = ["failed_row", "label_scan", "label_together"]

MANUAL = Path("derivatives") / "labels"
"""Where datasets of the Spinal Cord Toolbox keep labels that a person has checked."""


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
        job = plan_job(Inputs.read(scan, options), options, models)
        if job.finished is not None:
            return job.row(job.finished, SKIPPED, 0.0)
        result = _process(job, options, models)
        sidecar, removed = _save(job, options, result)
        return _kept(job, options, sidecar, time.perf_counter() - started, removed)
    except Exception as error:  # one scan never stops the rest, whatever it is
        return _failure(scan, options, error, started)


def _kept(
    job: Job, options: BatchOptions, sidecar: Mapping[str, Any], seconds: float, removed: Sequence[Path]
) -> Row:
    row = replace(job.row(sidecar, DONE, seconds), removed=name_files(removed))
    keep_row(options.derivatives, row)
    return row


def _failure(scan: ScanFile, options: BatchOptions, error: Exception, started: float) -> Row:
    """Return the row of a scan that failed; what an earlier run found and is no longer true goes."""
    if isinstance(error, DeepSpineError):
        names, removed = bids_names(options.derivatives / scan.folder, scan.stem), []
        if _makes_false(error, scan, names):
            with suppress(OSError):
                removed = _remove_found(names)
        keeps_picture = isinstance(error, LabelsError)
        return failed_row(
            scan.name,
            options,
            str(error),
            started,
            image=_image_of(scan),
            keeps_picture=keeps_picture,
            removed=removed,
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
    removed: Sequence[Path] = (),
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
    removed
        Files of an earlier run that are no longer true.
    """
    from sct_deepspine.reporting.html import failed_entry

    seconds = round(time.perf_counter() - started, 2)
    row = Row(name, FAILED, seconds=seconds, error=error, removed=name_files(removed))
    with suppress(DeepSpineError, OSError):
        entry = failed_entry(name, error, image=image)
        earlier = read_entry(options.derivatives, name) if keeps_picture else None
        if earlier is not None and earlier.key == entry.key:
            entry = replace(earlier, error=error)
        keep_entry(options.derivatives, entry)
        keep_row(options.derivatives, row)
    return row


def _makes_false(error: DeepSpineError, scan: ScanFile, names: ResultNames) -> bool:
    """Return whether an error says that an image, which is there, has no such labels as were found before."""
    if not scan.path.is_file():
        return False
    if isinstance(error, UncertainError):  # more is asked for: what was found is as true as before
        source = (read_sidecar(names.sidecar) or {}).get("source") or {}
        return bool(source.get("sha256") != file_sha256(scan.path))
    if isinstance(error, ImageError):  # an image whose content can't be reached may be as it was
        try:
            file_sha256(scan.path)
        except ImageError:
            return False
    return isinstance(error, (NoDiscsError, GeometryError, ImageError))


def _remove_found(names: ResultNames) -> list[Path]:
    """Remove what an earlier run found, which is no longer true; what a person set is."""
    if (read_sidecar(names.sidecar) or {}).get("Corrected"):
        return []
    from sct_deepspine.sct.registration import remove_registration

    return [*remove_registration(names.registration), *remove_results(names)]


def _request(job: Job, options: BatchOptions) -> ScanRequest:
    """Return what is asked for of one scan."""
    from sct_deepspine.workflow.request import ScanRequest

    return ScanRequest(
        labels=job.given.labels if job.given else None,
        upper=options.upper and job.given is None,
        masks=options.masks,
        maps=True,
        min_confidence=options.min_confidence,
    )


def _process(job: Job, options: BatchOptions, models: Models) -> ScanResult:
    """Process one scan by itself."""
    from sct_deepspine.workflow.scan import process_scan

    model, mask_model = models
    return process_scan(str(job.scan.path), _request(job, options), model=model, mask_model=mask_model)


def _save(
    job: Job, options: BatchOptions, result: ScanResult, **record: Any
) -> tuple[dict[str, Any], list[Path]]:
    """Write the files of a scan and its entry on the page; return what the sidecar holds, and what went."""
    from sct_deepspine.sct.registration import remove_registration
    from sct_deepspine.workflow.result import Outputs, save_result

    scan, names, given = job.scan, job.names, job.given
    record = {**job.prints, FOLDER: folder_digest(scan), **record}
    earlier = read_sidecar(names.sidecar)
    writers: dict[Path, Writer] = {}
    if given is not None:
        if names.sidecar.exists() and earlier is None:
            raise OutputError(f"{names.sidecar} is not this command's; move it away")
        record |= {"Corrected": True, **record_of(given, earlier)}
        _refuse_lost(given, result, names)
        if given.labels.absent:
            record["Absent"] = sorted(given.labels.absent)
        if given.labels.accepted:
            record["Accepted"] = True
        if given.is_own:
            if given.labels.made_on is not None and given.labels.made_on.sha256 != job.sha256:
                record["MadeOn"] = given.labels.made_on.as_dict()
            grid = read_disc_labels(names.labels).grid
            if grid is not None and not grid_difference(grid, result.volume.grid):
                writers[names.labels] = partial(copyfile, names.labels)  # stays as the person left it
        if given.place is not None and not given.is_own:
            record["Labels"] = str(given.place)
        manual = Path(options.results) / MANUAL
        if given.place is None or (given.is_own and has_checked_copy(manual / scan.folder, scan.stem)):
            marks = {name: record[name] for name in ("Absent", "Accepted") if name in record}
            write_checked_copy(result, manual / scan.folder, scan.stem, **marks)
            describe_labels(manual)
    unused = [
        f"{path.name} looks like disc labels of this scan and was not used" for path in unused_labels(scan)
    ]
    kept = given.notes if given is not None else ()
    result = result.with_notes([*_namesake_note(earlier, job), *unused, *kept])
    saved = save_result(
        result,
        names,
        Outputs(csv=options.csv, slicer=options.slicer),
        keep_edited=given is not None,
        writers=writers,
        **record,
    )
    sidecar = read_sidecar(saved.written[1]) or {}
    removed = list(saved.removed)
    if earlier is not None and sidecar.get("discs") != earlier.get("discs"):
        removed += remove_registration(names.registration)  # it was made with other discs
    if options.register:
        sidecar["warnings"] = [*sidecar.get("warnings", ()), *_register(job, options, result)]
    if result.labels.prediction is not None:
        keep_entry(options.derivatives, _entry(result, job, sidecar))
    else:
        forget_entry(options.derivatives, scan.name)
    return sidecar, removed


def _refuse_lost(given: PersonLabels, result: ScanResult, names: ResultNames) -> None:
    """Refuse to write labels of a person without those that lie outside the image, as after a crop."""
    written = {disc.value for disc in (*result.labels.discs, *result.labels.landmarks)}
    lost = sorted({value for value, _ in given.labels.points} - written)
    if given.is_own and lost:
        raise LabelsError(
            f"{names.labels} holds labels that lie outside the image as it is now (values "
            f"{', '.join(map(str, lost))}); restore the image, or move the file away"
        )


def _namesake_note(earlier: Mapping[str, Any] | None, job: Job) -> list[str]:
    """Say that results of another image of this name, from another folder, were here before."""
    before = earlier or {}
    same_folder = before.get(FOLDER) in (None, folder_digest(job.scan))
    if same_folder or (before.get("source") or {}).get("sha256") == job.sha256:
        return []
    return [
        f"another image called {job.scan.name}, from another folder, was labelled here before, and its "
        "results were replaced; write the results of each folder elsewhere (-o)"
    ]


def _register(job: Job, options: BatchOptions, result: ScanResult) -> list[str]:
    """Register a scan to the template; return why it could not be, if so: its labels stand."""
    from sct_deepspine.sct.registration import register_to_template

    if result.masks is None or result.masks.cord_image is None:
        return ["not registered: no cord was found in the image"]
    try:
        register_to_template(
            job.scan.path,
            job.names.masks["seg"],
            result.labels,
            contrast=options.register or "",
            folder=job.names.registration,
            template=options.template,
        )
    except SctError as error:
        return [f"not registered: {error}"]
    return []


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
    jobs: list[Job] = []
    try:
        models = _models(options, model, mask_model)
        readable: list[Inputs] = []
        for scan in scans:
            try:
                readable.append(Inputs.read(scan, options))
            except Exception as error:
                failed[scan.name] = _failure(scan, options, error, started)
        for inputs in readable:
            beside = [str((other.sha256, other.given_digest)) for other in readable if other is not inputs]
            jobs.append(plan_job(inputs, options, models, sorted(beside)))
        if all(job.finished is not None for job in jobs):
            rows = {job.scan.name: job.row(job.finished or {}, SKIPPED, 0.0) for job in jobs}
            return [(failed | rows)[scan.name] for scan in scans]
        rows = _label_jobs(jobs, options, models, started)
        return [(failed | rows)[scan.name] for scan in scans]
    except Exception as error:
        return [failed.get(scan.name) or _failure(scan, options, error, started) for scan in scans]


def _label_jobs(jobs: Sequence[Job], options: BatchOptions, models: Models, started: float) -> dict[str, Row]:
    """Label the scans of a session together; return a row for each, by name."""
    from sct_deepspine.io.images import read_one_volume
    from sct_deepspine.labeling.checks import read_scan
    from sct_deepspine.workflow.session import labels_alone, process_jobs, refuse_uncertain

    rows: dict[str, Row] = {}
    together: list[Job] = []
    volumes: list[Any] = []
    checked: dict[int, Any] = {}
    for job in jobs:
        try:
            volume = read_scan(read_one_volume(str(job.scan.path)))
            if job.given is not None:
                checked[len(together)] = labels_alone(volume, _request(job, options), models[0])
        except Exception as error:
            rows[job.scan.name] = _failure(job.scan, options, error, started)
            continue
        together.append(job)
        volumes.append(volume)
    if not together:
        return rows
    try:
        found = process_jobs(
            volumes,
            [_request(job, options) for job in together],
            checked,
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
            sidecar, removed = _save(job, options, result, session=found.record(n, names))
            share = (before - started) / len(together) if n == 0 else time.perf_counter() - before
            rows[job.scan.name] = _kept(job, options, sidecar, share, removed)
        except Exception as error:
            rows[job.scan.name] = _failure(job.scan, options, error, before)
    return rows


def _entry(result: ScanResult, job: Job, sidecar: Mapping[str, Any]) -> Any:
    from sct_deepspine.reporting.html import make_entry

    scan = job.scan
    image = (sidecar.get("source") or {}) | {"path": (scan.folder / scan.path.name).as_posix()}
    given = job.given.labels if job.given else None
    return make_entry(result.labels, result.volume, scan.name, masks=result.masks, image=image, given=given)
