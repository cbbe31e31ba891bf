"""Label a cohort: every scan once, whatever happens to one of them.

A scan is finished when its JSON sidecar bears the fingerprint of its image, the weights and the
options; the sidecar is written last. What is finished is skipped, what is half-written is done again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache, partial
from itertools import takewhile
from multiprocessing import get_context
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from sct_deepspine._version import __version__
from sct_deepspine.errors import (
    DeepSpineError,
    GeometryError,
    ImageError,
    NoDiscsError,
    OutputError,
    UncertainError,
)
from sct_deepspine.io.bids import DERIVATIVE, ScanFile, given_labels
from sct_deepspine.io.files import make_folder, plain_cell, write_text
from sct_deepspine.reporting.results import Writer, edited_files, read_sidecar, remove_results, write_results

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sct_deepspine.geometry.volume import Volume
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.labels import DiscLabels
    from sct_deepspine.segmentation.masks import SpineMasks
    from sct_deepspine.segmentation.model import SegmentationModel

__all__ = ["BatchOptions", "Row", "label_scan", "read_batch_corrections", "run_batch", "write_overview"]

DERIVATIVES = Path("derivatives") / "sct_deepspine"
MANUAL = Path("derivatives") / "labels"
"""Where datasets of the Spinal Cord Toolbox keep labels that a person has checked."""

ENTRIES = Path("sourcedata") / "pictures"
"""Where the pictures of the overview are kept."""

DONE, SKIPPED, CORRECTED, FAILED = "done", "skipped", "corrected", "failed"
PARENT_CHECK_S = 2.0

ATTEMPTS = 2
"""Times a scan may take its worker process down with it before it counts as failed."""

DESCRIPTION = {
    "Name": "Intervertebral disc labels",
    "BIDSVersion": "1.9.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "sct_deepspine", "Version": __version__}],
}


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
        Scan's name → the discs that a person says it has; see :func:`read_batch_corrections`.
    masks
        Whether to segment cord, canal, vertebrae and discs, too.
    """

    results: Path
    weights: str | None = None
    device: str | None = None
    upper: bool = False
    corrections: Mapping[str, Mapping[int, tuple[float, ...]]] = field(default_factory=dict)
    masks: bool = False

    @property
    def derivatives(self) -> Path:
        """Folder that all files go to."""
        return Path(self.results) / DERIVATIVES


