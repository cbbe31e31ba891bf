"""Refuse a tag that is not the version, or a version without a dated entry in CHANGES.md.

python .github/check_release.py v0.9.0
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """Return what stands in the way of releasing this tag."""
    version = runpy.run_path(str(root / "sct_deepspine" / "_version.py"))["__version__"]
    found = [] if tag == f"v{version}" else [f"the tag is {tag}, the version {version}"]
    changes = (root / "CHANGES.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changes, re.M):
        found.append(f"CHANGES.md has no dated entry of {version}")
    if f"\nversion: {version}\n" not in (root / "CITATION.cff").read_text(encoding="utf-8"):
        found.append(f"CITATION.cff is not of {version}")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(problems(sys.argv[1])) or 0)
