"""What was found, as lines of text."""

from __future__ import annotations

from sct_deepspine.labels import DiscLabels
from sct_deepspine.segmentation.masks import CANAL_VALUE, CORD_NOTE, CORD_VALUE, SpineMasks

__all__ = ["disc_table", "mask_table"]


def disc_table(labels: DiscLabels) -> str:
    """Return a line for each disc: its value, name, place and confidence."""
    lines = [f"{'value':>5}  {'disc':<9} {'x mm':>8} {'y mm':>8} {'z mm':>8}  {'confidence':>10}"]
    for disc in labels.discs:
        x, y, z = disc.point_world
        note = "  interpolated" if disc.interpolated else ""
        lines.append(
            f"{disc.value:>5}  {disc.name:<9} {x:8.1f} {y:8.1f} {z:8.1f}  {disc.confidence:10.2f}{note}"
        )
    lines.append(
        f"{len(labels.discs)} discs; probability that every level is right: {labels.level_confidence:.2f}"
    )
    return "\n".join(lines)


def mask_table(masks: SpineMasks) -> str:
    """Return a line for each structure: its value, name, volume and the probability of its level."""
    facts = masks.as_dict()
    lines = [f"{'value':>5}  {'structure':<9} {'volume ml':>9}  {'confidence':>10}"]
    for value, name in ((CORD_VALUE, "cord"), (CANAL_VALUE, "canal")):
        lines.append(f"{value:>5}  {name:<9} {facts[f'{name}_mm3'] / 1000:9.2f}")
    for part in masks.structures:
        text = f"{part.value:>5}  {part.name:<9} {part.volume_mm3 / 1000:9.2f}  {part.confidence:10.2f}"
        lines.append(f"{text}  {'unsure' if part.unsure else ''}".rstrip())
    unmeasured = [part.name for part in masks.structures if not part.measured]
    if unmeasured:
        lines.append(f"not compared with true masks: {', '.join(unmeasured)}")
    lines.append(CORD_NOTE)
    return "\n".join(lines)
