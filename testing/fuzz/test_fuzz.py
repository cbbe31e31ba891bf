"""A short campaign of each kind; the long one is ``python -m fuzz.campaign``."""

import pytest
from fuzz import campaign

COUNT = 25
LEAST_GOOD = {"images": 5, "headers": 8, "names": 18, "faults": 3, "edits": 15}
"""Inputs of which something must come, not an error."""


def is_good(answer):
    edits = {"nothing", "moved", "removed", "added", "renumbered"}
    return answer == "labelled" or answer.endswith("no harm") or set(answer.split(", ")) <= edits


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", campaign.KINDS)
def test_every_generated_input_gets_an_answer_or_one_clear_line(kind):
    answers, failures = campaign.run(COUNT, 10_000, kind=kind)
    assert not failures
    assert sum(count for answer, count in answers.items() if is_good(answer)) >= LEAST_GOOD[kind], answers
