"""What the commands share: their arguments' manner, their exit codes, their messages."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

__all__ = ["Arguments", "add_device", "run"]

USAGE_ERROR, FAILURE, INTERRUPTED = 2, 1, 130


class Arguments(argparse.ArgumentParser):
    """Arguments in SCT's manner: groups, single-dash names, help on stderr when there are none.

    Parameters
    ----------
    program
        Name of the command.
    description
        What it does, in a sentence or two.
    """

    def __init__(self, program: str, description: str) -> None:
        super().__init__(
            prog=program,
            description=description,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.mandatory = self.add_argument_group("MANDATORY ARGUMENTS")
        self.optional = self.add_argument_group("OPTIONAL ARGUMENTS")
        self.misc = self.add_argument_group("MISC ARGUMENTS")
        self.misc.add_argument("-h", "-help", "--help", action="help", help="Show this help message and exit")
        self.misc.add_argument(
            "-v",
            type=int,
            choices=(0, 1, 2),
            default=1,
            help="Verbosity: 0 only errors, 1 results, 2 details",
        )

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse; without any argument, print the help on stderr and exit with 2."""
        words = sys.argv[1:] if argv is None else list(argv)
        if not words:
            self.print_help(sys.stderr)
            raise SystemExit(USAGE_ERROR)
        return self.parse_args(words)


def add_device(parser: Arguments) -> None:
    """Add the argument that says what runs the networks."""
    parser.optional.add_argument(
        "-device",
        metavar="D",
        help="Let torch run the networks there: cpu, cuda, cuda:1, … "
        "Default: onnxruntime if it is installed, else torch on the CPU",
    )


def run(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; an error made on purpose becomes one line on stderr and exit code 1."""
    from sct_deepspine.errors import DeepSpineError

    if os.environ.get("SCT_PROGRESS_BAR", "").lower() == "off":
        os.environ["TQDM_DISABLE"] = "1"
    level = (logging.ERROR, logging.WARNING, logging.DEBUG)[arguments.v]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("sct_deepspine").setLevel(level)
    try:
        return command(arguments)
    except DeepSpineError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
