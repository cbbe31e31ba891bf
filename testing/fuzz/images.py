"""Small synthetic necks whose header, voxels or container are changed at random.

What must hold, whatever comes in:

- exit code 0 with labels, or 1 with one line on standard error; no traceback, no hang;
- labels lie inside the image, without a gap, one voxel each, in the grid of the input;
- the JSON's world points are the affine's, and the label image holds them;
- where the change leaves the picture as it is (types, orientation, byte order, scaling), every disc is
  found where it is without the change;
- nothing is left behind but what was asked for.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from fuzz.running import answer_of
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.spatial.transform import Rotation

from sct_deepspine import label_discs
from sct_deepspine.cli.label import main
from sct_deepspine.simulation.phantom import make_phantom

AXES = ("RL", "AP", "SI")
NEAR_MM = 1.0


@dataclass
class Case:
    """One generated input: what was done to the image, where it is, and what is known of the answer."""

    folder: Path
    image: nib.Nifti1Image
    done: list[str] = field(default_factory=list)
    path: Path | None = None
    same_picture: bool = True
    may_fail: bool = False

    def write(self, name: str = "t2.nii.gz") -> None:
        """Write the image unless a change has done so."""
        if self.path is None:
            self.path = self.folder / name
            nib.save(self.image, self.path)


Change = Callable[[np.random.Generator, Case], None]


def _replace(
    case: Case, data: np.ndarray, affine: np.ndarray | None = None, *, kind: type | None = None
) -> None:
    kind = kind or type(case.image)
    case.image = kind(data, case.image.affine if affine is None else affine, dtype=data.dtype)


def _data(case: Case) -> np.ndarray:
    return np.asarray(case.image.dataobj)


def reorient(rng: np.random.Generator, case: Case) -> None:
    """Store the same body in another of the 48 orientations."""
    codes = tuple(AXES[axis][rng.integers(2)] for axis in rng.permutation(3))
    target = ornt_transform(io_orientation(case.image.affine), axcodes2ornt(codes))
    case.image = case.image.as_reoriented(target)
    case.done.append(f"orientation {''.join(codes)}")


def voxel_type(rng: np.random.Generator, case: Case) -> None:
    """Store other types; some can't be worked on."""
    names = ["u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "c8", "c16", "rgb"]
    name = names[rng.integers(len(names))]
    data = _data(case).astype(np.float64)
    if name == "u1":
        data = data / data.max() * 255
        case.same_picture = False
    if name == "rgb":
        rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        _replace(case, np.zeros(data.shape, rgb), kind=nib.Nifti1Image)
        case.may_fail = True
    else:
        _replace(case, data.astype(name))
        case.may_fail |= name.startswith("c")
    case.done.append(f"type {name}")


def turn(rng: np.random.Generator, case: Case) -> None:
    """Tilt, shear or move the affine."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.6, 3)).as_matrix()
    if rng.random() < 0.3:
        affine[:3, :3] += rng.normal(0, 0.1, (3, 3))
    affine[:3, 3] = rng.normal(0, 10.0 ** rng.integers(0, 6), 3)
    _replace(case, _data(case), affine @ case.image.affine)
    case.same_picture, case.may_fail = False, True
    case.done.append("affine turned")


def spacing(rng: np.random.Generator, case: Case) -> None:
    """Claim other voxel sizes, tiny and huge ones among them."""
    factor = 10.0 ** rng.uniform(-4, 3, 3) if rng.random() < 0.5 else np.full(3, 10.0 ** rng.uniform(-3, 2))
    _replace(case, _data(case), case.image.affine @ np.diag([*factor, 1]))
    case.same_picture, case.may_fail = False, True
    case.done.append("spacing × " + ", ".join(f"{f:.2g}" for f in factor))


def bad_affine(rng: np.random.Generator, case: Case) -> None:
    """Make the affine singular, infinite or NaN."""
    affine = np.array(case.image.affine)
    kind = rng.integers(3)
    affine[:, rng.integers(3)] = [0.0, np.nan, np.inf][kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):  # nibabel refuses some itself
            _replace(case, _data(case), affine)
    case.same_picture, case.may_fail = False, True
    case.done.append(("singular", "NaN", "infinite")[kind] + " affine")


def codes(rng: np.random.Generator, case: Case) -> None:
    """Let sform and qform disagree, drop codes, name other units."""
    header = case.image.header
    other = np.array(case.image.affine)
    other[:3, 3] += rng.normal(0, 30, 3)
    sform, qform = (int(rng.integers(0, 5)) for _ in range(2))
    header.set_sform(case.image.affine if rng.random() < 0.5 else other, sform)
    header.set_qform(case.image.affine if rng.random() < 0.5 else other, qform)
    unit = ["unknown", "mm", "meter", "micron"][rng.integers(4)]
    header.set_xyzt_units(unit)
    case.image = type(case.image)(_data(case), None, header)
    case.same_picture, case.may_fail = False, True
    case.done.append(f"codes {sform}, {qform}, unit {unit}")


def scaling(rng: np.random.Generator, case: Case) -> None:
    """Scale grey values in the header."""
    slopes = [2.0, 0.001, -1.0, 0.0, np.nan, np.inf, 1e30]
    slope, inter = slopes[rng.integers(len(slopes))], [0.0, -500.0, np.nan][rng.integers(3)]
    case.write("t2.nii")
    assert case.path is not None
    raw = bytearray(case.path.read_bytes())
    if raw[:4] == (348).to_bytes(4, "little"):
        raw[112:120] = np.array([slope, inter], "<f4").tobytes()
        case.path.write_bytes(raw)
        case.same_picture &= 0 < slope < 1e6 and inter == 0
        case.may_fail |= not case.same_picture
        case.done.append(f"slope {slope}, intercept {inter}")


def shape(rng: np.random.Generator, case: Case) -> None:
    """Cut to thin, flat or single-voxel images, or add axes."""
    data = _data(case)
    kind = int(rng.integers(5))
    if kind == 0:
        data = data[tuple(slice(0, int(rng.integers(1, n + 1))) for n in data.shape)]
    elif kind == 1:
        axis = int(rng.integers(3))
        data = np.take(data, [data.shape[axis] // 2], axis=axis)
    elif kind == 2:
        data = data[:1, :1, :1]
    elif kind == 3:
        data = np.stack([data] * int(rng.integers(1, 4)), axis=-1)
    else:
        data = data[:, :, data.shape[2] // 2]
    _replace(case, data)
    case.same_picture, case.may_fail = False, True
    case.done.append(f"shape {data.shape}")


def voxels(rng: np.random.Generator, case: Case) -> None:
    """Spoil the voxels: constant, NaN, infinite, enormous, noise, negative."""
    data = np.real(_data(case)).astype(np.float32)
    kind = int(rng.integers(6))
    if kind == 0:
        data[...] = rng.integers(0, 2)
    elif kind == 1:
        data[rng.random(data.shape) < 0.001] = [np.nan, np.inf, -np.inf][rng.integers(3)]
    elif kind == 2:
        data *= np.float32(1e35)
    elif kind == 3:
        data = rng.normal(0, 1, data.shape).astype(np.float32)
    elif kind == 4:
        data = -data
    else:
        data *= np.float32(1e-30)
    _replace(case, data)
    case.same_picture, case.may_fail = False, True
    case.done.append(("constant", "not finite", "enormous", "noise", "negative", "minute")[kind] + " voxels")


def container(rng: np.random.Generator, case: Case) -> None:
    """Store the image in another format, byte order, under a wrong or odd name, or behind a link."""
    kind = int(rng.integers(8))
    image = case.image
    if kind == 0 and not isinstance(image, nib.Nifti2Image):
        _replace(case, _data(case), kind=nib.Nifti2Image)
        case.write()
    elif kind == 1 and _data(case).dtype.fields is None:
        swapped = nib.Nifti1Image(_data(case), image.affine, image.header.as_byteswapped(">"))
        case.path = case.folder / "t2.nii"
        nib.save(swapped, case.path)
    elif kind == 2:
        case.path = case.folder / "t2.nii"
        plain = case.folder / "x.nii.gz"
        nib.save(image, plain)
        plain.rename(case.path)
        case.may_fail = True
    elif kind == 3:
        plain = case.folder / "x.nii"
        nib.save(image, plain)
        case.path = case.folder / "t2.nii.gz"
        plain.rename(case.path)
        case.may_fail = True
    elif kind == 4:
        case.path = case.folder / "t2.img"
        data = _data(case)
        fits = data.dtype in [np.dtype(t) for t in ("u1", "i2", "i4", "f4", "f8")]
        nib.save(nib.Spm99AnalyzeImage(data if fits else np.zeros((9, 9, 9), "i2"), image.affine), case.path)
        case.same_picture, case.may_fail = False, True
    elif kind == 5:
        case.path = case.folder / "mein Scan – ü (1).nii.gz"
        nib.save(image, case.path)
    elif kind == 6 and os.name != "nt":  # Windows lets few users make links
        target = case.folder / "real.nii.gz"
        nib.save(image, target)
        case.path = case.folder / "link.nii.gz"
        case.path.symlink_to(target)
    else:
        case.path = case.folder / "t2.txt"
        case.path.write_text("no image", encoding="utf-8")
        case.may_fail, case.same_picture = True, False
    names = "NIfTI-2", "big-endian", "gz without .gz", ".gz without gz", "Analyze", "Unicode", "link", "text"
    case.done.append(names[kind])


def damage(rng: np.random.Generator, case: Case) -> None:
    """Truncate the file, or overwrite bytes of its header or body."""
    case.write("t2.nii" if rng.random() < 0.5 else "t2.nii.gz")
    assert case.path is not None
    raw = bytearray(case.path.read_bytes())
    packed = raw[:2] == b"\x1f\x8b"
    kind = int(rng.integers(3))
    if kind == 0:
        raw = raw[: int(rng.integers(0, len(raw)))]
    elif kind == 1 and not packed:
        for _ in range(int(rng.integers(1, 6))):
            raw[int(rng.integers(0, 352))] = int(rng.integers(256))
    elif kind == 1:
        content = bytearray(gzip.decompress(bytes(raw)))
        for _ in range(int(rng.integers(1, 6))):
            content[int(rng.integers(0, 352))] = int(rng.integers(256))
        raw = bytearray(gzip.compress(bytes(content), 1))
    else:
        for _ in range(int(rng.integers(1, 20))):
            raw[int(rng.integers(len(raw)))] = int(rng.integers(256))
    case.path.write_bytes(raw)
    case.same_picture, case.may_fail = False, True
    case.done.append(("truncated", "header bytes", "bytes anywhere")[kind])


GENTLE: tuple[Change, ...] = (reorient, voxel_type)
HARSH: tuple[Change, ...] = (turn, spacing, bad_affine, codes, shape, voxels)
LAST: tuple[Change, ...] = (scaling, container, damage)


@lru_cache(maxsize=1)
def make_base() -> tuple[nib.Nifti1Image, dict[int, np.ndarray]]:
    """Return the unchanged neck and where its discs are found."""
    scan = make_phantom(np.random.default_rng(11), first=3, last=9, voxel_mm=(4.0, 1.5, 1.5))
    image = nib.Nifti1Image(scan.volume.data, scan.volume.grid.affine)
    labels = label_discs(image)
    return image, dict(zip(labels.values.tolist(), labels.points_world, strict=True))


def plain_case(folder: Path) -> Case:
    """Return a case that nothing was done to yet."""
    base, _ = make_base()
    return Case(folder, nib.Nifti1Image(np.asarray(base.dataobj), base.affine))


def try_image(rng: np.random.Generator, folder: Path) -> str:
    """Change an image at random and label it; return what came of it."""
    case = plain_case(folder)
    for change in GENTLE:
        if rng.random() < 0.5:
            change(rng, case)
    if rng.random() < 0.6 and not any("rgb" in text for text in case.done):
        HARSH[rng.integers(len(HARSH))](rng, case)
    if rng.random() < 0.5:
        LAST[rng.integers(len(LAST))](rng, case)
    case.write()
    return judge(case)


def try_header(rng: np.random.Generator, folder: Path) -> str:
    """Overwrite fields or bytes of a header at random and label the image; return what came of it."""
    case = plain_case(folder)
    kind = nib.Nifti2Image if rng.random() < 0.3 else nib.Nifti1Image
    case.image = kind(case.image.dataobj, case.image.affine)
    case.write("t2.nii")
    assert case.path is not None
    content = bytearray(case.path.read_bytes())
    fields = case.image.header.template_dtype.fields or {}
    for _ in range(int(rng.integers(1, 5))):
        if rng.random() < 0.5:
            where = int(rng.integers(case.image.header.sizeof_hdr + 4))
            content[where] = int(rng.integers(256))
            case.done.append(f"byte {where}")
        else:
            name = str(rng.choice(list(fields)))
            kind_, where = fields[name][:2]
            content[where : where + kind_.itemsize] = _odd_value(rng, kind_)
            case.done.append(name)
    packed = rng.random() < 0.5
    case.path.unlink()
    case.path = folder / ("t2.nii.gz" if packed else "t2.nii")
    case.path.write_bytes(gzip.compress(bytes(content), 1) if packed else bytes(content))
    case.same_picture, case.may_fail = False, True
    return judge(case)


def _odd_value(rng: np.random.Generator, kind: np.dtype[Any]) -> bytes:
    """Return the bytes of a value that a field should not have."""
    base, shape = kind.subdtype or (kind, ())
    if base.kind == "f":
        choice: list[Any] = [0, -1, np.nan, np.inf, -np.inf, 1e-30, np.finfo(base).max, rng.normal(0, 100)]
    elif base.kind in "iu":
        limits = np.iinfo(base)
        choice = [0, 1, limits.max, limits.min, int(rng.integers(0, 128))]
    else:
        return rng.bytes(kind.itemsize)
    values = [choice[rng.integers(len(choice))] for _ in range(int(np.prod(shape)))]
    return np.array(values, base).tobytes()


def judge(case: Case) -> str:
    """Run the command on a case; return what came of it, or raise AssertionError."""
    _, truth = make_base()
    assert case.path is not None
    before = set(case.folder.rglob("*"))
    out = case.folder / "out"
    code, lines = answer_of(main, "-i", case.path, "-ofolder", out, "-v", 0)
    left = set(case.folder.rglob("*")) - before
    if code == 1:
        assert not left, left
        assert case.may_fail, f"a sound image was refused ({'; '.join(case.done)}): {lines[0]}"
        return lines[0].removeprefix("ERROR: ").replace(case.path.name, "FILE")
    assert not lines, lines
    check_labels(case, out, truth)
    return "labelled"


def check_labels(case: Case, out: Path, truth: dict[int, np.ndarray]) -> None:
    """Check what was written against the image's own grid and, if it shows the same, against the truth."""
    (sidecar,) = out.glob("*_discs.json")
    (name,) = out.glob("*_discs.nii.gz")
    image, labels = nib.load(case.path), nib.load(name)
    data = np.asarray(labels.dataobj)
    assert data.dtype == np.uint8
    assert data.shape == image.shape[:3], (data.shape, image.shape)
    np.testing.assert_allclose(labels.affine, image.affine, rtol=1e-5, atol=1e-3)
    discs = json.loads(sidecar.read_text(encoding="utf-8"))["discs"]
    values = [disc["value"] for disc in discs]
    assert values == list(range(values[0], values[0] + len(values))), values
    assert sorted(data[data > 0].tolist()) == values
    for disc in discs:
        voxel = np.array(disc["voxel"])
        world = nib.affines.apply_affine(image.affine, voxel)
        scale = 1e-3 + 2e-4 * np.abs(image.affine).max()
        np.testing.assert_allclose(world, disc["world_mm"], atol=scale)
        index = np.clip(np.round(voxel).astype(int), 0, np.array(data.shape) - 1)
        assert data[tuple(index)] == disc["value"]
    if case.same_picture:
        assert values == list(truth), (values, list(truth))
        for disc in discs:
            assert np.linalg.norm(truth[disc["value"]] - disc["world_mm"]) < NEAR_MM, disc
