"""Labels that were written, edited at random as a person edits them, and given back."""

from __future__ import annotations

import csv
import json
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from fuzz.faults import contents
from fuzz.images import make_base
from fuzz.running import answer_of

from sct_deepspine.anatomy import FIRST_VALUE, LAST_VALUE
from sct_deepspine.cli.label import main

Points = dict[int, np.ndarray]

PRODUCTS = "-csv", 1, "-slicer", 1
WRITTEN_MM = 1e-3
"""Files round less than this."""


@lru_cache(maxsize=1)
def written() -> dict[str, bytes]:
    """Return the files that the command writes for the unchanged neck, and its image."""
    from tempfile import TemporaryDirectory

    image, _ = make_base()
    with TemporaryDirectory() as folder:
        scan = Path(folder, "t2.nii.gz")
        nib.save(image, scan)
        assert answer_of(main, "-i", scan, "-ofolder", folder, "-v", 0, *PRODUCTS) == (0, [])
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def try_edit(rng: np.random.Generator, folder: Path) -> str:
    """Edit labels in one of their files and give them back; return what came of it."""
    for name, content in written().items():
        (folder / name).write_bytes(content)
    name = ("t2_discs.nii.gz", "t2_discs.csv", "t2_discs.mrk.json")[rng.integers(3)]
    read, write = {
        "gz": (_from_image, _to_image),
        "csv": (_from_csv, _to_csv),
        "json": (_from_markups, _to_markups),
    }[name.rsplit(".", 1)[1]]
    file, label = folder / name, ("-i", folder / "t2.nii.gz", "-v", 0)
    points = read(file)
    grid = nib.load(folder / "t2.nii.gz")
    edited, done, is_clear = _edited(rng, points, grid)
    write(file, edited)
    if rng.random() < 0.3 and file.read_bytes() != written()[name]:
        before = contents(folder)
        code, lines = answer_of(main, *label, "-ofolder", folder, *PRODUCTS)
        assert code == 1, "an edited file was replaced without a word"
        assert "edited since" in lines[0], lines
        assert contents(folder) == before
    out = folder / "out"
    code, lines = answer_of(main, *label, "-initlabel", file, "-ofolder", out)
    if code == 1:
        assert not is_clear, (done, lines)
        assert not out.exists()
        return lines[0].split(": ")[-1]
    assert is_clear, f"{done}: taken for {sorted(edited)}"
    discs = json.loads((out / "t2_discs.json").read_text(encoding="utf-8"))["discs"]
    after = {disc["value"]: np.array(disc["world_mm"]) for disc in discs}
    assert after.keys() == edited.keys(), (done, sorted(after), sorted(edited))
    automatic = json.loads(written()["t2_discs.json"])["discs"]
    places = [np.array(disc["world_mm"]) for disc in automatic]
    for value, point in edited.items():
        # A label that was not moved stands for the tip that was found, which lies within its voxel.
        untouched = any(np.array_equal(point, own) for own in points.values())
        allowed = [*places, point] if untouched else [point]
        assert min(np.linalg.norm(after[value] - one) for one in allowed) < WRITTEN_MM, (done, value)
    return ", ".join(sorted(set(done))) or "nothing"