@dataclass(frozen=True)
class Row:
    """One scan in the summary table."""

    scan: str
    status: str
    discs: int = 0
    first: str = ""
    last: str = ""
    level_confidence: float = 0.0
    least_confidence: float = 0.0
    warnings: str = ""
    seconds: float = 0.0
    error: str = ""


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
        The same of the masks, used if they are asked for; by default the shipped one.
    """
    name = str(scan.folder / scan.stem)
    started = time.perf_counter()
    try:
        model = model or _model(options.weights, options.device)
        mask_model = (mask_model or _mask_model(options.device)) if options.masks else None
        target = _target(scan, options)
        if name in options.corrections:
            manual = Path(options.results) / MANUAL / scan.folder / target.name
            _write_given(scan, options.corrections[name], (target, manual))
        given = _given_by_person(scan, target)
        fingerprint = _fingerprint(scan.path, options, model, mask_model, given)
        finished = _finished(target, fingerprint)
        if finished is not None and not _shows_failure(options, name):
            return _row(name, CORRECTED if given else SKIPPED, finished, 0.0)
        sidecar = _label(scan, options, fingerprint, name, model, mask_model, given)
        return _row(name, CORRECTED if given else DONE, sidecar, time.perf_counter() - started)
    except DeepSpineError as error:
        if _is_about_image(error, scan):
            with suppress(OSError):
                _remove_found(_sidecar(_target(scan, options)))
        return _failed(name, options, str(error), started)
    except OSError as error:  # a name that is too long, a folder that is gone
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _failed(name, options, reason, started)
    except Exception as error:  # one scan never stops the rest, whatever it is
        text = " ".join(f"unexpected {type(error).__name__}: {error}".split())
        return _failed(name, options, text, started)


@lru_cache(maxsize=1)
def _model(weights: str | None, device: str | None) -> LabelingModel:
    """Load the model of a process that labels one scan after the other."""
    from sct_deepspine.labeling.model import LabelingModel

    return LabelingModel.load(weights, device=device)


@lru_cache(maxsize=1)
def _mask_model(device: str | None) -> SegmentationModel:
    """Load the model of the masks, likewise."""
    from sct_deepspine.segmentation.model import SegmentationModel

    return SegmentationModel.load(device=device)


def _failed(name: str, options: BatchOptions, error: str, started: float) -> Row:
    from sct_deepspine.reporting.html import failed_entry

    with suppress(DeepSpineError, OSError):
        _keep_entry(options, name, failed_entry(name, error).to_json())
    return Row(name, FAILED, seconds=round(time.perf_counter() - started, 2), error=error)


def read_batch_corrections(path: str | Path) -> dict[str, dict[int, tuple[float, ...]]]:
    """Read the ``corrections.json`` that the overview page saves.

    Raises
    ------
    ImageError
        If it is no such file.
    """
    try:
        scans = json.loads(Path(path).read_text(encoding="utf-8"))["scans"]
        return {
            str(name): {int(disc["value"]): tuple(float(c) for c in disc["world_mm"]) for disc in discs}
            for name, discs in scans.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"{path} holds no corrections of the overview page ({error})") from error


def _write_given(scan: ScanFile, discs: Mapping[int, ArrayLike], places: Sequence[Path]) -> None:
    """Write the discs that a person says a scan has to each of the places."""
    from sct_deepspine.io.images import read_volume
    from sct_deepspine.labels import DiscLabels

    grid = read_volume(scan.path).grid
    if not discs:
        raise DeepSpineError(f"the corrections leave {scan.folder / scan.stem} without a disc")
    labels = DiscLabels((), grid, 1.0, source=str(scan.path), view="corrected").with_tips(discs)
    for place in places:
        write_results(
            labels,
            _sidecar(place),
            {place: labels.save},
            overwrite=True,
            GeneratedBy=DESCRIPTION["GeneratedBy"],
            Corrected=True,
        )


def _given_by_person(scan: ScanFile, target: Path) -> Path | None:
    """Return the labels that a person made, in the place of our own or in the dataset, if there are any."""
    earlier = read_sidecar(_sidecar(target)) or {}
    corrected = earlier.get("Corrected") and "Labels" not in earlier
    if target.is_file() and (corrected or edited_files(_sidecar(target), [target])):
        return target
    return given_labels(scan)


def _is_about_image(error: DeepSpineError, scan: ScanFile) -> bool:
    """Tell whether an error says that an image, which is there, has no such labels as were found before."""
    about = NoDiscsError, UncertainError, GeometryError, ImageError
    return isinstance(error, about) and scan.path.is_file()


def _remove_found(sidecar: Path) -> None:
    """Remove what an earlier run found, which is no longer true; what a person set is."""
    if not (read_sidecar(sidecar) or {}).get("Corrected"):
        remove_results(sidecar)


def _target(scan: ScanFile, options: BatchOptions) -> Path:
    return options.derivatives / scan.folder / f"{scan.stem}_{DERIVATIVE}.nii.gz"


def _sidecar(target: Path) -> Path:
    return target.with_name(target.name.removesuffix(".nii.gz") + ".json")


def _fingerprint(
    image: Path,
    options: BatchOptions,
    model: LabelingModel,
    mask_model: SegmentationModel | None,
    given: Path | None,
) -> str:
    """Return the SHA-256 of all that the result depends on."""
    asked = [model.identity["sha256"], options.device, options.upper, __version__]
    if mask_model is not None:
        asked.append(mask_model.identity["sha256"])
    digest = hashlib.sha256(json.dumps(asked).encode())
    for path in (image, given) if given else (image,):
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise ImageError(f"{path} can't be read ({error.strerror or error})") from error
    return digest.hexdigest()


def _finished(target: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the sidecar of a scan that was labelled just so before, else None."""
    sidecar = read_sidecar(_sidecar(target))
    same = sidecar is not None and sidecar.get("Fingerprint") == fingerprint
    return sidecar if same and target.is_file() else None


