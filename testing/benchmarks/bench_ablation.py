"""What each part of the labelling is worth, and what it costs: parts left out one at a time.

    python testing/benchmarks/bench_ablation.py FOLDER [-every N] [-weights FILE [FILE ...]]

FOLDER holds labelled scans. Each is labelled under every perturbation that has no anchor, by the whole method
and with a part replaced, the shipped networks being the same throughout; or, with ``-weights``, by the whole
method with the networks of each file, named after its folder. ``-every N`` takes every Nth case.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sct_deepspine.errors import DeepSpineError
from sct_deepspine.evaluation.run import RIGHT_MM, folder_cases, label_and_score
from sct_deepspine.io.annotations import LabelledScan
from sct_deepspine.labeling.canal import coarse_view, find_centerline_once
from sct_deepspine.labeling.levels import Candidates, LevelAssignment, assign_levels
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.simulation.perturbations import Case

SEEN = 0.15
"""Height of a level's own heat map from which arg-max takes it for a disc."""


def once(view, predictor, *, finder=None):
    """Find the canal by a single look across the volume."""
    finder = finder or predictor
    return find_centerline_once(coarse_view(view, finder), finder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("-every", type=int, default=1, metavar="N")
    parser.add_argument("-weights", nargs="+", default=[], metavar="FILE")
    arguments = parser.parse_args()
    logging.disable()
    cases = [pair for pair in folder_cases(arguments.folder) if pair[1].anchor is None][:: arguments.every]
    model = LabelingModel.load()
    plain = replace(model, minimum_score=-np.inf)
    ways: dict[str, dict[str, Any]] = {
        "the whole method": {},
        "native plane instead of the straightened": {"straight": "off"},
        "one stage: the coarse network alone": {"weights": replace(model, refine=None)},
        "single-pass canal search": {"find_canal": once},
        "no separate canal network": {"weights": replace(model, canal=None)},
        "arg-max of each level instead of the sequence": {"assign": assign_by_maximum, "weights": plain},
        "no spacing prior": {"assign": assign_without_spacing, "weights": plain},
    }
    if arguments.weights:
        ways = {Path(path).parent.name: {"weights": LabelingModel.load(path)} for path in arguments.weights}
    print(f"{len(cases)} cases")
    print(f"{'':<46} {'discs right %':>13} {'levels right %':>14} {'mean mm':>8} {'ms':>6}")
    figures(cases[: len(cases) // 4], {"weights": model})  # so that the first line does not warm up
    for name, way in ways.items():
        print(f"{name:<46} {figures(cases, {'weights': model} | way)}", flush=True)


def figures(cases: list[tuple[LabelledScan, Case]], options: dict[str, Any]) -> str:
    """Return a line of the table."""
    results = [label_and_score(scan, case, **options) for scan, case in cases]
    errors = np.array([error for result in results for error in result.score.errors_mm])
    right, total = errors[errors <= RIGHT_MM], sum(result.score.true_count for result in results)
    levels = np.mean([result.score.levels_right for result in results])
    ms = 1e3 * np.mean([result.seconds for result in results])
    return f"{100 * len(right) / total:13.1f} {100 * levels:14.1f} {right.mean():8.2f} {ms:6.0f}"


def assign_by_maximum(found: Candidates, **_options: Any) -> LevelAssignment:
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


def assign_without_spacing(found: Candidates, *, anchors: Any, parameters: Any) -> LevelAssignment:
    """Assign levels with distances that cost nothing."""
    return assign_levels(found, anchors=anchors, parameters=replace(parameters, spacing_cap=0.0))


if __name__ == "__main__":
    main()
