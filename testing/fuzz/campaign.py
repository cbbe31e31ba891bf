"""Feed the command generated inputs, sound and broken, and see that each gets an answer or one clear line.

    PYTHONPATH=testing python -m fuzz.campaign 1000 [-first N] [-kind KIND ...]

Input number N of a kind is the same on every machine, and lies in a folder of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzz.datasets import try_dataset, try_jobs, try_mask
from fuzz.edits import try_edit
from fuzz.faults import try_fault
from fuzz.images import try_header, try_image
from fuzz.names import try_names
from fuzz.stale import try_stale

KINDS: dict[str, Callable[[np.random.Generator, Path], str]] = {
    "images": try_image,
    "headers": try_header,
    "names": try_names,
    "faults": try_fault,
    "edits": try_edit,
    "stale": try_stale,
    "datasets": try_dataset,
    "jobs": try_jobs,
    "masks": try_mask,
}
"""What is tried, in a folder, as a generator chooses: returns what came of it, raises if that is wrong."""


def run(count: int, first: int = 0, *, kind: str) -> tuple[Counter[str], list[str]]:
    """Run a number of inputs; return how often each answer came, and what failed."""
    answers: Counter[str] = Counter()
    failures: list[str] = []
    for number in range(first, first + count):
        rng = np.random.default_rng((2024, list(KINDS).index(kind), number))
        with tempfile.TemporaryDirectory() as folder:
            try:
                answer = KINDS[kind](rng, Path(folder)).replace(folder, "")
                answers["".join(c for c in answer if not c.isdigit())[:70]] += 1
            except Exception as error:
                text = " ".join(f"{type(error).__name__}: {error}".split())[:400]
                failures.append(f"{kind} {number}: {text}")
    return answers, failures


def main() -> int:
    """Run the inputs that the command line asks for, by default of every kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("-first", type=int, default=0)
    parser.add_argument("-kind", choices=tuple(KINDS), nargs="+", default=list(KINDS))
    arguments = parser.parse_args()
    failed = 0
    for kind in arguments.kind:
        answers, failures = run(arguments.count, arguments.first, kind=kind)
        for answer, count in answers.most_common(30):
            print(f"{count:6}  {answer}")
        print(f"{kind}: {sum(answers.values())} answered, {len(failures)} failed")
        print(*failures, sep="\n", flush=True)
        failed += len(failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