def _edited(
    rng: np.random.Generator, points: Points, image: nib.Nifti1Image
) -> tuple[Points, list[str], bool]:
    """Renumber all labels, or none; move, remove and add some; or make it unclear what is meant."""
    shift = int(rng.integers(-2, 4)) if rng.random() < 0.5 else 0
    edited = {value + shift: point for value, point in points.items()}
    before = dict(edited)
    done = ["renumbered"] if shift else []
    for value in rng.permutation(list(edited))[: int(rng.integers(0, 3))]:
        step = image.affine[:3, :3] @ rng.integers((-2, -8, -16), (3, 9, 17))
        moved = edited[value] + step
        others = [point for file in (edited, before) for key, point in file.items() if key != value]
        if _is_alone(moved, others) and _is_inside(moved, image):
            edited[value] = moved
            done.append("moved")
    for value in rng.permutation(list(edited))[: int(rng.integers(0, 3))]:
        del edited[value]
        done.append("removed")
    if rng.random() < 0.2:
        low = max(edited) + 1
        below = edited[max(edited)] - np.array([0, 0, 12.0])
        others = [*edited.values(), *before.values()]
        if low <= LAST_VALUE and _is_alone(below, others) and _is_inside(below, image):
            edited[low] = below
            done.append("added")
    if rng.random() < 0.15:
        unmoved = [value for value, point in edited.items() if np.array_equal(point, before.get(value))]
        one, other = (int(value) for value in rng.choice(unmoved, 2, replace=False))
        if one != other + 4:
            edited[one + 9], edited[other + 13] = edited.pop(one), edited.pop(other)
            return edited, [*done, "renamed by two numbers"], False
    return edited, done, min(edited) >= FIRST_VALUE


def _is_alone(point: np.ndarray, others: list[np.ndarray]) -> bool:
    """Tell whether a label is not taken for a disc that was found elsewhere."""
    return bool(min(np.linalg.norm(point - other) for other in others) > 6)


def _is_inside(point: np.ndarray, image: nib.Nifti1Image) -> bool:
    voxel = nib.affines.apply_affine(np.linalg.inv(image.affine), point)
    return bool((voxel >= 0).all() and (voxel <= np.array(image.shape) - 1).all())


def _from_image(path: Path) -> Points:
    image = nib.load(path)
    data = np.asarray(image.dataobj)
    return {int(data[tuple(v)]): nib.affines.apply_affine(image.affine, v) for v in np.argwhere(data)}


def _to_image(path: Path, points: Points) -> None:
    image = nib.load(path)
    data = np.zeros(image.shape, np.uint8)
    for value, point in points.items():
        voxel = np.round(nib.affines.apply_affine(np.linalg.inv(image.affine), point)).astype(int)
        data[tuple(voxel)] = value
        points[value] = (
            points[value]
            if np.allclose(point, nib.affines.apply_affine(image.affine, voxel))
            else (nib.affines.apply_affine(image.affine, voxel))
        )
    nib.save(nib.Nifti1Image(data, image.affine, image.header), path)


def _from_csv(path: Path) -> Points:
    with path.open(newline="", encoding="utf-8") as file:
        return {
            int(row["value"]): np.array([float(row[f"{axis}_mm"]) for axis in "xyz"])
            for row in csv.DictReader(file)
        }


def _to_csv(path: Path, points: Points) -> None:
    lines = [f"{value},{','.join(repr(float(c)) for c in point)}" for value, point in points.items()]
    path.write_text("\n".join(["value,x_mm,y_mm,z_mm", *lines, ""]), encoding="utf-8")


def _from_markups(path: Path) -> Points:
    (markups,) = json.loads(path.read_text(encoding="utf-8"))["markups"]
    flip = np.array((-1, -1, 1) if markups["coordinateSystem"] == "LPS" else (1, 1, 1))
    values = [disc["value"] for disc in json.loads(written()["t2_discs.json"])["discs"]]
    return {
        value: np.array(point["position"]) * flip
        for value, point in zip(values, markups["controlPoints"], strict=True)
    }


def _to_markups(path: Path, points: Points) -> None:
    from sct_deepspine.anatomy import disc_name

    content = json.loads(path.read_text(encoding="utf-8"))
    markups = content["markups"][0]
    flip = np.array((-1, -1, 1) if markups["coordinateSystem"] == "LPS" else (1, 1, 1))
    markups["controlPoints"] = [
        {
            "label": disc_name(value) if FIRST_VALUE <= value <= LAST_VALUE else "?",
            "position": (point * flip).tolist(),
        }
        for value, point in points.items()
    ]
    path.write_text(json.dumps(content), encoding="utf-8")
