"""Labelled scans: annotations by a person, from JSON files or the label images of a BIDS dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from sct_deepspine.anatomy import CANAL_BEHIND_TIP_MM, DISC_VALUES, LANDMARK_VALUES
from sct_deepspine.errors import DatasetError, DeepSpineError
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.io.bids import find_labels, is_bids
from sct_deepspine.io.disc_labels import read_disc_labels, unique_points
from sct_deepspine.io.images import read_mask, read_volume

__all__ = [
    "CANAL_TISSUE",
    "CORD_TISSUE",
    "DISC_TISSUE",
    "UNKNOWN_TISSUE",
    "VERTEBRA_TISSUE",
    "Annotation",
    "LabelledScan",
    "canal_points",
    "read_annotations",
    "read_scans",
    "slice_centres",
]

VERTEBRA_TISSUE, DISC_TISSUE, CANAL_TISSUE, CORD_TISSUE = 1, 2, 3, 4
"""Values of a tissue mask. Where no voxel is cord, the canal holds it."""

UNKNOWN_TISSUE = 255
"""Where a tissue mask says nothing."""

SPAN_MARGIN_MM = 6.0
"""Labels of a BIDS dataset are known to be complete to this far beyond the outermost."""

REQUIRED = ("image", "subject", "region", "contrast", "discs", "labelled_span_mm")
LATERAL_SMOOTHING_SLICES = 6
"""Standard deviation of the Gaussian that smooths the lateral course of the canal, points of its line."""

CANAL_REACH_MM = 20.0
"""Where no canal is given, it is assumed to reach this far beyond the outermost labels, along z."""


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """One scan with its truth.

    Parameters
    ----------
    name
        For tables and messages.
    subject
        Whose scan it is; sets are split by subject.
    region, contrast
        For tables, and for sampling evenly.
    volume
        The scan.
    discs
        Disc value → ``(3,)`` posterior tip, world.
    span_z_mm
        World z between which every visible disc is labelled.
    landmarks
        Value → ``(3,)`` world of what is no disc but tells the level: the tip (1) and the base (2) of the
        dens, and S1/S2 (26).
    unnamed
        ``(N, 3)`` tips of discs of which no one can tell the value, world.
    centerline_world
        ``(N, 3)`` cord or canal centres, one per slice, z ascending, or None.
    tissue
        Tissue mask, or None.
    bodies
        Mask of vertebral bodies, numbered as SCT numbers vertebrae (C1 is 1), or None.
    cord, canal
        Masks of the cord, complete between its ends, and of the dural sac with all that is in it, or None.
    """

    name: str
    subject: str
    region: str
    contrast: str
    volume: Volume
    discs: Mapping[int, FloatArray]
    span_z_mm: tuple[float, float]
    landmarks: Mapping[int, FloatArray] = field(default_factory=dict)
    unnamed: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    centerline_world: FloatArray | None = None
    tissue: Volume | None = None
    bodies: Volume | None = None
    cord: Volume | None = None
    canal: Volume | None = None

    @property
    def levels(self) -> dict[int, FloatArray]:
        """Discs and landmarks together."""
        return {**self.discs, **self.landmarks}

    @property
    def group(self) -> str:
        """Region and contrast."""
        return f"{self.region.split(' (')[0]} {self.contrast}"

    def lateral_mm(self, z_mm: FloatArray) -> FloatArray:
        """World x of the spine's middle at world z."""
        if self.centerline_world is not None:
            line = self.centerline_world
            smooth = gaussian_filter1d(line[:, 0], LATERAL_SMOOTHING_SLICES, mode="nearest")
            return np.interp(z_mm, line[:, 2], smooth)
        if not self.discs:
            return np.full_like(z_mm, self.volume.grid.corners_world()[:, 0].mean())
        points = np.array(list(self.levels.values()))
        low, high = points[:, 2].min(), points[:, 2].max()
        parabola = np.polynomial.Polynomial.fit(points[:, 2], points[:, 0], min(2, len(points) - 1))
        return parabola(np.clip(z_mm, low, high))

    def deobliqued(self) -> LabelledScan:
        """Return the scan in the frame in which its sagittal slices lie along the axes, as for labelling."""
        view = DeobliquedVolume.of(self.volume)
        to_frame, middle = view.deobliqued_from_world, view.volume.grid.middle_world
        line = self.centerline_world
        return replace(
            self,
            volume=view.volume.transformed(to_frame),
            discs={value: apply_affine(to_frame, tip) for value, tip in self.discs.items()},
            landmarks={value: apply_affine(to_frame, tip) for value, tip in self.landmarks.items()},
            unnamed=apply_affine(to_frame, self.unnamed),
            # The heights of a span are measured at the middle of the image.
            span_z_mm=tuple(  # type: ignore[arg-type]
                float(apply_affine(to_frame, [middle[0], middle[1], z])[2]) if np.isfinite(z) else z
                for z in self.span_z_mm
            ),
            centerline_world=None if line is None else apply_affine(to_frame, line),
            tissue=_carried(self.tissue, to_frame),
            bodies=_carried(self.bodies, to_frame),
            cord=_carried(self.cord, to_frame),
            canal=_carried(self.canal, to_frame),
        )

    @property
    def has_masks(self) -> bool:
        """Whether any mask is there."""
        return any(mask is not None for mask in (self.tissue, self.bodies, self.cord, self.canal))


