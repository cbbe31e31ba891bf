"""What the commands share: their arguments' manner, their exit codes, their messages."""

from __future__ import annotations

import argparse
import codecs
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from sct_deepspine._version import __version__
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.io.files import plain_line

__all__ = [
    "FAILURE",
    "Arguments",
    "about",
    "add_networks",
    "clock",
    "existing_folder",
    "interruption_code",
    "one_matrix_thread",
    "requests_to_stop",
    "run",
]

USAGE_ERROR, FAILURE = 2, 1
"""Exit codes of arguments that can't be understood, and of an error or a scan that failed."""

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after SIGINT and SIGTERM, as a shell gives them."""


PLAIN = {"…": "...", "–": "-", "×": "x", "²": "2", "→": "->", "±": "+/-"}
"""What is printed of our own texts where the console has no such character."""


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """Spell what a console can't show: our own signs in plain ones, those of file names escaped."""
    assert isinstance(error, UnicodeEncodeError)
    spelt = "".join(
        PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode("ascii")
        for c in error.object[error.start : error.end]
    )
    return spelt, error.end


def fit_consoles() -> None:
    """Let printing never fail for a character that the console does not have."""
    codecs.register_error("sct_deepspine.plainly", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="sct_deepspine.plainly")


class Terminated(KeyboardInterrupt):
    """The process was asked to end; raised so that what is under way cleans up after itself."""


def interruption_code(number: int) -> int:
    """Return the exit code after a signal."""
    return TERMINATED if number == signal.SIGTERM else INTERRUPTED


@contextmanager
def requests_to_stop() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM for a loop that asks for them; the second one interrupts at once.

    An exception at any moment could leave something half-written, or be lost in a callback.
    """
    asked: list[int] = []

    def note(number: int, _frame: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise Terminated


class _Twin(argparse.ArgumentParser):
    """What SCT's argument parser promises, where SCT is not installed."""

    def __init__(self, description: str) -> None:
        kind = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, add_help=False, formatter_class=kind)
        self.mandatory_arggroup = self.add_argument_group("MANDATORY ARGUMENTS")
        self.optional_arggroup = self.add_argument_group("OPTIONAL ARGUMENTS")
        self.misc_arggroup = self.add_argument_group("MISC ARGUMENTS")

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong; exit with 2."""
        self.print_usage(sys.stderr)
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message}\n")

    def add_common_args(self) -> None:
        """Add -h and -v."""
        add = self.misc_arggroup.add_argument
        add("-h", "--help", action="help", help="Show this help message and exit.")
        verbosity = (
            "Verbosity. 0: Display only errors/warnings, 1: Errors/warnings + info messages, 2: Debug mode. "
            "Default: 1"
        )
        add("-v", metavar="<int>", type=int, choices=(0, 1, 2), default=1, help=verbosity)


class _PrintCompletion(argparse.Action):
    """Print the completion script of a command and exit."""

    def __call__(self, parser: Any, _namespace: Any, values: Any, _option: str | None = None) -> None:
        """Print it, or say what to install."""
        try:
            import shtab
        except ImportError:
            parser.exit(FAILURE, "ERROR: completion needs shtab: pip install 'sct_deepspine[completion]'\n")
        print(shtab.complete(parser, shell=values))
        parser.exit()


class Arguments:
    """Arguments in SCT's manner: its own parser where SCT is installed, else a twin of it.

    Parameters
    ----------
    program
        Name of the command.
    description
        What it does, in a sentence or two.
    example
        A command line that does it.
    """

    def __init__(self, program: str, description: str, example: str = "") -> None:
        from sct_deepspine.sct.toolbox import argument_parser

        if example:
            description = f"{description.rstrip()}\n\nExample: {example}\n"
        parser: Any = argument_parser(description) or _Twin(description)
        parser.prog, parser.allow_abbrev = program, False
        self.parser = parser
        self.mandatory = parser.mandatory_arggroup
        self.optional = parser.optional_arggroup
        self.misc = parser.misc_arggroup
        parser.add_common_args()
        version = f"%(prog)s {__version__}"
        self.misc.add_argument("-version", "--version", action="version", version=version)
        self.misc.add_argument(
            "--print-completion",
            action=_PrintCompletion,
            choices=("bash", "zsh"),
            help="Print the shell's completion of this command, to be evaluated by it: "
            f'eval "$({program} --print-completion bash)". Needs shtab',
        )

    def group(self, title: str) -> Any:
        """Add a group of options with a title of its own."""
        return self.parser.add_argument_group(title.upper())

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong; exit with 2."""
        self.parser.error(message)
        raise AssertionError("the parser has exited")

    def _short_help(self) -> str:
        """Return what the command does and needs; the options are shown on request."""
        formatter = self.parser.formatter_class(prog=self.parser.prog)
        formatter.add_text(self.parser.description)
        formatter.start_section(self.mandatory.title)
        formatter.add_arguments(self.mandatory._group_actions)
        formatter.end_section()
        formatter.add_text(f"All options: {self.parser.prog} -h")
        return str(formatter.format_help())

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse; without any argument, print a short help on stderr and exit with 2."""
        words = sys.argv[1:] if argv is None else list(argv)
        fit_consoles()
        if not words:
            print(self._short_help(), file=sys.stderr)
            raise SystemExit(USAGE_ERROR)
        try:
            return self.parser.parse_args(words)
        except (SystemExit, BrokenPipeError) as stop:  # the help, which a pipe may not take to its end
            with suppress(BrokenPipeError), _dropped_if_unread():
                sys.stdout.flush()
            if isinstance(stop, BrokenPipeError):  # up to Python 3.10 it is raised here
                raise SystemExit(FAILURE) from stop
            raise


@contextmanager
def _dropped_if_unread() -> Iterator[None]:
    """Print nothing more, not even at the end of the process, when whoever read the output has enough."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def add_networks(parser: Arguments) -> Any:
    """Add the arguments that say which networks are run, and by what; return their group."""
    group = parser.group("networks")
    add = group.add_argument
    add(
        "-weights-discs",
        "-weights",
        dest="weights",
        metavar="FILE",
        help="Weights of the labelling other than the shipped ones (-weights is the old spelling)",
    )
    add(
        "-device",
        metavar="D",
        help="Run the networks with torch on this device: cpu, cuda, cuda:1, … "
        "Default: onnxruntime if it is installed, else torch on the CPU",
    )
    return group


