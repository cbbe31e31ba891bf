"""Label every scan of a folder with known discs, and score what comes out."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from sct_deepspine.anatomy import DISC_VALUES
from sct_deepspine.errors import DeepSpineError, ImageError
from sct_deepspine.evaluation.landmarks import (
    LEVEL_RADIUS_MM,
    ScanScore,
    as_rows,
    format_table,
    pool_by,
    score_scan,
)
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.io.annotations import Annotation, LabelledScan, read_annotations
from sct_deepspine.labeling.calibration import KINDS, SIGNALS, Outcome, calibration_error
from sct_deepspine.labeling.pipeline import label_discs
from sct_deepspine.simulation.perturbations import Case, perturbed, scoliotic, whole_spine_cases

__all__ = [
    "Result",
    "composite_cases",
    "confidence_report",
    "evaluate_cases",
    "evaluate_folder",
    "folder_cases",
    "label_and_score",
    "outcomes_csv",
    "read_outcomes",
    "report",
    "results_csv",
    "stress_report",
]

logger = logging.getLogger(__name__)

RIGHT_MM = 10.0
"""Under stress a disc is right if the prediction of the same value is this near."""


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
        The confidence that the labelling gave itself; 0 where it failed.
    error
        The error's text where labelling failed, else empty.
    outcomes
        Each confidence, and whether it was justified: of the scan's levels, and of each
        disc that lies at a true one. Empty where labelling failed or an anchor was given.
    """

    score: ScanScore
    seconds: float
    level_confidence: float
    error: str = ""
    outcomes: tuple[Outcome, ...] = ()


def evaluate_folder(folder: str | Path, **options: Any) -> Iterator[Result]:
    """Label the scans of a folder, one after the other, with the options of ``label_discs``."""
    for annotation in read_annotations(folder):
        case = Case("plain", annotation.path, annotation.points(), annotation.span_z_mm)
        yield label_and_score(annotation, case, **options)


def evaluate_cases(
    cases: Iterable[tuple[LabelledScan, Case]], **options: Any
) -> Iterator[tuple[str, Result]]:
    """Label perturbed scans; yields the perturbation's name with each result."""
    for scan, case in cases:
        yield case.perturbation, label_and_score(scan, case, **options)


def folder_cases(folder: str | Path, *, seed: int = 0) -> Iterator[tuple[LabelledScan, Case]]:
    """Yield each scan of a folder with each perturbed version of it."""
    for index, annotation in enumerate(read_annotations(folder)):
        scan = annotation.read()
        for case in (*perturbed(scan, np.random.default_rng((seed, index))), *scoliotic(scan)):
            yield scan, case


def composite_cases(scans: Iterable[LabelledScan], *, seed: int = 0) -> Iterator[tuple[LabelledScan, Case]]:
    """Yield each whole spine with each perturbed version of it."""
    for index, scan in enumerate(scans):
        for case in whole_spine_cases(scan, np.random.default_rng((seed, index))):
            yield scan, case


def label_and_score(scan: LabelledScan | Annotation, case: Case, **options: Any) -> Result:
    """Label one case with the options of ``label_discs``, and score what comes out."""
    started = time.perf_counter()
    found: dict[int, FloatArray] = {}
    sure: list[float] = []
    confidence, view, error = 0.0, "", ""
    evidence: Mapping[str, float] = {}
    try:
        labels = label_discs(case.image, anchor=case.anchor, seg=case.seg, **options)
        points = apply_affine(case.original_from_perturbed, labels.points_world)
        found = dict(zip(labels.values.tolist(), points, strict=True))
        confidence, view, sure = labels.level_confidence, labels.view, labels.confidence.tolist()
        evidence = labels.evidence
    except DeepSpineError as failure:
        error = str(failure)
        logger.warning("%s (%s): %s", scan.name, case.perturbation, error)
    seconds = time.perf_counter() - started
    score = score_scan(
        _scored(case.truth),
        _scored(found),
        span_z_mm=case.span_z_mm,
        name=scan.name,
        subject=scan.subject,
        region=scan.region,
        contrast=scan.contrast,
    )
    judged = bool(found) and case.anchor is None
    outcomes = (
        _outcomes(case, found, sure, Outcome("scan", view, confidence, score.levels_right)) if judged else ()
    )
    outcomes = tuple(replace(outcome, evidence=evidence) for outcome in outcomes)
    if outcomes and evidence:
        outcomes = replace(outcomes[0], marginal=evidence["marginal"]), *outcomes[1:]
    return Result(score, seconds, confidence, error, outcomes)