def _label(
    scan: ScanFile,
    options: BatchOptions,
    fingerprint: str,
    name: str,
    model: LabelingModel,
    mask_model: SegmentationModel | None,
    given: Path | None,
) -> dict[str, Any]:
    """Label a scan; write labels, the template's labels, masks, the picture, and last the sidecar."""
    from sct_deepspine.io.images import read_volume
    from sct_deepspine.labeling.pipeline import label_discs
    from sct_deepspine.reporting.html import make_entry
    from sct_deepspine.sct.registration import usable_labels
    from sct_deepspine.segmentation.pipeline import segment_spine

    volume = read_volume(scan.path)
    if given is not None:
        labels = _labels_by_person(volume, given, model)
    else:
        labels = label_discs(volume, weights=model, return_maps=True)
        labels = labels.with_upper_discs() if options.upper else labels
    labels = labels.of(str(scan.path))
    target = _target(scan, options)
    writers: dict[Path, Writer] = {target: partial(copyfile, target) if given == target else labels.save}
    masks: SpineMasks | None = None
    record: dict[str, Any] = {}
    notes: list[str] = []
    if mask_model is not None:
        try:
            masks = segment_spine(volume, labels=labels, weights=mask_model, labeling=model).of(labels)
        except NoDiscsError as error:
            if given is None:
                raise
            notes.append(f"no masks: {error}")
    if masks is not None:
        writers |= masks.writers(target.parent, scan.stem)
        record["masks"] = masks.as_dict()
    usable, _ = usable_labels(labels, masks.cord_image if masks else None)
    if 0 < len(usable.discs) < len(labels.discs):
        writers[target.with_name(f"{scan.stem}_desc-template_{DERIVATIVE}.nii.gz")] = usable.save
    if given is not None:
        if _sidecar(target).exists() and read_sidecar(_sidecar(target)) is None:
            raise OutputError(f"{_sidecar(target)} is not this command's; move it away")
        record |= {"Corrected": True} if given == target else {"Corrected": True, "Labels": str(given)}
        kept = edited_files(_sidecar(target), [path for path in writers if path != target])
        writers = {path: write for path, write in writers.items() if path not in kept}
        notes += [f"{path.name} is not this command's, or was edited: it is kept" for path in kept]
        if masks is not None and kept:
            record["masks"]["kept"] = [path.name for path in kept]  # what is told is of our own masks
        labels = replace(labels, warnings=(*labels.warnings, *notes))
    write_results(
        labels,
        _sidecar(target),
        writers,
        overwrite=given is not None,  # by what a person set, or a copy of it
        GeneratedBy=DESCRIPTION["GeneratedBy"],
        Fingerprint=fingerprint,
        **record,
    )
    if labels.prediction is not None:
        _keep_entry(options, name, make_entry(labels, volume, name, masks=masks).to_json())
    else:
        _entry_path(options, name).unlink(missing_ok=True)
    return labels.as_dict()


def _labels_by_person(volume: Volume, given: Path, model: LabelingModel) -> DiscLabels:
    """Return the labels that a person made, with what the networks see of the image, if they see a spine."""
    from sct_deepspine.labeling.corrections import labels_in_view, read_labelled_points
    from sct_deepspine.labeling.pipeline import label_discs
    from sct_deepspine.labels import DiscLabels

    try:
        found = label_discs(volume, weights=model, return_maps=True)
    except NoDiscsError:
        found = DiscLabels((), volume.grid, 1.0)
    points, notes = labels_in_view(read_labelled_points(given), volume.grid)
    told = replace(found, discs=(), landmarks=(), level_confidence=1.0, warnings=notes, view="corrected")
    return told.with_tips(points)


def _keep_entry(options: BatchOptions, name: str, text: str) -> None:
    path = _entry_path(options, name)
    make_folder(path.parent)
    write_text(path, text)


def _entry_path(options: BatchOptions, name: str) -> Path:
    return options.derivatives / ENTRIES / f"{name}.json"


def _shows_failure(options: BatchOptions, name: str) -> bool:
    """Tell whether the page says that a scan failed, in a run after the one that finished it."""
    with suppress(OSError, ValueError, AttributeError):
        return bool(json.loads(_entry_path(options, name).read_text(encoding="utf-8")).get("error"))
    return False


def _row(name: str, status: str, sidecar: dict[str, Any], seconds: float) -> Row:
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


def run_batch(
    scans: Sequence[ScanFile],
    options: BatchOptions,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    model: LabelingModel | None = None,
    mask_model: SegmentationModel | None = None,
    label: Callable[..., Row] = label_scan,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Row]:
    """Label scans, in this process, in several, or on a Dask cluster; yields rows as they come.

    Parameters
    ----------
    scans
        The scans.
    options
        What is asked for.
    jobs
        Processes.
    scheduler
        Address of a Dask scheduler, whose workers are then used instead.
    model, mask_model
        Loaded models, for labelling in this process; others load their own.
    label
        What is done with each scan.
    stop
        Is asked before each scan whether to end here. What is under way is finished.

    Raises
    ------
    OutputError
        If the folder of results can't be made.
    DeepSpineError
        If there is no Dask, or no scheduler at that address.
    """
    make_folder(options.derivatives)
    write_text(options.derivatives / "dataset_description.json", json.dumps(DESCRIPTION, indent=2) + "\n")
    if scheduler is not None:
        return _on_dask(scans, options, scheduler, label, stop)
    if jobs == 1:
        wanted = takewhile(lambda _: not stop(), scans)
        return (label(scan, options, model, mask_model) for scan in wanted)
    return _in_processes(scans, options, jobs, label, stop)


