"""Label every scan of a folder with known discs, and score what comes out."""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sct_deepspine.errors import DeepSpineError, ImageError
from sct_deepspine.frames import FloatArray
from sct_deepspine.labeling import label_discs
from sct_deepspine.metrics import ScanScore, as_rows, format_table, pool_by, score_scan

__all__ = ["Result", "evaluate_folder", "label_cards", "report", "results_csv"]

logger = logging.getLogger(__name__)

FIRST_SCORED = 3
"""Discs above C2/C3 are not labelled by default and not scored."""


@dataclass(frozen=True)
class Result:
    """One scan's score and how long it took.

    Parameters
    ----------
    score
        The score; of no disc at all where labelling failed.
    seconds
        Wall time of ``label_discs``.
    level_confidence
        What the labelling said of itself; 0 where it failed.
    error
        The error's text where labelling failed, else empty.
    """

    score: ScanScore
    seconds: float
    level_confidence: float
    error: str = ""


def label_cards(folder: str | Path) -> list[Path]:
    """Return the JSON files of a folder that describe labelled scans.

    Raises
    ------
    ImageError
        If there is none.
    """
    cards = [path for path in sorted(Path(folder).glob("*.json")) if "discs" in json.loads(path.read_text())]
    if not cards:
        raise ImageError(f"no labelled scan (NAME.json with 'discs', beside NAME.nii.gz) in {folder}")
    return cards


def evaluate_folder(folder: str | Path, **options: Any) -> Iterator[Result]:
    """Label the scans of a folder, one after the other, with the options of ``label_discs``."""
    for path in label_cards(folder):
        yield _evaluate(path, options)


def _evaluate(path: Path, options: dict[str, Any]) -> Result:
    card = json.loads(path.read_text())
    started = time.perf_counter()
    found: dict[int, FloatArray] = {}
    confidence, error = 0.0, ""
    try:
        labels = label_discs(path.parent / card["image"], **options)
        found = {disc.value: disc.point_world for disc in labels.discs}
        confidence = labels.level_confidence
    except DeepSpineError as failure:
        error = str(failure)
        logger.warning("%s: %s", card["image"], error)
    seconds = time.perf_counter() - started
    score = score_scan(
        {int(value): point for value, point in card["discs"].items() if int(value) >= FIRST_SCORED},
        found,
        span_z_mm=tuple(card["labelled_span_mm"]),
        name=card["image"],
        subject=card["subject"],
        region=card["region"],
        contrast=card["contrast"],
    )
    return Result(score, seconds, confidence, error)


def results_csv(results: Sequence[Result]) -> str:
    """Return one CSV line per scan."""
    text = io.StringIO()
    rows = [
        {
            **row,
            "seconds": round(r.seconds, 3),
            "level_confidence": round(r.level_confidence, 4),
            "error": r.error,
        }
        for row, r in zip(as_rows([r.score for r in results]), results, strict=True)
    ]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def report(results: Sequence[Result]) -> str:
    """Return a line per scan and the pooled metrics per region, contrast and overall."""
    width = max(len(r.score.name) for r in results)
    lines = [
        f"{'scan':<{width}}  {'true':>4} {'found':>5}  levels  {'mean mm':>7} {'max mm':>6}  missed invented"
        f"  {'confidence':>10} {'seconds':>7}"
    ]
    for row, r in zip(as_rows([r.score for r in results]), results, strict=True):
        lines.append(
            f"{row['name']:<{width}}  {row['true_count']:>4} {row['predicted_count']:>5}  "
            f"{'right' if row['levels_right'] else 'WRONG':<6}  {row['mean_mm']:7.2f} {row['max_mm']:6.1f}  "
            f"{row['missed']:>6} {row['invented']:>8}  {r.level_confidence:10.2f} {r.seconds:7.2f}"
            f"  {r.error}".rstrip()
        )
    scores = [r.score for r in results]
    seconds = sum(r.seconds for r in results) / len(results)
    tables = [format_table(pool_by(scores, "region")), format_table(pool_by(scores, "contrast"))]
    return "\n".join([*lines, "", *tables, "", f"{seconds:.2f} s a scan on average"])
