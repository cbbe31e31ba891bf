import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def test_the_pages_are_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "_generated"))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", tmp_path / "docs", tmp_path / "html"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "MANDATORY ARGUMENTS" in (tmp_path / "html" / "cli.html").read_text(encoding="utf-8")
