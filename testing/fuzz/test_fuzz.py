"""A short campaign; the long one is ``python testing/fuzz/campaign.py 2000``."""

import importlib.util
import sys
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("campaign", Path(__file__).with_name("campaign.py"))
campaign = importlib.util.module_from_spec(SPEC)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("first", range(10_000, 10_060, 20))
def test_every_generated_input_gets_an_answer_or_one_clear_line(first):
    sys.modules[SPEC.name] = campaign  # where its dataclasses look for their module
    SPEC.loader.exec_module(campaign)
    answers, failures = campaign.run(20, first)
    assert not failures
    assert answers["labelled"] >= 3
    assert sum(answers.values()) == 20
