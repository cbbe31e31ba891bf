"""Where the discs of labelled scans are: JSON cards, or the label images of a BIDS dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sct_deepspine.errors import ImageError
from sct_deepspine.io.bids import find_labels, is_bids
from sct_deepspine.labeling.anchors import anchors_from_labels

__all__ = ["label_cards"]

DISC_VALUES = range(1, 26)
SPAN_MARGIN_MM = 6.0
"""Labels of a BIDS dataset are known to be complete to this far beyond the outermost."""

NEEDED = ("image", "subject", "region", "contrast", "discs", "labelled_span_mm")


def label_cards(folder: str | Path) -> list[tuple[Path, dict[str, Any]]]:
    """Read the cards of a folder's labelled scans; JSON files without ``discs`` are passed over.

    The scans of a BIDS dataset get cards made of their label images: the discs between 1 and 25, and
    as span what lies between the outermost of them, since beyond it discs may be visible.

    Returns
    -------
    list
        Path and content of each card, sorted by name; ``image`` is relative to the path's folder.

    Raises
    ------
    ImageError
        If there is none, or one can't be used.
    """
    if is_bids(folder):
        return _bids_cards(Path(folder))
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


def _bids_cards(dataset: Path) -> list[tuple[Path, dict[str, Any]]]:
    cards = []
    for scan, label in find_labels(dataset):
        discs = {value: point for value, point in anchors_from_labels(label).items() if value in DISC_VALUES}
        if len(discs) < 2:
            continue
        heights = [float(point[2]) for point in discs.values()]
        card = {
            "image": scan.path.name,
            "subject": scan.subject,
            "region": "spine",
            "contrast": scan.contrast,
            "discs": {str(value): point.tolist() for value, point in sorted(discs.items())},
            "labelled_span_mm": [min(heights) - SPAN_MARGIN_MM, max(heights) + SPAN_MARGIN_MM],
        }
        cards.append((scan.path.with_name(f"{scan.stem}.json"), card))
    if not cards:
        raise ImageError(
            f"no scan of {dataset} has disc labels (derivatives/labels/**/*_label-discs_dlabel.nii.gz)"
        )
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
