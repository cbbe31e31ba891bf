"""Label the scans of a cohort in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import takewhile
from multiprocessing import get_context
from typing import TYPE_CHECKING

from sct_deepspine.errors import DeepSpineError
from sct_deepspine.io.bids import ScanFile
from sct_deepspine.workflow.cohort import failed_row, label_scan, label_together
from sct_deepspine.workflow.dataset import describe_dataset
from sct_deepspine.workflow.job import BatchOptions
from sct_deepspine.workflow.overview import Row

if TYPE_CHECKING:
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.segmentation.model import SegmentationModel

__all__ = ["run_batch"]

PARENT_CHECK_S = 2.0
"""Seconds between a worker's looks at whether its parent still runs."""

ATTEMPTS = 2
"""Times a scan may take its worker process down with it before it counts as failed."""


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
    describe_dataset(options.derivatives)
    groups = _groups(scans, options)
    if scheduler is not None:
        return _on_dask(groups, options, scheduler, label, stop)
    if jobs == 1:
        wanted = takewhile(lambda _: not stop(), groups)
        return (row for group in wanted for row in _label_group(group, options, label, model, mask_model))
    return _in_processes(groups, options, jobs, label, stop)


Scans = tuple[ScanFile, ...]
"""Scans that are labelled in one go: those of a session, or one."""


def _groups(scans: Sequence[ScanFile], options: BatchOptions) -> list[Scans]:
    """Part the scans into those that are labelled together, in their order."""
    groups: dict[object, list[ScanFile]] = {}
    for scan in scans:
        key = scan.session if options.together and scan.session is not None else scan
        groups.setdefault(key, []).append(scan)
    return [tuple(group) for group in groups.values()]


def _label_group(
    group: Scans,
    options: BatchOptions,
    label: Callable[..., Row],
    *models: LabelingModel | SegmentationModel | None,
) -> list[Row]:
    if len(group) == 1:
        return [label(group[0], options, *models)]
    return label_together(group, options, *models)  # type: ignore[arg-type]


def _in_processes(
    groups: Sequence[Scans],
    options: BatchOptions,
    jobs: int,
    label: Callable[..., Row],
    stop: Callable[[], bool],
) -> Iterator[Row]:
    """Label in worker processes; one that dies takes its scans with it, not the others.

    A dead worker breaks its pool. The scans that were under way are then tried one group at a time, each in
    a process of its own, which tells the one that kills from those that were only beside it.
    """
    waiting, attempts = list(groups), dict.fromkeys(groups, 0)
    while waiting and not stop():
        careful = any(attempts[group] for group in waiting)
        workers = 1 if careful else jobs
        left: list[Scans] = []
        with _pool(workers, jobs) as pool:
            running: dict[Future[list[Row]], Scans] = {}
            try:
                broken = False
                while (waiting and not broken and not stop()) or running:
                    while waiting and not broken and not stop() and len(running) < workers:
                        group = waiting.pop(0)
                        running[pool.submit(_label_group, group, options, label)] = group
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        group = running.pop(future)
                        try:
                            yield from future.result()
                        except BrokenProcessPool:
                            broken = True
                            attempts[group] += 1
                            left.append(group)
            except BrokenProcessPool:
                left.insert(0, group)  # submitted to a pool that had just broken
            except BaseException:
                _stop(pool)
                raise
        for group in [group for group in left if attempts[group] >= ATTEMPTS]:
            left.remove(group)
            for scan in group:
                reason = (
                    "the worker process crashed twice on this scan, possibly out of memory; use fewer -jobs, "
                    "or crop the image"
                )
                yield failed_row(scan.name, options, reason, time.perf_counter())
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
    groups: Sequence[Scans],
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
        # A group whose worker is lost is given to another one by Dask itself.
        futures = {
            client.submit(_label_group, group, options, label, pure=False, key=f"{group[0].path}"): group
            for group in groups
        }
        for future in as_completed(list(futures), loop=client.loop):
            if stop():
                return
            group = futures.pop(future)
            if future.status == "finished":
                yield from future.result()
                continue
            reason = " ".join(str(future.exception()).split())[:200]
            for scan in group:
                text = f"the worker was lost at this scan ({reason})"
                yield failed_row(scan.name, options, text, time.perf_counter())
