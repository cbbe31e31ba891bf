"""What systems differ in, as marks for tests; and consoles that are not those the tests run in."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

import pytest

RUN_BATCH = "import sys; from sct_deepspine.cli.batch import main; sys.exit(main())"
"""The command without the script that pip installs, whose name differs."""


def can_link() -> bool:
    """Tell whether this user may make symbolic links."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            Path(folder, "link").symlink_to("file")
        except OSError:
            return False
    return True


posix_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows ends processes; it does not interrupt them"
)
posix_permissions = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
locked_folders = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root and Windows may write to any folder"
)
symbolic_links = pytest.mark.skipif(not can_link(), reason="links need a right that this user does not have")


class Console(io.TextIOWrapper):
    """A stream that takes the characters of one encoding only, as a console does."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)

    @property
    def text(self) -> str:
        """What was written."""
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)
