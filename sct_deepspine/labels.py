"""Disc values, their names, and the result type."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from sct_deepspine._version import __version__
from sct_deepspine.anatomy import FIRST_VALUE, TEMPLATE_LAST_VALUE, disc_name
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.geometry.spacing import extrapolate_superior
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.files import written_whole
from sct_deepspine.io.images import image_like, is_sct_image

if TYPE_CHECKING:
    from sct_deepspine.labeling.heatmaps import PlanePrediction

__all__ = ["Disc", "DiscLabels"]


@dataclass(frozen=True, eq=False)
class Disc:
    """One disc.

    Parameters
    ----------
    value
        SCT's disc value.
    point_world
        ``(3,)`` posterior tip, world mm.
    confidence
        Probability that a disc is here and bears this value.
    interpolated
        True if the disc was not seen but placed between (or beyond) its neighbours.
    """

    value: int
    point_world: FloatArray
    confidence: float
    interpolated: bool = False

    @property
    def name(self) -> str:
        """Anatomical name, such as ``"C2/C3"``."""
        return disc_name(self.value)


@dataclass(frozen=True, eq=False)
class DiscLabels:
    """The discs of one image.

    Parameters
    ----------
    discs
        From superior to inferior, values without a gap.
    grid
        Grid of the image they were found in.
    level_confidence
        Probability that no disc bears a wrong level.
    weights
        ``name`` and ``sha256`` of the weights used.
    warnings
        Sentences a person should read: odd spacing, uncertain level.
    source
        The image that came in; labels go back to its kind.
    prediction
        What the coarse network saw and predicted, if it was asked for.
    """

    discs: tuple[Disc, ...]
    grid: Grid
    level_confidence: float
    weights: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()
    source: Any = None
    prediction: PlanePrediction | None = None

    @property
    def values(self) -> NDArray[np.int64]:
        """Disc values, ``(K,)``."""
        return np.array([disc.value for disc in self.discs], dtype=np.int64)

    @property
    def points_world(self) -> FloatArray:
        """Posterior tips, ``(K, 3)`` world mm."""
        return np.array([disc.point_world for disc in self.discs], dtype=np.float64).reshape(-1, 3)

    @property
    def points_voxel(self) -> FloatArray:
        """Posterior tips, ``(K, 3)`` continuous voxel indices of the image."""
        return self.grid.voxel_from_world(self.points_world)

    @property
    def confidence(self) -> FloatArray:
        """Confidence of each disc, ``(K,)``."""
        return np.array([disc.confidence for disc in self.discs])

    @property
    def interpolated(self) -> NDArray[np.bool_]:
        """Which discs were placed between their neighbours, ``(K,)``."""
        return np.array([disc.interpolated for disc in self.discs], dtype=bool)

    def of(self, source: Any) -> DiscLabels:
        """Return the same labels as those of another image on the same grid, such as a file's path."""
        return replace(self, source=source)

    def with_upper_discs(self) -> DiscLabels:
        """Return the labels with C1/C2 (2) and the top of C1 (1) added where they lie in the image.

        They are placed by the template's proportions and flagged ``interpolated``; their confidence
        is that of C2/C3. Labels without C2/C3, or with one disc only, come back as they are.
        """
        if len(self.discs) < 2 or self.discs[0].value != 3:
            return self
        values, points, flags = extrapolate_superior(self.points_world, self.values, first=FIRST_VALUE)
        inside = self.grid.contains_voxel(self.grid.voxel_from_world(points))
        added = [
            Disc(int(value), point, self.discs[0].confidence, interpolated=True)
            for value, point, flag, seen in zip(values, points, flags, inside, strict=True)
            if flag and seen
        ]
        return replace(self, discs=(*added, *self.discs))

    def with_tips(self, points_world: Mapping[int, FloatArray]) -> DiscLabels:
        """Return the labels with some discs, by value, put where a person says they are."""
        places = {value: np.asarray(point, dtype=np.float64) for value, point in points_world.items()}
        discs = [
            replace(disc, point_world=places[disc.value], interpolated=False)
            if disc.value in places
            else disc
            for disc in self.discs
        ]
        return replace(self, discs=tuple(discs))

    def without_ends(self, values: Iterable[int]) -> DiscLabels:
        """Return the labels without some discs, by value, at either end; those in between stay."""
        dropped, discs = set(values), list(self.discs)
        while discs and discs[0].value in dropped:
            discs.pop(0)
        while discs and discs[-1].value in dropped:
            discs.pop()
        return replace(self, discs=tuple(discs))

    def for_template(self) -> DiscLabels:
        """Return the labels that SCT's template has, 1 to 21: ``-ldisc`` refuses a file with any other."""
        return replace(self, discs=tuple(disc for disc in self.discs if disc.value <= TEMPLATE_LAST_VALUE))

    def to_array(self) -> NDArray[np.uint8]:
        """Return the label array: one voxel per disc, its value, 0 elsewhere.

        Raises
        ------
        DeepSpineError
            If two discs fall on one voxel: the image is too coarse to hold them apart.
        """
        labels = np.zeros(self.grid.shape, dtype=np.uint8)
        voxels = np.round(self.points_voxel).astype(int)
        upper = np.array(self.grid.shape) - 1
        for disc, index in zip(self.discs, np.clip(voxels, 0, upper), strict=True):
            if labels[tuple(index)]:
                raise DeepSpineError(
                    f"{disc.name} and another disc fall on one voxel; resample the image finer"
                )
            labels[tuple(index)] = disc.value
        return labels

    def to_image(self) -> Any:
        """Return a label image of the kind that came in, in its grid and orientation.

        An SCT ``Image`` for an SCT ``Image``, a nibabel image for a path or a nibabel image,
        ``(array, affine)`` for ``(array, affine)``.
        """
        return image_like(self.source, self.to_array(), self.grid)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the label image, whole or not at all.

        Raises
        ------
        OutputError
            If it can't be written there.
        """
        image = image_like(None, self.to_array(), self.grid) if self._has_no_file_format else self.to_image()
        with written_whole(path) as partial:
            if is_sct_image(image):
                image.save(os.fspath(partial), verbose=0)
            else:
                nib.save(image, partial)

    @property
    def _has_no_file_format(self) -> bool:
        return self.source is None or isinstance(self.source, (tuple, Volume))

    def as_dict(self) -> dict[str, Any]:
        """Return all but the voxels, in JSON's types."""
        rows = [
            {
                "value": disc.value,
                "name": disc.name,
                "world_mm": [round(float(c), 4) for c in disc.point_world],
                "voxel": [round(float(c), 4) for c in voxel],
                "confidence": round(disc.confidence, 4),
                "interpolated": disc.interpolated,
            }
            for disc, voxel in zip(self.discs, self.points_voxel, strict=True)
        ]
        return {
            "image": os.fspath(self.source) if isinstance(self.source, (str, os.PathLike)) else None,
            "discs": rows,
            "level_confidence": round(self.level_confidence, 4),
            "warnings": list(self.warnings),
            "weights": dict(self.weights),
            "version": __version__,
        }

    def to_json(self, **extra: Any) -> str:
        """Return :meth:`as_dict` and further entries as JSON text."""
        return json.dumps(self.as_dict() | extra, indent=2, ensure_ascii=False) + "\n"

    def to_csv(self) -> str:
        """Return one line per disc: value, name, world mm, voxel, confidence, interpolated."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["value", "name", "x_mm", "y_mm", "z_mm", "i", "j", "k", "confidence", "interpolated"]
        )
        for row in self.as_dict()["discs"]:
            place = [*row["world_mm"], *row["voxel"]]
            writer.writerow([row["value"], row["name"], *place, row["confidence"], int(row["interpolated"])])
        return text.getvalue()