def _scored(discs: Mapping[int, FloatArray]) -> dict[int, FloatArray]:
    """Leave out what is no disc: it is not written by default."""
    return {value: point for value, point in discs.items() if value in DISC_VALUES}


def _outcomes(
    case: Case, found: dict[int, FloatArray], sure: Sequence[float], scan: Outcome
) -> tuple[Outcome, ...]:
    """Return the outcome of the scan and those of its discs."""
    values, tips = list(case.truth), np.array(list(case.truth.values())).reshape(-1, 3)
    out = [scan]
    for (value, point), certainty in zip(found.items(), sure, strict=True):
        distance = np.linalg.norm(tips - point, axis=1)
        if len(distance) and distance.min() <= LEVEL_RADIUS_MM:
            out.append(Outcome("disc", scan.kind, certainty, values[int(distance.argmin())] == value))
    return tuple(out)


def stress_report(results: Sequence[tuple[str, Result]]) -> str:
    """Return a table with a line per stress: discs and scans with the right level, millimetres."""
    titles = f"{'scans':>5} {'discs right %':>13} {'levels right %':>14} {'mean mm':>8} {'confidence':>10}"
    lines = [f"{'stress':<24} {titles}"]
    for name in dict.fromkeys(name for name, _ in results):
        own = [result for stress, result in results if stress == name]
        errors = np.array([error for result in own for error in result.score.errors_mm])
        right = (errors <= RIGHT_MM).sum() / max(sum(result.score.true_count for result in own), 1)
        levels = np.mean([result.score.levels_right for result in own])
        mean = errors[errors <= RIGHT_MM].mean() if (errors <= RIGHT_MM).any() else np.nan
        confidence = np.mean([result.level_confidence for result in own])
        figures = f"{100 * right:13.1f} {100 * levels:14.1f} {mean:8.2f} {confidence:10.2f}"
        lines.append(f"{name:<24} {len(own):>5} {figures}")
    return "\n".join(lines)


def confidence_report(outcomes: Iterable[Outcome]) -> str:
    """Return a table with a line per kind of view: how sure the labelling was, and how often it was right."""
    outcomes = list(outcomes)
    lines = [f"{'confidence of':<16} {'number':>6} {'mean %':>7} {'right %':>8} {'calibration error %':>20}"]
    for part in ("scan", "disc"):
        for kind in (*KINDS, "all"):
            own = [j for j in outcomes if j.part == part and kind in (j.kind, "all")]
            if own:
                predicted, right = np.array([j.confidence for j in own]), np.array([j.right for j in own])
                gap = calibration_error(predicted, right)
                figures = f"{100 * predicted.mean():7.1f} {100 * right.mean():8.1f} {100 * gap:20.1f}"
                lines.append(f"{f'{part}, {kind}':<16} {len(own):>6} {figures}")
    return "\n".join(lines)


def outcomes_csv(results: Iterable[tuple[str, Result]]) -> str:
    """Return one CSV line per outcome, with the evidence where there is any."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stress", "scan", "part", "kind", "confidence", "right", "marginal", *SIGNALS])
    for stress, result in results:
        for j in result.outcomes:
            row = [stress, result.score.name, j.part, j.kind, f"{j.confidence:.6f}", int(j.right)]
            columns = [
                "" if j.marginal is None else f"{j.marginal:.6f}",
                *(j.evidence.get(s, "") for s in SIGNALS),
            ]
            writer.writerow([*row, *columns])
    return text.getvalue()


def read_outcomes(path: str | Path) -> list[tuple[str, Outcome]]:
    """Read what :func:`outcomes_csv` wrote: the scan's name, and the outcome.

    Raises
    ------
    ImageError
        If it is no such file.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            return [(row["scan"], _outcome(row)) for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise ImageError(f"{path} holds no confidences ({type(error).__name__}: {error})") from error


def _outcome(row: Mapping[str, str]) -> Outcome:
    """Read a line; files of versions before 0.9.0 hold no evidence."""
    return Outcome(
        row["part"],
        row["kind"],
        float(row["confidence"]),
        row["right"] == "1",
        float(row["marginal"]) if row.get("marginal") else None,
        {signal: float(row[signal]) for signal in SIGNALS if row.get(signal)},
    )


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
