"""What each part of the labelling is worth, and what it costs: parts left out one at a time.

    python testing/benchmarks/bench_ablation.py FOLDER [-every N] [-weights FILE [FILE ...]]

FOLDER holds labelled scans. Each is labelled under every stress that has no anchor, by the whole method and
with a part replaced, the shipped networks being the same throughout; or, with ``-weights``, by the whole
method with the networks of each file, named after its folder. ``-every N`` takes every Nth case.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from sct_deepspine import labeling
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.evaluation.landmarks import score_scan
from sct_deepspine.evaluation.run import RIGHT_MM, stress_cases
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling import canal as locate
from sct_deepspine.labeling.levels import Candidates, LevelAssignment
from sct_deepspine.models.predictor import Predictor
from sct_deepspine.models.weights import Weights, load_weights
from sct_deepspine.simulation.perturbations import Case

SEEN = 0.15
"""Height of a level's own heat map from which arg-max takes it for a disc."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("-every", type=int, default=1, metavar="N")
    parser.add_argument("-weights", nargs="+", default=[], metavar="FILE")
    arguments = parser.parse_args()
    logging.disable()
    cases = [case for _, case in stress_cases(arguments.folder) if case.anchor is None][:: arguments.every]
    trained = load_weights()
    ways: dict[str, dict[str, Any]] = {
        "the whole method": {},
        "native plane instead of the straightened": {"straight": "off"},
        "one look: the coarse network alone": {"weights": replace(trained, refine=None)},
        "the canal looked for once": {"find": follow_once},
        "arg-max of each level instead of the assignment": {"read": read_by_maximum},
        "decoding without spacing": {"read": read_without_spacing},
    }
    if arguments.weights:
        ways = {Path(path).parent.name: {"weights": load_weights(path)} for path in arguments.weights}
    print(f"{len(cases)} cases")
    print(f"{'':<46} {'discs right %':>13} {'levels right %':>14} {'mean mm':>8} {'ms':>6}")
    figures(cases[: len(cases) // 4], trained)  # so that the first line is not the one that warms up
    for name, way in ways.items():
        print(f"{name:<46} {figures(cases, trained, **way)}", flush=True)


def figures(
    cases: list[Case],
    trained: Weights,
    *,
    weights: Weights | None = None,
    straight: str = "auto",
    read: Callable[..., LevelAssignment] | None = None,
    find: Callable[..., Centerline] = locate.find_centerline,
) -> str:
    """Return a line of the table."""
    whole, load = labeling._assign_levels, labeling.load_weights
    labeling.find_centerline = find
    labeling.load_weights = lambda *_, **__: weights or trained  # type: ignore[assignment]
    labeling._assign_levels = read or whole
    right = total = levels = 0
    errors: list[float] = []
    spent = 0.0
    try:
        for case in cases:
            started = time.perf_counter()
            try:
                labels = labeling.label_discs(case.image, straight=straight)
                points = apply_affine(case.original_from_perturbed, labels.points_world)
                found = dict(zip(labels.values.tolist(), points, strict=True))
            except DeepSpineError:
                found = {}
            spent += time.perf_counter() - started
            near = [np.linalg.norm(found[v] - p) for v, p in case.truth.items() if v in found]
            errors += [float(e) for e in near if e <= RIGHT_MM]
            right, total = len(errors), total + len(case.truth)
            score = score_scan(case.truth, found, span_z_mm=case.span_z_mm)
            levels += score.levels_right
    finally:
        labeling._assign_levels, labeling.load_weights = whole, load
        labeling.find_centerline = locate.find_centerline
    mean, ms = np.mean(errors), 1e3 * spent / len(cases)
    return f"{100 * right / total:13.1f} {100 * levels / len(cases):14.1f} {mean:8.2f} {ms:6.0f}"


def follow_once(volume: Volume, predictor: Predictor) -> Centerline:
    """Follow the canal through planes across the whole volume only."""
    samplings = locate._sheets_across(volume, predictor.pixel_mm)
    return locate._follow_canal(volume, samplings, predictor, locate._slab_mm(samplings), locate.SHARPNESS)


def read_by_maximum(found: Candidates, _clamped: dict[int, int], _trained: Weights) -> LevelAssignment:
    """Give each level the candidate at which its own heat map is highest."""
    heat = found.score[:, None] * found.level
    columns = np.flatnonzero(heat.max(axis=0, initial=0) > SEEN)
    # One candidate, one level: the one it is surest of.
    best = {int(heat[:, c].argmax()): int(c) for c in sorted(columns, key=lambda c: heat[:, c].max())}
    if not best:
        raise DeepSpineError("nothing seen")
    values, indices = (np.array(x) for x in zip(*sorted((c, k) for k, c in best.items()), strict=True))
    return LevelAssignment(
        indices=indices,
        values=values + found.first_value,
        probabilities=heat[indices, values],
        level_confidence=1.0,
        skipped=(),
        score=0.0,
        evidence=0.0,
        body_factor=1.0,
        runner_up_shift=0,
        runner_up_probability=0.0,
    )


def read_without_spacing(found: Candidates, clamped: dict[int, int], trained: Weights) -> LevelAssignment:
    """Decode with distances that cost nothing."""
    if not len(found.score):
        raise DeepSpineError("nothing seen")
    return labeling.decode(found, anchors=clamped, parameters=replace(trained.decoding, spacing_cap=0.0))


if __name__ == "__main__":
    main()