def _in_processes(
    scans: Sequence[ScanFile],
    options: BatchOptions,
    jobs: int,
    label: Callable[..., Row],
    stop: Callable[[], bool],
) -> Iterator[Row]:
    """Label in worker processes; one that dies takes its scan with it, not the others.

    A dead worker breaks its pool. The scans that were under way are then tried one at a time, each in a
    process of its own, which tells the one that kills from those that were only beside it.
    """
    waiting, attempts = list(scans), dict.fromkeys(scans, 0)
    while waiting and not stop():
        careful = any(attempts[scan] for scan in waiting)
        workers = 1 if careful else jobs
        left: list[ScanFile] = []
        with _pool(workers, jobs) as pool:
            running: dict[Future[Row], ScanFile] = {}
            try:
                broken = False
                while (waiting and not broken and not stop()) or running:
                    while waiting and not broken and not stop() and len(running) < workers:
                        scan = waiting.pop(0)
                        running[pool.submit(label, scan, options)] = scan
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        scan = running.pop(future)
                        try:
                            yield future.result()
                        except BrokenProcessPool:
                            broken = True
                            attempts[scan] += 1
                            left.append(scan)
            except BrokenProcessPool:
                left.insert(0, scan)  # submitted to a pool that had just broken
            except BaseException:
                _stop(pool)
                raise
        for scan in [scan for scan in left if attempts[scan] >= ATTEMPTS]:
            left.remove(scan)
            name = str(scan.folder / scan.stem)
            yield _failed(name, options, "the worker process died at this scan", time.perf_counter())
        waiting = left + waiting


def _pool(workers: int, jobs: int) -> ProcessPoolExecutor:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    return ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (threads,))


def _start_worker(threads: int) -> None:
    """Keep a worker to its share of the cores; it is ended by its parent, not by the terminal.

    It ends by an exception, so that what it has half-written is removed.
    """
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()


def _follow_parent(parent: int) -> None:
    """End this process when its parent has ended, however that came about."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


def _stop(pool: ProcessPoolExecutor) -> None:
    """End a pool at once: what is half-written is done again by the next run."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def _on_dask(
    scans: Sequence[ScanFile],
    options: BatchOptions,
    scheduler: str,
    label: Callable[..., Row],
    stop: Callable[[], bool],
) -> Iterator[Row]:
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise DeepSpineError(
            "-scheduler needs Dask, which is not installed: pip install 'sct_deepspine[batch]'"
        ) from error
    try:
        client = Client(scheduler, timeout=20, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DeepSpineError(f"no Dask scheduler answers at {scheduler} ({reason})") from error
    with client:
        # A scan whose worker is lost is given to another one by Dask itself.
        futures = {
            client.submit(label, scan, options, pure=False, key=f"{scan.path}"): scan for scan in scans
        }
        for future in as_completed(list(futures), loop=client.loop):
            if stop():
                return
            scan = futures.pop(future)
            if future.status == "finished":
                yield future.result()
            else:
                name = str(scan.folder / scan.stem)
                reason = " ".join(str(future.exception()).split())[:200]
                yield _failed(
                    name, options, f"the worker was lost at this scan ({reason})", time.perf_counter()
                )


def write_overview(rows: Sequence[Row], options: BatchOptions) -> list[Path]:
    """Write ``summary.csv`` and ``index.html`` of the scans done so far; returns their paths."""
    from sct_deepspine.reporting.html import Entry, write_page

    text = io.StringIO()
    columns = [column.name for column in fields(Row)]
    # All texts are in quotes: a name may hold any character, and without them a "\r" ends the line.
    writer = csv.DictWriter(text, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(
        {name: plain_cell(value) for name, value in asdict(row).items()}
        for row in sorted(rows, key=lambda row: row.scan)
    )
    summary, page = options.derivatives / "summary.csv", options.derivatives / "index.html"
    write_text(summary, text.getvalue())
    entries = []
    for row in rows:
        with suppress(OSError, ValueError, KeyError, TypeError):  # an entry that is broken is made anew
            kept = _entry_path(options, row.scan)
            entries.append(Entry.from_json(kept.read_text(encoding="utf-8")))
    write_page(page, entries, title=f"Disc labels of {len(rows)} scans")
    return [summary, page]
