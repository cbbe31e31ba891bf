"""The JSON cards that say where the discs of a scan are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sct_deepspine.errors import ImageError

__all__ = ["label_cards"]

NEEDED = ("image", "subject", "region", "contrast", "discs", "labelled_span_mm")


def label_cards(folder: str | Path) -> list[tuple[Path, dict[str, Any]]]:
    """Read the cards of a folder's labelled scans; JSON files without ``discs`` are passed over.

    Returns
    -------
    list
        Path and content of each card, sorted by name.

    Raises
    ------
    ImageError
        If there is none, or one can't be used.
    """
    cards = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ImageError(f"{path} can't be read as JSON ({' '.join(str(error).split())})") from error
        if isinstance(card, dict) and "discs" in card:
            _check(path, card)
            cards.append((path, card))
    if not cards:
        raise ImageError(f"no labelled scan (NAME.json with 'discs', beside NAME.nii.gz) in {folder}")
    return cards


def _check(path: Path, card: dict[str, Any]) -> None:
    missing = [key for key in NEEDED if key not in card]
    if missing:
        raise ImageError(f"{path} lacks {', '.join(missing)}")
    try:
        shapes = {len([float(c) for c in point]) for value, point in card["discs"].items() if int(value)}
        low, high = (float(z) for z in card["labelled_span_mm"])
    except (AttributeError, TypeError, ValueError) as error:
        raise ImageError(f"{path}: discs must be value -> [x, y, z], labelled_span_mm [low, high]") from error
    if not shapes <= {3} or low > high:
        raise ImageError(f"{path}: discs must be value -> [x, y, z], labelled_span_mm [low, high]")