def _carried(mask: Volume | None, affine: FloatArray) -> Volume | None:
    return None if mask is None else mask.as_ras().transformed(affine)


@dataclass(frozen=True)
class Annotation:
    """What is known of a scan, before a voxel is read.

    Parameters
    ----------
    path
        The image.
    values
        The content of the JSON file; see :func:`read_annotations`.
    """

    path: Path
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the image file."""
        return self.path.name

    @property
    def subject(self) -> str:
        """Whose scan it is."""
        return str(self.values["subject"])

    @property
    def region(self) -> str:
        """Part of the spine."""
        return str(self.values["region"])

    @property
    def contrast(self) -> str:
        """MR contrast."""
        return str(self.values["contrast"])

    @property
    def span_z_mm(self) -> tuple[float, float]:
        """World z between which every visible disc is labelled."""
        low, high = self.values["labelled_span_mm"]
        return float(low), float(high)

    def points(self, key: str = "discs") -> dict[int, FloatArray]:
        """Return the points of an entry, value → ``(3,)`` world."""
        entry = self.values.get(key, {})
        return {int(value): np.array(point, dtype=np.float64) for value, point in entry.items()}

    def read(self) -> LabelledScan:
        """Read the scan and its masks.

        Raises
        ------
        ImageError
            If an image can't be read.
        """
        folder, values = self.path.parent, self.values
        tissue, bodies = (
            read_volume(folder / values[key]) if key in values else None
            for key in ("tissue_seg", "vertebra_seg")
        )
        cord, canal = (
            read_mask(folder / values[key]) if key in values else None for key in ("cord_seg", "canal_seg")
        )
        inner = None
        if tissue is not None:
            inner = Volume(np.isin(tissue.data, (CANAL_TISSUE, CORD_TISSUE)), tissue.grid)
        lines = [slice_centres(mask) for mask in (cord, canal, inner) if mask is not None and mask.data.any()]
        return LabelledScan(
            name=self.name,
            subject=self.subject,
            region=self.region,
            contrast=self.contrast,
            volume=read_volume(self.path),
            discs=self.points(),
            span_z_mm=self.span_z_mm,
            landmarks=self.points("landmarks"),
            centerline_world=max(lines, key=len, default=None),
            tissue=tissue,
            bodies=bodies,
            cord=cord,
            canal=canal,
        )


def read_scans(folder: str | Path) -> list[LabelledScan]:
    """Read every labelled scan of a folder; see :func:`read_annotations`.

    Raises
    ------
    ImageError
        If the folder holds no labelled scan, or one can't be read.
    """
    return [annotation.read() for annotation in read_annotations(folder)]


def read_annotations(folder: str | Path) -> list[Annotation]:
    """Find the labelled scans of a folder; JSON files without ``discs`` are passed over.

    ``NAME.json`` holds ``image``, ``subject``, ``region``, ``contrast``, ``discs`` (value → world mm),
    ``labelled_span_mm`` (world z); it may hold ``landmarks`` and the names of masks: ``cord_seg``,
    ``canal_seg``, ``tissue_seg``, ``vertebra_seg``.
    In a BIDS dataset the label images say where the discs are, and the span is what lies between the
    outermost of them, since beyond it discs may be visible.

    Returns
    -------
    list
        Sorted by name.

    Raises
    ------
    DatasetError
        If there is none, or one can't be used.
    """
    if is_bids(folder):
        return _bids_annotations(Path(folder))
    annotations = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} can't be read as JSON ({' '.join(str(error).split())})") from error
        if isinstance(values, dict) and "discs" in values:
            _check(path, values)
            annotations.append(Annotation(path.parent / values["image"], values))
    if not annotations:
        raise DatasetError(f"no labelled scan (NAME.json with 'discs', beside NAME.nii.gz) in {folder}")
    return annotations


def _bids_annotations(dataset: Path) -> list[Annotation]:
    annotations = []
    for scan, label in find_labels(dataset):
        try:
            centres = unique_points(read_disc_labels(label).points)
        except DeepSpineError as error:
            raise DatasetError(f"{label}: {error}") from error
        discs = {v: p for v, p in centres.items() if v in DISC_VALUES or v in LANDMARK_VALUES[:2]}
        if len(discs) < 2:
            continue
        heights = [float(point[2]) for point in discs.values()]
        values = {
            "subject": scan.subject,
            "region": "spine",
            "contrast": scan.contrast,
            "discs": {str(value): point.tolist() for value, point in sorted(discs.items())},
            "labelled_span_mm": [min(heights) - SPAN_MARGIN_MM, max(heights) + SPAN_MARGIN_MM],
        }
        annotations.append(Annotation(scan.path, values))
    if not annotations:
        raise DatasetError(
            f"no scan of {dataset} has disc labels (derivatives/labels/**/*_label-discs_dlabel.nii.gz)"
        )
    return annotations


def _check(path: Path, values: dict[str, Any]) -> None:
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise DatasetError(f"{path} lacks {', '.join(missing)}")
    form = "discs and landmarks must be value -> [x, y, z], labelled_span_mm [low, high]"
    try:
        points = [*values["discs"].items(), *values.get("landmarks", {}).items()]
        shapes = {len([float(c) for c in point]) for value, point in points if int(value)}
        low, high = (float(z) for z in values["labelled_span_mm"])
    except (AttributeError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: {form}") from error
    if not shapes <= {3} or low > high:
        raise DatasetError(f"{path}: {form}")


def slice_centres(mask: Volume) -> FloatArray:
    """Return the centre of mass of each axial slice of a mask, ``(N, 3)`` world, z ascending."""
    ras = mask.as_ras()
    inside = np.argwhere(ras.data)
    _, index = np.unique(inside[:, 2], return_inverse=True)
    count = np.bincount(index)
    centres = np.stack([np.bincount(index, inside[:, axis]) / count for axis in range(3)], axis=1)
    world = ras.grid.world_from_voxel(centres)
    return world[np.argsort(world[:, 2])]


def canal_points(scan: LabelledScan) -> FloatArray:
    """Return points along the canal, ``(N, 3)``; from the tips where there is no mask."""
    if scan.centerline_world is not None:
        return scan.centerline_world
    tips = np.array(list(scan.levels.values()))
    tips = tips[np.argsort(tips[:, 2])]
    z = np.arange(tips[0, 2] - CANAL_REACH_MM, tips[-1, 2] + CANAL_REACH_MM, 2.0)
    tips_y = CubicSpline(tips[:, 2], tips[:, 1], bc_type="natural")(np.clip(z, tips[0, 2], tips[-1, 2]))
    return np.stack([scan.lateral_mm(z), tips_y - CANAL_BEHIND_TIP_MM, z], axis=1)
