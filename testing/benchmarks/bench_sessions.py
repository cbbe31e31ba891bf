"""Sessions against their series alone: levels, confidence, moved series, strangers, and time.

usage: python testing/benchmarks/bench_sessions.py FOLDER [COMPOSITES [REPEATS]]

FOLDER holds labelled scans. Each scan, and each whole spine composed of them, is cut into overlapping series
of other contrasts and resolutions. They are labelled alone and together, as they are and with one series
moved along the spine. Then series of two subjects are laid over each other, a level on the same level.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from sct_deepspine.errors import DeepSpineError
from sct_deepspine.io.annotations import LabelledScan, read_scans
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import label_discs
from sct_deepspine.labeling.session import label_session
from sct_deepspine.labels import DiscLabels
from sct_deepspine.simulation.composite import can_compose, make_composite
from sct_deepspine.simulation.sessions import Series, cut_session, shifted_series

SHIFTS_MM = 0.0, 5.0, 10.0, 8.0, -8.0, 14.0, -14.0
NEAR_MM = 15.0
SURE, WRONG = 0.9, 0.8


def is_right(labels: DiscLabels | None, series: Series) -> bool:
    """Tell whether every disc found at a true one bears its value, and there is one."""
    values, tips = list(series.truth), np.array(list(series.truth.values()))
    offsets = []
    for disc in labels.discs if labels is not None else ():
        distance = np.linalg.norm(tips - disc.point_world, axis=1)
        if distance.min() < NEAR_MM:
            offsets.append(disc.value - values[int(distance.argmin())])
    return bool(offsets) and not any(offsets)


def error_mm(labels: DiscLabels, series: Series) -> list[float]:
    """Return how far discs lie from the true ones of the same value."""
    return [
        float(np.linalg.norm(disc.point_world - series.truth[disc.value]))
        for disc in labels.discs
        if disc.value in series.truth
    ]


def alone(series: Series, model: LabelingModel) -> DiscLabels | None:
    """Label a series by itself."""
    try:
        return label_discs(series.image, weights=model)
    except DeepSpineError:
        return None


def sessions(scans: Sequence[LabelledScan], repeats: int, shift_mm: float) -> Iterator[list[Series]]:
    """Cut every scan, as often as is asked for, always in the same way."""
    for index, scan in enumerate(scans):
        for repeat in range(repeats):
            rng = np.random.default_rng((index, repeat))
            count = 3 if len(scan.discs) > 14 else 2
            try:
                yield cut_session(scan, rng, count=count, shift_mm=(0, 0, shift_mm))
            except ValueError:
                continue


def line(title: str, found: Sequence[tuple[DiscLabels | None, Series]]) -> str:
    """Return a line of the table."""
    right = [is_right(labels, series) for labels, series in found]
    said = [labels.level_confidence if labels is not None else 0.0 for labels, _ in found]
    sure = sum(ok and p >= SURE for ok, p in zip(right, said, strict=True))
    wrong = sum(not ok and p > WRONG for ok, p in zip(right, said, strict=True))
    errors = [e for labels, series in found if labels is not None for e in error_mm(labels, series)]
    return f"{title:<26} {len(found):>6} {sum(right):>6} {sure:>12} {wrong:>14} {np.median(errors):>9.2f}"


def strangers(scans: Sequence[LabelledScan], model: LabelingModel) -> None:
    """Label series of two subjects together, a level laid over the same level, or a stretch lower."""
    taken, pairs, worse = 0, 0, 0
    cut = [(scan.subject, series[0]) for scan, series in zip(scans, _first(scans), strict=True) if series]
    rng = np.random.default_rng(0)
    for (one, a), (other, b) in permutations(cut, 2):
        common = sorted(set(a.truth) & set(b.truth))
        if one == other or len(common) < 2 or rng.random() > 0.5:
            continue
        value = common[len(common) // 2]
        moved = shifted_series(b, a.truth[value] - b.truth[value] + rng.normal(0, (3, 3, 5)))
        labels = label_session([a.image, moved.image], weights=model)
        before = [is_right(alone(series, model), series) for series in (a, moved)]
        after = [is_right(found, series) for found, series in zip(labels.images, (a, moved), strict=True)]
        pairs += 1
        taken += len(labels.groups) == 1
        worse += sum(x and not y for x, y in zip(before, after, strict=True))
    print(f"\npairs of two subjects: {pairs}, labelled as one: {taken}, series made worse: {worse}")


def _first(scans: Sequence[LabelledScan]) -> Iterator[list[Series]]:
    for index, scan in enumerate(scans):
        try:
            yield cut_session(scan, np.random.default_rng((index, 0)))
        except ValueError:
            yield []


def main() -> None:
    """Print the tables."""
    folder, *numbers = sys.argv[1:]
    composites, repeats = (int(n) for n in [*numbers, "6", "2"][:2])
    model = LabelingModel.load()
    scans = [scan for scan in read_scans(folder) if len(scan.discs) >= 6]
    if can_compose(scans):
        for n in range(composites):
            name = f"composite {n + 1}"
            made = make_composite(np.random.default_rng((7, n)), scans)
            scans.append(replace(made, name=name, subject=name))
    titles = f"{'right':>6} {'right at 0.9':>12} {'wrong over 0.8':>14} {'median mm':>9}"
    print(f"{'series':<26} {'number':>6} {titles}")
    times = np.zeros(2)
    for shift in SHIFTS_MM:
        single, joint = [], []
        for session in sessions(scans, repeats, shift):
            if shift == 0:
                started = time.perf_counter()
                single += [(alone(series, model), series) for series in session]
                times[0] += time.perf_counter() - started
            started = time.perf_counter()
            labels = label_session([series.image for series in session], weights=model)
            times[1] += time.perf_counter() - started if shift == 0 else 0
            joint += list(zip(labels.images, session, strict=True))
        if single:
            print(line("alone", single))
        print(line(f"together, one moved {shift:+.0f} mm", joint), flush=True)
    print(f"\ntime together: {times[1] / times[0]:.2f} times that of the series alone ({times[0]:.1f} s)")
    strangers(scans, model)


if __name__ == "__main__":
    main()
