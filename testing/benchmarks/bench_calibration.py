"""Whether the confidences hold for a scan that they were not fitted on.

    python testing/benchmarks/bench_calibration.py CSV [CSV ...]

CSV comes from ``sct_deepspine_evaluate -confidences`` with weights whose model card has no calibration. The
correction is fitted to all scans but one and applied to that one, for each scan in turn.
"""

from __future__ import annotations

import argparse

import numpy as np

from sct_deepspine.evaluation.run import confidence_report, read_outcomes
from sct_deepspine.labeling.calibration import Outcome, fit_calibration

SURE, VERY_SURE = 0.8, 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", nargs="+")
    rows = [row for path in parser.parse_args().csv for row in read_outcomes(path)]
    scans = sorted({scan for scan, _ in rows})
    said: list[Outcome] = []
    for held in scans:
        calibration = fit_calibration([outcome for scan, outcome in rows if scan != held])
        for outcome in (outcome for scan, outcome in rows if scan == held):
            correct = calibration.of_scan if outcome.part == "scan" else calibration.of_discs
            told = outcome.confidence if outcome.marginal is None else outcome.marginal
            confidence = float(np.ravel(correct(told, outcome.kind, outcome.evidence))[0])
            said.append(Outcome(outcome.part, outcome.kind, confidence, outcome.right))
    print(confidence_report(said))
    whole = [o for o in said if o.part == "scan"]
    sure = [o.right for o in whole if o.confidence >= VERY_SURE]
    wrong = sum(not o.right and o.confidence > SURE for o in whole)
    print(
        f"views with a confidence of {VERY_SURE} or more: {len(sure)}, right {np.mean(sure):.1%}"
        if sure
        else "none is sure"
    )
    print(f"views wrong with a confidence above {SURE}: {wrong}")


if __name__ == "__main__":
    main()
