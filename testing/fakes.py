"""What the tests share: scans whose grey values are their own truth, and who can read them.

The whole path from image to discs is tested without trained weights. The truth of a phantom is painted
into an image: a dim tube for the canal, a bar across the image for each disc, whose grey value is its level,
and a bright band to measure the others by. A predictor that reads such paint stands in for the network.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.planes import SamplingPlane, sample
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.io.annotations import LabelledScan
from sct_deepspine.labeling.heatmaps import DiscCodec, DiscMaps
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import straighten
from sct_deepspine.sct.registration import BINARIES
from sct_deepspine.segmentation.corridor import POSTERIOR_MM, corridor_along
from sct_deepspine.segmentation.model import SegmentationModel
from sct_deepspine.segmentation.tissues import Tissue

CANAL_GREY, FIRST_GREY, LAST_GREY, BAND_GREY = 0.2, 0.5, 0.9, 1.0
DISC_FROM = 0.45
BAR_RADIUS_MM = 5.0
BAND_MM = 28.0, 38.0
COARSE = DiscCodec(stride=2)


def paint_truth(scan: LabelledScan, *, discs: bool = True, canal: bool = True) -> Volume:
    """Return a volume on the scan's grid that shows its canal and its discs, and nothing else."""
    grid, line = scan.volume.grid, scan.centerline_world
    world = grid.world_from_voxel(np.indices(grid.shape).reshape(3, -1).T)
    x, y, z = world.T.reshape(3, *grid.shape)
    beside, before = (c - np.interp(z, line[:, 2], line[:, axis]) for c, axis in ((x, 0), (y, 1)))
    grey = CANAL_GREY * canal * np.exp(-0.5 * ((beside / 6) ** 2 + (before / 3) ** 2))
    for value, tip in scan.discs.items() if discs else ():
        soft = np.clip((BAR_RADIUS_MM - np.hypot(y - tip[1], z - tip[2])) / 1.5 + 0.5, 0, 1)
        grey = np.maximum(grey, soft * (FIRST_GREY + (LAST_GREY - FIRST_GREY) * (value - 3) / 22))
    grey[(before > BAND_MM[0]) & (before < BAND_MM[1])] = BAND_GREY
    grey += 1e-3 * (z - z.min()) / np.ptp(z)  # a scan has many grey values
    return Volume(grey.astype(np.float32), grid)


