"""What is said of scans on which a labelling goes wrong, and what is found odd in them.

    python testing/benchmarks/bench_doubt.py FOLDER [-hard FOLDER] [-weights FILE] [-o CSV]

FOLDER holds labelled scans, of which the pitfalls of ``sct_deepspine.simulation.pitfalls`` are made; the
scans of the second folder are labelled as they are and under the perturbations of ``sct_deepspine_evaluate``.
A view is right if no disc has the value of another. A confidence above 0.8 is sure.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from sct_deepspine import label_discs
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.evaluation.landmarks import score_scan
from sct_deepspine.io.annotations import LabelledScan, read_scans
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.simulation.perturbations import Case, perturbed
from sct_deepspine.simulation.pitfalls import pitfalls

SURE, VERY_SURE = 0.8, 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("-hard", metavar="FOLDER")
    parser.add_argument("-weights", metavar="FILE")
    parser.add_argument("-o", metavar="CSV")
    arguments = parser.parse_args()
    logging.disable()
    model = LabelingModel.load(arguments.weights)
    rows = [judge(scan, case, model) for scan, case in cases(arguments.folder, arguments.hard)]
    report(rows)
    if arguments.o:
        with Path(arguments.o).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def cases(folder: str, hard: str | None) -> Iterator[tuple[LabelledScan, Case]]:
    """Yield the pitfalls, then the hard scans as they are and changed."""
    for index, scan in enumerate(read_scans(folder)):
        for case in pitfalls(scan, np.random.default_rng((7, index))):
            yield scan, case
    for index, scan in enumerate(read_scans(hard) if hard else ()):
        for case in perturbed(scan, np.random.default_rng((0, index))):
            name = f"hard, {'as it is' if case.perturbation == 'plain' else 'perturbed'}"
            yield scan, Case(name, **{k: v for k, v in vars(case).items() if k != "perturbation"})


def judge(scan: LabelledScan, case: Case, model: LabelingModel) -> dict[str, object]:
    """Label one case; no answer is an answer without confidence."""
    row: dict[str, object] = {"case": case.perturbation, "scan": scan.name, "right": 0, "confidence": 0.0}
    row |= {"view": "", "first": 0, "notes": "", "warnings": "", "error": ""}
    try:
        labels = label_discs(case.image, seg=case.seg, anchor=case.anchor, weights=model)
    except DeepSpineError as error:
        return row | {"error": str(error)}
    points = apply_affine(case.original_from_perturbed, labels.points_world)
    found = dict(zip(labels.values.tolist(), points, strict=True))
    score = score_scan(case.truth, found, span_z_mm=case.span_z_mm)
    return row | {
        "right": int(score.levels_right),
        "confidence": round(labels.level_confidence, 3),
        "view": labels.view,
        "first": labels.discs[0].value,
        "notes": ", ".join(note.kind for note in labels.notes),
        "warnings": " | ".join(labels.warnings),
    }


def report(rows: list[dict[str, object]]) -> None:
    """Print a line per case."""
    titles = f"{'views':>5} {'refused':>7} {'right':>5} {'wrong, sure':>11} {'highest wrong':>13}"
    titles += f" {'right ≥ 0.9':>11}"
    print(f"{'case':<28} {titles}  notes")
    for name in [*dict.fromkeys(row["case"] for row in rows), "all"]:
        own = [row for row in rows if name in (row["case"], "all")]
        right = [row["confidence"] for row in own if row["right"]]
        wrong = [row["confidence"] for row in own if not row["right"] and not row["error"]]
        notes = Counter(kind for row in own for kind in str(row["notes"]).split(", ") if kind)
        highest = f"{max(wrong):13.2f}" if wrong else f"{'-':>13}"
        figures = (
            f"{len(own):>5} {sum(bool(row['error']) for row in own):>7} {len(right):>5} "
            f"{sum(c > SURE for c in wrong):>11} {highest} {sum(c >= VERY_SURE for c in right):>11}"
        )
        print(f"{name:<28} {figures}  {', '.join(f'{kind} {n}' for kind, n in notes.items())}")


if __name__ == "__main__":
    main()
