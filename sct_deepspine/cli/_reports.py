"""Reports that a command adds a scan to: SCT's own, and the review page."""

from __future__ import annotations

import argparse
import os
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from sct_deepspine.sct.toolbox import add_drawn_qc_entry, add_qc_entry, sct_is_installed

if TYPE_CHECKING:
    from sct_deepspine.cli._common import Arguments
    from sct_deepspine.workflow.result import ScanResult

__all__ = ["add_report_arguments", "add_to_reports", "page_is_wanted", "refuse_idle_names"]


def add_report_arguments(parser: Arguments) -> argparse._ArgumentGroup:
    """Add the options of reports to a command's parser, and return their group."""
    group: argparse._ArgumentGroup = parser.group("quality control")
    group.add_argument(
        "-qc",
        metavar="DIR",
        help="Add entries to the quality control report in this folder: SCT's own, or, where SCT is not "
        "installed, the review page as -qc-page does",
    )
    group.add_argument(
        "-qc-page",
        metavar="DIR",
        help="Add the scan to the review page (index.html) in this folder, on which scans are reviewed, "
        "rated and corrected with keyboard shortcuts",
    )
    group.add_argument("-qc-dataset", metavar="NAME", help="Name of the dataset in the reports")
    group.add_argument("-qc-subject", metavar="NAME", help="Name of the subject in the reports")
    return group


def refuse_idle_names(parser: Arguments, asked: argparse.Namespace) -> None:
    """Refuse names for a report where none is asked for."""
    for option in ("qc_dataset", "qc_subject"):
        if getattr(asked, option) is not None and not (asked.qc or asked.qc_page):
            parser.error(f"-{option.replace('_', '-')} does nothing without -qc or -qc-page")


def _page_folders(asked: argparse.Namespace) -> list[Path]:
    folders = [asked.qc_page, None if sct_is_installed() else asked.qc]
    return list(dict.fromkeys(Path(folder) for folder in folders if folder))


def page_is_wanted(asked: argparse.Namespace) -> bool:
    """Return whether the review page is asked for, which shows what the networks drew."""
    return bool(_page_folders(asked))


def add_to_reports(
    asked: argparse.Namespace, result: ScanResult, *, labels: Path | None = None
) -> list[Path]:
    """Add a scan to the reports that are asked for.

    Parameters
    ----------
    asked
        The command's arguments, with the command line in ``words``.
    result
        Of the scan.
    labels
        File of its disc labels, if it was written.

    Returns
    -------
    list[Path]
        Pages that were written.
    """
    from sct_deepspine.io.files import make_folder

    if asked.qc and sct_is_installed():
        make_folder(Path(asked.qc))
        names = {"command": asked.words, "dataset": asked.qc_dataset, "subject": asked.qc_subject}
        if labels is not None:
            add_qc_entry(asked.i, labels, asked.qc, **names)
        if result.masks is not None:
            add_drawn_qc_entry(asked.i, asked.qc, partial(_draw_layers, result, Path(asked.i).name), **names)
    written = [Path(asked.qc) / "index.html"] if asked.qc and sct_is_installed() else []
    return written + [_add_to_page(folder, asked, result) for folder in _page_folders(asked)]


def _draw_layers(result: ScanResult, title: str, background: Path, overlay: Path) -> None:
    from sct_deepspine.reporting.preview import write_layers

    write_layers(result.labels, result.volume, background, overlay, title=title, masks=result.masks)


def _add_to_page(folder: Path, asked: argparse.Namespace, result: ScanResult) -> Path:
    from sct_deepspine.io.bids import image_stem
    from sct_deepspine.io.files import make_folder, write_text
    from sct_deepspine.io.identity import ImageIdentity
    from sct_deepspine.reporting.html import make_entry, read_entries, write_page
    from sct_deepspine.workflow.given import labels_of_page

    image = Path(asked.i)
    place = image.resolve()
    name = " / ".join(word for word in (asked.qc_dataset, asked.qc_subject, image_stem(image)) if word)
    entries = folder / "entries"
    make_folder(entries)
    key = sha256(os.fsencode(f"{name}\n{place}")).hexdigest()[:16]
    identity = ImageIdentity.from_file(image, result.volume.grid).as_dict() | {"path": place.as_posix()}
    given = labels_of_page(result.request)
    entry = make_entry(result.labels, result.volume, name, masks=result.masks, image=identity, given=given)
    write_text(entries / f"{key}.json", entry.to_json())
    page = folder / "index.html"
    write_page(page, read_entries(entries), title="Disc labels")
    return page
