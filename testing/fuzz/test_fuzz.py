"""A few inputs of each kind; many with ``pytest -m campaign`` or ``python -m fuzz.campaign``."""

import pytest
from fuzz import campaign

FEW = {"images": 8, "headers": 8, "names": 3, "faults": 2, "edits": 4} | {
    "stale": 6,
    "datasets": 2,
    "jobs": 1,
    "masks": 4,
}
MANY = 25
MIN_GOOD = {"images": 5, "headers": 8, "names": 18, "faults": 3, "edits": 15} | {
    "stale": 2,
    "datasets": 25,
    "jobs": 25,
    "masks": 12,
}
"""Inputs of the many of which something must come, not an error."""


def is_good(answer):
    edits = {"nothing", "moved", "removed", "added", "renumbered"}
    return answer == "labelled" or answer.endswith("no harm") or set(answer.split(", ")) <= edits


def run(count, kind):
    """Return of how many inputs something came; none may fail."""
    answers, failures = campaign.run(count, 10_000, kind=kind)
    assert not failures
    assert sum(answers.values()) == count
    return sum(number for answer, number in answers.items() if is_good(answer))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", campaign.KINDS)
def test_a_generated_input_gets_an_answer_or_one_clear_line(kind):
    assert run(FEW[kind], kind) >= 1


@pytest.mark.campaign
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", campaign.KINDS)
def test_most_generated_inputs_get_an_answer(kind):
    assert run(MANY, kind) >= MIN_GOOD[kind]
