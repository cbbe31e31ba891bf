"""Reading the JSON files that this package writes beside its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["PROGRAM", "read_sidecar", "recorded_files"]

PROGRAM = "sct_deepspine"


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file that this package wrote, else None."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    makers = content.get("GeneratedBy")
    names = [m.get("Name", "") for m in makers if isinstance(m, dict)] if isinstance(makers, list) else []
    return content if any(str(name).startswith(PROGRAM) for name in names) else None


def recorded_files(path: Path) -> dict[str, str]:
    """Return the files that a sidecar records, by their path from its folder, with their SHA-256."""
    files = (read_sidecar(path) or {}).get("files")
    return {str(name): str(digest) for name, digest in files.items()} if isinstance(files, dict) else {}
