"""A short campaign of each kind; the long one is ``python -m fuzz.campaign``."""

import pytest
from fuzz import campaign


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", campaign.KINDS)
def test_every_generated_input_gets_an_answer_or_one_clear_line(kind):
    answers, failures = campaign.run(25, 10_000, kind=kind)
    assert not failures
    assert sum(answers.values()) == 25