@dataclass(frozen=True, eq=False)
class PaintReader:
    """Stands in for a trained network: predicts what :func:`paint_truth` painted.

    ``edit`` may change the maps before they are handed out.
    """

    pixel_mm: float = 2.0
    codec: DiscCodec = COARSE
    edit: Callable[[DiscMaps], DiscMaps] = lambda maps: maps

    def predict(self, planes: Sequence[np.ndarray]) -> list[DiscMaps]:
        """Predict the maps of planes."""
        return [self.edit(self._read(plane)) for plane in planes]

    def attention(self, plane: np.ndarray) -> np.ndarray:
        """Attend to the discs."""
        return self.predict([plane])[0].any_disc

    def _read(self, plane: np.ndarray) -> DiscMaps:
        inside = plane != 0
        grey = np.zeros_like(plane)
        if inside.any():
            low, high = plane[inside].min(), plane[inside].max()
            grey[inside] = (plane[inside] - low) / max(high - low, 1e-6)
        shape = tuple(-(-n // self.codec.stride) for n in plane.shape)
        points = {}
        blobs, count = ndimage.label(grey > DISC_FROM)
        for blob in range(1, count + 1):
            top = grey[blobs == blob].max()
            if top < 0.97 * BAND_GREY:
                level = int(np.clip(round((top - FIRST_GREY) / (LAST_GREY - FIRST_GREY) * 22), 0, 22))
                weight = np.where(ndimage.binary_dilation(blobs == blob), grey, 0)
                points[level + 3] = self.codec.cell_from_pixel(ndimage.center_of_mass(weight))
        tube = np.where(ndimage.binary_dilation(blobs > 0), 0, grey) / CANAL_GREY
        padded = np.pad(tube, [(0, -n % self.codec.stride) for n in plane.shape])
        cells = padded.reshape(shape[0], self.codec.stride, shape[1], self.codec.stride)
        cells_of_map = np.stack(np.indices(shape), axis=-1)
        canal = np.clip(cells.mean(axis=(1, 3)), 0, 1).astype(np.float32)
        return self.codec.maps(*self.codec.encode(points, cells_of_map), canal)


class SctLikeImage:
    """Has what SCT promises of its ``Image``, and nothing else."""

    def __init__(self, data: np.ndarray, affine: np.ndarray, path: str = "/nowhere/t2.nii.gz") -> None:
        self.data = data
        self.hdr = nib.Nifti1Image(data, affine, dtype=data.dtype).header
        self.absolutepath = path

    def copy(self) -> SctLikeImage:
        """Return a deep copy."""
        return copy.deepcopy(self)

    def getNonZeroCoordinates(self) -> list[tuple[int, ...]]:  # noqa: N802 (SCT's name)
        """Return voxel indices and values of what is not zero."""
        return [(*index, self.data[tuple(index)]) for index in np.argwhere(self.data)]

    def save(self, path: str, verbose: int = 1) -> None:
        """Write the image."""
        nib.save(nib.Nifti1Image(self.data, self.hdr.get_best_affine(), self.hdr), path)


def write_scan(scan: LabelledScan, volume: Volume, folder: Path, **card: Any) -> Path:
    """Write a scan with its JSON card as training and evaluation read them; return the image's path."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{scan.name}.nii.gz"
    nib.save(nib.Nifti1Image(volume.data, volume.grid.affine), image)
    whole = {
        "image": image.name,
        "subject": scan.subject,
        "contrast": "T2w",
        "region": "neck",
        "discs": {str(value): tip.tolist() for value, tip in scan.discs.items()},
        "labelled_span_mm": list(scan.span_z_mm),
    } | card
    (folder / f"{scan.name}.json").write_text(json.dumps(whole), encoding="utf-8")
    return image


def fake_model(locate: Any = None, refine: Any = None, **options: Any) -> LabelingModel:
    """Return a model whose networks are given, or read paint."""
    identity = {"name": "fake", "sha256": "0" * 64}
    return LabelingModel(locate or PaintReader(), refine, identity=identity, **options)


class TissueOracle:
    """Stands in for the mask network: knows a phantom's tissues, and which planes it is asked for.

    Planes come from left to right, those outside the image left out. In ``gap_rows`` of them the cord is
    taken for fluid.
    """

    pixel_mm = 1.0
    in_channels = 1

    def __init__(self, scan: LabelledScan, *, gap_rows: slice | None = None) -> None:
        self.scan, self.gap_rows = scan, gap_rows

    def predict(self, planes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predict the tissues of every plane of the corridor that shows something."""
        view = DeobliquedVolume.of(self.scan.volume)
        space = straighten(view, Centerline.from_points(self.scan.centerline_world))
        corridor = corridor_along(space, view.volume.grid, pixel_mm=self.pixel_mm)
        laid = corridor.planes(view.axes)
        read = [sample(view.volume, plane, slab_mm=corridor.plane_step_mm)[1].any() for plane in laid]
        shown = [plane for plane, seen in zip(laid, read, strict=True) if seen]
        assert len(shown) == len(planes)
        return [self._tissues(plane) for plane in shown]

    def _tissues(self, plane: SamplingPlane) -> np.ndarray:
        order = {0: Tissue.OTHER, 1: Tissue.VERTEBRA, 2: Tissue.DISC, 3: Tissue.FLUID, 4: Tissue.CORD}
        voxels = self.scan.tissue.grid.voxel_from_world(plane.points_world.reshape(-1, 3))
        places = np.nan_to_num(voxels, nan=-9.0).T
        maps = np.zeros((len(Tissue), *plane.shape), dtype=np.float32)
        for value, tissue in order.items():
            share = (self.scan.tissue.data == value).astype(np.float32)
            maps[tissue] = ndimage.map_coordinates(share, places, order=1).reshape(plane.shape)
        if self.gap_rows is not None:
            maps[Tissue.FLUID, self.gap_rows] += maps[Tissue.CORD, self.gap_rows]
            maps[Tissue.CORD, self.gap_rows] = 0
        maps[Tissue.OTHER] += 1e-3
        return maps


@dataclass(frozen=True, eq=False)
class TissueBands:
    """Stands in for a trained mask network: the same bands at every height, and painted discs."""

    pixel_mm: float = 1.0
    in_channels: int = 3

    def predict(self, planes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predict the tissues of straight planes, ``(tissues, rows, columns)`` each."""
        return [self._read(plane[self.in_channels // 2]) for plane in planes]

    def _read(self, plane: np.ndarray) -> np.ndarray:
        y = np.broadcast_to(POSTERIOR_MM + self.pixel_mm * (np.arange(plane.shape[1]) + 0.5), plane.shape)
        tissue = np.full(plane.shape, Tissue.OTHER)
        tissue[np.abs(y) < 6], tissue[np.abs(y) < 3] = Tissue.FLUID, Tissue.CORD
        tissue[(y > 6) & (y < 24)] = Tissue.VERTEBRA
        tissue[(y > 6) & (y < 24) & (plane > plane.mean() + plane.std())] = Tissue.DISC
        return (np.arange(len(Tissue))[:, None, None] == tissue).astype(np.float32)


def fake_mask_model(predictor: Any = None, *, sha256: str = "0" * 64, **options: Any) -> SegmentationModel:
    """Return a model of the masks whose network is given, or predicts bands."""
    identity = {"name": "fake", "sha256": sha256}
    return SegmentationModel(predictor or TissueBands(), identity=identity, **options)


SHELL_OF_SCT = """
from sct_deepspine.cli._common import _Twin as SCTArgumentParser

def display_viewer_syntax(*_files, **_options):
    print("view")
"""


def write_empty_sct(folder: Path) -> Path:
    """Write a package like SCT's: a version, and a template and programs that are empty files."""
    package = folder / "spinalcordtoolbox"
    data, programs = folder / "data", folder / "bin"
    files = [package / "__init__.py", package / "utils" / "__init__.py"]
    files += [data / "PAM50" / "template" / name for name in ("info_label.txt", "PAM50_t2.nii.gz")]
    files += [programs / name for name in BINARIES]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    places = {"__version__": "7.0", "__data_dir__": str(data), "__bin_dir__": str(programs)}
    lines = [f"{name} = {value!r}\n" for name, value in places.items()]
    (package / "utils" / "sys.py").write_text("".join(lines), encoding="utf-8")
    (package / "utils" / "shell.py").write_text(SHELL_OF_SCT, encoding="utf-8")
    return folder
