"""The masks of one image: what :func:`sct_deepspine.segment_spine` returns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.anatomy import DISC_VALUES, PRESACRAL, vertebra_name
from sct_deepspine.errors import RequestError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.io.images import ImageLike, image_like, save_like
from sct_deepspine.labels import DiscLabels, import_pandas

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["CANAL_VALUE", "CORD_VALUE", "SpineMasks", "Structure", "disc_mask_value", "vertebra_mask_value"]

CORD_VALUE, CANAL_VALUE = 1, 2
"""Of the whole mask, as TotalSpineSeg has them; 2 is what the dural sac holds beside the cord."""

CORD_NOTE = (
    "the cord is for registration and levels; to measure its area, use sct_deepseg spinalcord (by level, "
    "ours was 10 % too small to 11 % too large in one validation scan, and more in others)"
)
"""What people who measure must know: cross-sectional areas against masks drawn by hand, see the docs."""

UNSURE = 0.8
"""A vertebra or disc less certain than this, 0 to 1, is called unsure."""


def vertebra_mask_value(number: int) -> int:
    """Return TotalSpineSeg's value of a vertebra: 11–17 C1–C7, 21–32 T1–T12, 41–45 L1–L5.

    A sixth lumbar vertebra, which it does not have, is 46.

    Examples
    --------
    >>> vertebra_mask_value(1), vertebra_mask_value(8), vertebra_mask_value(24)
    (11, 21, 45)
    """
    if not 1 <= number <= PRESACRAL + 1:
        raise ValueError(f"vertebrae are numbered 1 (C1) to 24 (L5) or 25 (L6), got {number}")
    return number + (10 if number <= 7 else 13 if number <= 19 else 21)


def disc_mask_value(value: int, presacral: int = PRESACRAL) -> int:
    """Return TotalSpineSeg's value of a disc: 63–67 C2/C3–C6/C7, 71–82 C7/T1–T11/T12, 91–95, 100 L5/S1.

    The disc above the sacrum is always 100; L5/L6, which TotalSpineSeg does not have, is 96.

    Examples
    --------
    >>> disc_mask_value(3), disc_mask_value(8), disc_mask_value(20), disc_mask_value(25)
    (63, 71, 91, 100)
    >>> disc_mask_value(25, presacral=25), disc_mask_value(26, presacral=25)
    (96, 100)
    """
    if not 3 <= value <= presacral + 1:
        raise ValueError(f"discs have the values 3 (C2/C3) to {presacral + 1}, got {value}")
    if value == presacral + 1:
        return 100
    return value + (60 if value <= 7 else 63 if value <= 19 else 71)


@dataclass(frozen=True)
class Structure:
    """One vertebra or disc of the masks.

    Parameters
    ----------
    value
        In the whole mask.
    name
        Such as ``"L4"`` or ``"L4/L5"``.
    volume_mm3
        Of its voxels in the image.
    confidence
        Probability that the discs beside it are there and bear their values: the smaller one of the two.
    measured
        Whether masks of this structure were compared with true ones, in T2w images; see the model card.
    """

    value: int
    name: str
    volume_mm3: float
    confidence: float
    measured: bool

    @property
    def unsure(self) -> bool:
        """Whether it should be checked."""
        return self.confidence < UNSURE


@dataclass(frozen=True, eq=False, repr=False)
class SpineMasks:
    """Cord, canal, vertebrae and discs of one image, on its grid.

    Parameters
    ----------
    spine
        ``(I, J, K)``: cord 1, canal 2, vertebrae and discs with TotalSpineSeg's values, 0 elsewhere.
    cord_levels
        ``(I, J, K)``: the cord by vertebral level (C1 is 1), as ``sct_label_vertebrae`` writes it.
    grid
        Grid of the image.
    labels
        The discs that tell the levels.
    measured
        Values of the whole mask that were measured against true masks.
    weights
        ``name`` and ``sha256`` of the weights used.
    warnings
        Sentences a person should read.
    """

    spine: NDArray[np.uint8]
    cord_levels: NDArray[np.uint8]
    grid: Grid
    labels: DiscLabels
    measured: frozenset[int] = frozenset()
    weights: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = [part.name for part in self.structures]
        return f"SpineMasks(cord, canal, {len(names)} vertebrae and discs on {self.grid.shape} voxels)"

    def _repr_html_(self) -> str:
        """Return a picture, a table of the discs and one of the structures, as notebooks show them."""
        return str(import_module("sct_deepspine.reporting.notebook").masks_html(self))

    def to_dataframe(self) -> DataFrame:
        """Return a pandas table of the structures.

        Raises
        ------
        DeepSpineError
            If pandas is not installed.
        """
        return import_pandas().DataFrame([vars(part) for part in self.structures])

    def with_labels(self, labels: DiscLabels) -> SpineMasks:
        """Return the same masks with other labels of the same discs, such as those of a file."""
        return replace(self, labels=labels)

    @property
    def cord(self) -> NDArray[np.uint8]:
        """The spinal cord, 0 and 1."""
        return (self.spine == CORD_VALUE).astype(np.uint8)

    @property
    def cord_image(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]] | None:
        """The spinal cord with its affine, as the registration takes it; None where there is none."""
        cord = self.cord
        return (cord, self.grid.affine) if cord.any() else None

    @property
    def canal(self) -> NDArray[np.uint8]:
        """The dural sac with all it holds (cord, fluid and roots), 0 and 1."""
        return ((self.spine == CORD_VALUE) | (self.spine == CANAL_VALUE)).astype(np.uint8)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """Every vertebra and disc found, by value."""
        counts = np.bincount(self.spine.ravel(), minlength=101) * self._voxel_mm3
        sure = dict(zip(self.labels.values.tolist(), self.labels.confidence.tolist(), strict=True))
        presacral = self.labels.presacral
        found = []
        for number in range(1, presacral + 1):
            value = vertebra_mask_value(number)
            beside = [sure[v] for v in (number, number + 1) if v in sure]
            found.append((value, vertebra_name(number, presacral), beside))
        for disc in self.labels.discs:
            if DISC_VALUES[0] <= disc.value <= presacral + 1:
                found.append((disc_mask_value(disc.value, presacral), disc.name, [disc.confidence]))
        return tuple(
            Structure(value, name, float(counts[value]), min(beside, default=0.0), value in self.measured)
            for value, name, beside in sorted(found)
            if counts[value]
        )

    @property
    def _voxel_mm3(self) -> float:
        return float(abs(np.linalg.det(self.grid.affine[:3, :3])))

    @property
    def parts(self) -> dict[str, NDArray[np.uint8]]:
        """All masks, by what their files' names end with (``spine``, ``seg``, ``canal``, ``seg_labeled``)."""
        return {
            "spine": self.spine,
            "seg": self.cord,
            "canal": self.canal,
            "seg_labeled": self.cord_levels,
        }

    def save(self, path: str | os.PathLike[str], *, part: str = "spine") -> None:
        """Write one of the masks as NIfTI, on the image's grid, whole or not at all.

        Parameters
        ----------
        path
            ``.nii`` or ``.nii.gz``.
        part
            Which one; see :attr:`parts`.

        Raises
        ------
        OutputError
            If it can't be written there.
        RequestError
            If there is no such part.
        """
        if part not in self.parts:
            raise RequestError(f"expected a part of {', '.join(self.parts)}, got {part!r}")
        save_like(self.labels.source, self.parts[part], self.grid, path)

    def to_image(self, data: NDArray[np.uint8] | None = None) -> ImageLike:
        """Return the whole mask, or one of the others, as an image of the kind that came in."""
        return image_like(self.labels.source, self.spine if data is None else data, self.grid)

    def as_dict(self) -> dict[str, Any]:
        """Return what is known of the masks, in JSON's types."""
        unit = self._voxel_mm3
        return {
            "cord_mm3": round(float(self.cord.sum()) * unit, 1),
            "canal_mm3": round(float(self.canal.sum()) * unit, 1),
            "structures": [
                {
                    "value": part.value,
                    "name": part.name,
                    "volume_mm3": round(part.volume_mm3, 1),
                    "confidence": round(part.confidence, 4),
                    "unsure": part.unsure,
                    "measured": part.measured,
                }
                for part in self.structures
            ],
            "cord_note": CORD_NOTE,
            "warnings": list(self.warnings),
            "weights": dict(self.weights),
        }
