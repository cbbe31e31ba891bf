"""What a person saved on the review page: which scans of a cohort it is about, and the table of ratings."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sct_deepspine.errors import ImageError, LabelsError
from sct_deepspine.io.bids import ScanFile
from sct_deepspine.io.disc_labels import GivenLabels, ReviewedScan
from sct_deepspine.io.files import plain_cell, plain_line, write_text
from sct_deepspine.io.identity import file_sha256

__all__ = ["RATINGS_FILE", "Rating", "keep_ratings", "matched_corrections", "read_ratings"]

RATINGS_FILE = "ratings.tsv"
"""The table of ratings, beside the page."""

COLUMNS = "scan", "rating", "accepted", "key"


@dataclass(frozen=True)
class Rating:
    """What a person decided about a scan.

    Parameters
    ----------
    scan
        Its name.
    rating
        ``pass``, ``fail``, ``doubt``, or empty.
    accepted
        Whether the labels were accepted as they are.
    """

    scan: str
    rating: str = ""
    accepted: bool = False


def matched_corrections(
    reviewed: Iterable[ReviewedScan], scans: Sequence[ScanFile]
) -> dict[str, GivenLabels]:
    """Return the corrections of each scan that has some, by its name in the cohort.

    An image is found by its fingerprint, then by its name. What was made on another version of an image is
    returned, too, unless there are corrections of this one: whoever applies it compares the fingerprints.

    Raises
    ------
    LabelsError
        If some are about none of the scans, or it is not clear about which.
    """

    @cache
    def print_of(scan: ScanFile) -> str:
        with suppress(ImageError):
            return file_sha256(scan.path)
        return ""

    out: dict[str, GivenLabels] = {}
    others: dict[str, GivenLabels] = {}
    for one in reviewed:
        if one.labels is None:
            continue
        scan, is_same = _scan_of(one, scans, print_of)
        if not is_same:
            others[scan.name] = one.labels
        elif scan.name in out:
            raise LabelsError(f"there are two corrections of {scan.name}; remove one from the file")
        else:
            out[scan.name] = one.labels
    return others | out


def _scan_of(
    one: ReviewedScan, scans: Sequence[ScanFile], print_of: Callable[[ScanFile], str]
) -> tuple[ScanFile, bool]:
    """Return the scan that corrections are about, and whether its image is the one that was corrected."""
    named = next((scan for scan in scans if scan.name == one.name), None)
    if named is not None and (not one.sha256 or print_of(named) == one.sha256):
        return named, True
    same = [scan for scan in scans if one.sha256 and print_of(scan) == one.sha256]
    if len(same) == 1:
        return same[0], True
    if same:
        raise LabelsError(
            f"the corrections of {one.name} may be of {same[0].name} or {same[1].name}: their images are "
            "the same; leave one out with -exclude"
        )
    if named is None:
        raise LabelsError(f"there are corrections of {one.name}, which is not among the scans")
    return named, False


def read_ratings(folder: Path) -> dict[str, Rating]:
    """Return the ratings that are kept in a folder, by the key that the page knows a scan by."""
    with suppress(OSError, ValueError, csv.Error):
        text = (folder / RATINGS_FILE).read_text(encoding="utf-8-sig")
        return {
            row["key"]: Rating(row["scan"], row["rating"] or "", row["accepted"] == "yes")
            for row in csv.DictReader(io.StringIO(text, newline=""), delimiter="\t")
            if all(row.get(name) is not None for name in COLUMNS)
        }
    return {}


def keep_ratings(folder: Path, reviewed: Iterable[ReviewedScan]) -> None:
    """Add what the page saved to the table of ratings; what it does not mention stays.

    Raises
    ------
    OutputError
        If the table can't be written.
    """
    known = read_ratings(folder)
    before = dict(known)
    for one in reviewed:
        earlier = known.get(one.key, Rating(one.name))
        known[one.key] = Rating(
            plain_line(one.name),
            earlier.rating if one.rating is None else one.rating,
            earlier.accepted if one.accepted is None else one.accepted,
        )
    known = {key: rating for key, rating in known.items() if rating.rating or rating.accepted}
    if known != before:
        write_text(folder / RATINGS_FILE, _table(known))


def _table(ratings: Mapping[str, Rating]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for key, one in sorted(ratings.items(), key=lambda item: (item[1].scan, item[0])):
        writer.writerow([plain_cell(one.scan), one.rating, "yes" if one.accepted else "no", key])
    return text.getvalue()
