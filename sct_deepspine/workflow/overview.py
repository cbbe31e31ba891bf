"""What is known of a cohort's scans so far: one row and one entry of the page for each, and what they make.

Rows and entries lie in a file each, so that several jobs can write to one folder of results. The tables and
the page are made of all that is there.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sct_deepspine.io.files import UNFINISHED, make_folder, plain_cell, write_text
from sct_deepspine.labels import UNCERTAIN
from sct_deepspine.workflow.review import read_ratings
from sct_deepspine.workflow.tables import write_tables

if TYPE_CHECKING:
    from sct_deepspine.reporting.html import Entry

__all__ = [
    "Row",
    "forget_entry",
    "keep_entry",
    "keep_row",
    "name_files",
    "read_entry",
    "read_rows",
    "shows_failure",
    "write_overview",
]

ENTRIES = Path("sourcedata") / "pictures"
"""Where the entries of the page are kept."""

ROWS = Path("sourcedata") / "rows"
"""Where the rows of the summary are kept."""


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
    removed: str = ""
    """Files of an earlier run that this one removed, since they were no longer true."""

    @property
    def is_doubtful(self) -> bool:
        """Whether the levels or a disc are more likely wrong than right."""
        return not self.error and min(self.level_confidence, self.least_confidence) < UNCERTAIN


def name_files(paths: Sequence[Path]) -> str:
    """Return the names of files for a row."""
    return "; ".join(path.name for path in paths)


def keep_row(derivatives: Path, row: Row) -> None:
    """Keep the row of a scan that was worked on."""
    _keep(derivatives / ROWS / f"{row.scan}.json", json.dumps(asdict(row), ensure_ascii=False))


def keep_entry(derivatives: Path, entry: Entry) -> None:
    """Keep a scan's entry of the page."""
    _keep(derivatives / ENTRIES / f"{entry.name}.json", entry.to_json())


def read_entry(derivatives: Path, name: str) -> Entry | None:
    """Return a scan's entry of the page, if there is one."""
    from sct_deepspine.reporting.html import Entry

    with suppress(OSError, ValueError, KeyError, TypeError):  # an entry that is broken is made anew
        text = (derivatives / ENTRIES / f"{name}.json").read_text(encoding="utf-8")
        return Entry.from_json(text)
    return None


def forget_entry(derivatives: Path, name: str) -> None:
    """Remove a scan's entry of the page."""
    (derivatives / ENTRIES / f"{name}.json").unlink(missing_ok=True)


def _keep(path: Path, text: str) -> None:
    make_folder(path.parent)
    write_text(path, text)


def shows_failure(derivatives: Path, name: str) -> bool:
    """Return whether the page says that a scan failed, in a run after the one that finished it."""
    with suppress(OSError, ValueError, AttributeError):
        text = (derivatives / ENTRIES / f"{name}.json").read_text(encoding="utf-8")
        return bool(json.loads(text).get("error"))
    return False


def _kept(folder: Path) -> list[Path]:
    """Return the JSON files below a folder, by name; another job may be writing there.

    A walk passes over folders that are gone, unlike a glob, and over those of half-written files.
    """
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(UNFINISHED)]
        found += [Path(place, name) for name in names if name.endswith(".json")]
    return sorted(found)


def read_rows(derivatives: Path) -> list[Row]:
    """Return the rows of all scans that were worked on, by name."""
    rows = []
    for path in _kept(derivatives / ROWS):
        with suppress(OSError, ValueError, TypeError):  # what is broken is made anew by the next run
            rows.append(Row(**json.loads(path.read_text(encoding="utf-8"))))
    return sorted(rows, key=lambda row: row.scan)


def write_overview(
    derivatives: Path,
    rows: Sequence[Row] = (),
    *,
    tables: Callable[[Path, Sequence[str]], list[Path]] = write_tables,
) -> list[Path]:
    """Write the tables and the page of all scans in a folder; returns their paths.

    Several jobs may do so at once. Each looks again after writing: if another one has added a scan
    meanwhile, it writes anew, so that whoever is last has seen all.

    Parameters
    ----------
    derivatives
        The folder.
    rows
        Rows that are not kept there yet.
    tables
        What writes the tables of all discs and structures.
    """
    while True:
        before = _listing(derivatives)
        paths = _write(derivatives, rows, tables)
        if _listing(derivatives) == before:
            return paths


def _listing(derivatives: Path) -> list[tuple[str, int]]:
    found = []
    for folder in (ROWS, ENTRIES):
        for path in _kept(derivatives / folder):
            with suppress(OSError):
                found.append((str(path), path.stat().st_mtime_ns))
    return found


def _write(
    derivatives: Path, rows: Sequence[Row], tables: Callable[[Path, Sequence[str]], list[Path]]
) -> list[Path]:
    from sct_deepspine.reporting.html import write_page

    known = {row.scan: row for row in rows} | {row.scan: row for row in read_rows(derivatives)}
    ordered = [known[name] for name in sorted(known)]
    summary, page = derivatives / "summary.csv", derivatives / "index.html"
    write_text(summary, _table([asdict(row) for row in ordered], [column.name for column in fields(Row)]))
    of_parts = tables(derivatives, [row.scan for row in ordered if not row.error])
    write_page(page, _entries(derivatives, known), title=f"Disc labels of {len(known)} scans")
    return [summary, page, *of_parts]


def _entries(derivatives: Path, names: Mapping[str, Row]) -> list[Entry]:
    """Return the entries of some scans, with the ratings that a person gave them."""
    ratings = read_ratings(derivatives)
    entries = []
    for entry in filter(None, (read_entry(derivatives, name) for name in names)):
        rated = ratings.get(entry.key)
        entries.append(
            replace(entry, rating=rated.rating, accepted=rated.accepted) if rated is not None else entry
        )
    return entries


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return a CSV table; texts in quotes, since else a carriage return in a name would end the line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows({name: plain_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()
