"""What every command's help says."""

from argparse import SUPPRESS
from importlib import import_module

import pytest

from sct_deepspine.cli import masks
from sct_deepspine.cli._common import Arguments

COMMANDS = "batch", "bids", "calibrate", "evaluate", "label", "masks", "segment", "train"
PARSERS = [import_module(f"sct_deepspine.cli.{name}").get_parser for name in COMMANDS]
PARSERS += [part.parser for part in masks.SUBCOMMANDS.values()]


@pytest.fixture(params=PARSERS, ids=lambda make: make().parser.prog)
def parser(request) -> Arguments:
    return request.param().parser


def test_each_default_is_said(parser):
    silent = [
        action.option_strings[0]
        for action in parser._actions
        if action.option_strings
        and action.default not in (None, False, SUPPRESS, [], ())
        and "default" not in (action.help or "").lower()
    ]
    assert silent == []


def test_there_is_an_example(parser):
    assert f"Example: {parser.prog.split()[0]} " in parser.description
