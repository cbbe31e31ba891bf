"""Counting vertebrae: levels and findings in whole spines with a vertebra more or less, and false alarms.

usage: python testing/benchmarks/bench_counting.py FOLDER [ODD [USUAL]]

FOLDER holds labelled scans. ODD whole spines with an extra or a missing vertebra and USUAL ones without are
composed of them (30 and 30 by default), and labelled in one image and cut into three overlapping series. The
scans themselves are labelled too: none of them has an odd number that is known of.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sct_deepspine.errors import DeepSpineError
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.io.annotations import LabelledScan, read_scans
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import label_discs
from sct_deepspine.labeling.session import label_session
from sct_deepspine.labels import DiscLabels
from sct_deepspine.simulation.composite import make_composite
from sct_deepspine.simulation.sessions import cut_session

PLACES = range(14, 25)
"""Values below which a vertebra is extra or missing."""

NEAR_MM = 10.0
SERIES = 3
FAULTS = {"extra": 25, "missing": 23, "usual": 24}


@dataclass(frozen=True)
class Row:
    """What was found in one spine: counted or not, the finding, and whether the levels are right."""

    kind: str
    number: int | None
    right: bool
    confidence: float

    def __str__(self) -> str:
        number = "not counted" if self.number is None else str(self.number)
        return f"{number} {'right' if self.right else 'WRONG'} at {self.confidence:.2f}"


def is_right(labels: DiscLabels, truth: dict[int, FloatArray]) -> bool:
    """Tell whether every disc near a true point bears its value, and there is one."""
    values, tips = list(truth), np.array(list(truth.values()))
    offsets = []
    for disc in labels.discs:
        distance = np.linalg.norm(tips - disc.point_world, axis=1)
        if distance.min() < NEAR_MM:
            offsets.append(disc.value - values[int(distance.argmin())])
    return bool(offsets) and not any(offsets)


def row(kind: str, labels: DiscLabels, truth: dict[int, FloatArray]) -> Row:
    """Compare labels with the truth."""
    number = labels.count.presacral if labels.count is not None else None
    return Row(kind, number, is_right(labels, truth), labels.level_confidence)


def spines(scans: Sequence[LabelledScan], odd: int, usual: int) -> Iterator[tuple[str, int, LabelledScan]]:
    """Compose spines with an extra or a missing vertebra in turns, then usual ones."""
    rng = np.random.default_rng(0)
    for n in range(odd + usual):
        kind = "usual" if n >= odd else ("extra", "missing")[n % 2]
        place = int(rng.choice(PLACES))
        yield kind, place, make_composite(rng, scans, **({} if kind == "usual" else {kind: place}))


def together(scan: LabelledScan, model: LabelingModel, rng: np.random.Generator) -> list[DiscLabels]:
    """Label a spine cut into overlapping series of other contrasts and resolutions."""
    series = cut_session(scan, rng, count=SERIES)
    return list(label_session([part.image for part in series], weights=model).images)


def summary(title: str, rows: Sequence[Row]) -> None:
    """Print how many were counted, found, and rightly levelled."""
    print(f"\n{title}")
    for kind, number in FAULTS.items():
        own = [r for r in rows if r.kind == kind]
        if not own:
            continue
        counted = [r for r in own if r.number is not None]
        found = sum(r.number == number for r in own)
        right = sum(r.right for r in own)
        wrong = [r.confidence for r in own if not r.right]
        print(
            f"  {kind:<8} {len(own):4d} spines, {len(counted):4d} counted, {found:4d} with the true number, "
            f"levels right {right:4d}, highest confidence of an error {max(wrong, default=0):.2f}"
        )


def real(folder: str, model: LabelingModel) -> list[Row]:
    """Label the scans themselves."""
    rows = []
    for scan in read_scans(folder):
        try:
            rows.append(row("usual", label_discs(scan.volume, weights=model), scan.discs))
        except DeepSpineError as error:
            print(f"  {scan.name}: {error}")
    return rows


def main() -> None:
    """Run the benchmark."""
    folder = sys.argv[1]
    odd, usual = (int(sys.argv[n]) if len(sys.argv) > n else 30 for n in (2, 3))
    scans, model, rng = read_scans(folder), LabelingModel.load(), np.random.default_rng(1)
    alone, cut = [], []
    for kind, place, scan in spines(scans, odd, usual):
        labels = label_discs(scan.volume, weights=model)
        alone.append(row(kind, labels, scan.discs))
        merged = [row(kind, one, scan.discs) for one in together(scan, model, rng)]
        first = merged[0]
        wrong = [one for one in merged if not one.right]
        cut.append(Row(kind, first.number, not wrong, max(one.confidence for one in wrong or merged)))
        print(f"{kind} {place}: {alone[-1]}, in {SERIES} series {cut[-1]}", flush=True)
    summary("one image", alone)
    summary(f"{SERIES} series", cut)
    summary("the scans themselves", real(folder, model))


if __name__ == "__main__":
    main()