@contextmanager
def about(option: str, given: object, errors: type[DeepSpineError] = DeepSpineError) -> Iterator[None]:
    """Let errors of these kinds say which option they are about, and what was given with it."""
    try:
        yield
    except errors as error:
        named = option if str(given) in str(error) else f"{option} {given}"
        raise type(error)(f"{named}: {error}") from error


@contextmanager
def one_matrix_thread() -> Iterator[None]:
    """Let numpy and scipy, if they are loaded in here, start no threads for matrices; programs run later do.

    Our matrices are small, and OpenBLAS's threads spin for a while when they are started: that costs as much
    as half of the labelling of a neck.
    """
    name = "OPENBLAS_NUM_THREADS"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name, None)


@contextmanager
def clock(text: str, *, shown: bool = True) -> Iterator[None]:
    """Show on a terminal how long something takes, second by second; nothing elsewhere."""
    if not shown or not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    over = threading.Event()
    with tqdm(bar_format="{desc}: {elapsed}", desc=text, leave=False) as bar:

        def tick() -> None:
            while not over.wait(1):
                bar.refresh()

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            over.set()
            ticking.join()


def existing_folder(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def run(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; an error made on purpose becomes one line on stderr and exit code 1."""
    if os.environ.get("SCT_PROGRESS_BAR", "").lower() == "off":
        os.environ["TQDM_DISABLE"] = "1"
    fit_consoles()
    level = (logging.ERROR, logging.WARNING, logging.DEBUG)[arguments.v]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    own = logging.getLogger("sct_deepspine")
    level_before = own.level
    own.setLevel(level)
    in_main = threading.current_thread() is threading.main_thread()  # no other may set a handler
    before = signal.signal(signal.SIGTERM, _terminate) if in_main else None
    try:
        with _dropped_if_unread():
            code = command(arguments)
            sys.stdout.flush()
        return code
    except DeepSpineError as error:
        print(f"ERROR: {plain_line(error)}", file=sys.stderr)
        return FAILURE
    except BrokenPipeError:
        return FAILURE
    except MemoryError:
        print("ERROR: there is not enough memory; crop the image to the spine", file=sys.stderr)
        return FAILURE
    except OSError as error:
        place = f"{error.filename}: " if error.filename and error.strerror else ""
        print(plain_line(f"ERROR: {place}{error.strerror or error}"), file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt as error:
        print("interrupted; nothing half-written was left", file=sys.stderr)
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    finally:
        own.setLevel(level_before)
        if in_main:
            signal.signal(signal.SIGTERM, before)
