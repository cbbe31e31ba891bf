"""Run a command in this process and see that its answer is one that a person can use."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Sequence

SLOWEST_SECONDS = 30.0


def answer_of(main: Callable[[Sequence[str]], int], *words: object) -> tuple[int, list[str]]:
    """Run a command; return its exit code, 0 or 1, and the lines on standard error.

    Raises
    ------
    AssertionError
        If it was slow, warned about numbers, ended otherwise, or failed with anything but one clear line.
    """
    stdout, stderr = io.StringIO(), io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        code = main([str(word) for word in words])
    assert time.process_time() - started < SLOWEST_SECONDS, "too slow"
    lines = stderr.getvalue().splitlines()
    assert code in (0, 1), code
    assert not any("Traceback" in line or "unexpected" in line for line in lines), lines
    if code == 1:
        assert all(line.startswith("FAILED ") for line in lines) or len(lines) == 1, lines
        assert lines[0].startswith(("ERROR: ", "FAILED ")), lines
    return code, lines
