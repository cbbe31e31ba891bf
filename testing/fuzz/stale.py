"""Corrections of a person that may no longer fit the image: taken as they are, or refused, never bent."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
from fuzz.images import make_base
from fuzz.running import answer_of

from sct_deepspine.cli.batch import main as batch
from sct_deepspine.cli.label import main as label

WRITTEN_MM = 1e-3


@lru_cache(maxsize=1)
def reviewed() -> tuple[bytes, dict[str, Any]]:
    """Return a scan, and what the review page would save of it: its image, and its discs as found."""
    image, _ = make_base()
    with TemporaryDirectory() as name:
        scan = Path(name, "t2.nii.gz")
        nib.save(image, scan)
        assert answer_of(label, "-i", scan, "-ofolder", name, "-v", 0) == (0, [])
        record = json.loads(Path(name, "t2_discs.json").read_text(encoding="utf-8"))
        discs = [{"value": d["value"], "world_mm": d["world_mm"]} for d in record["discs"]]
        saved = {
            "name": "t2",
            "image": record["source"] | {"path": "t2.nii.gz"},
            "discs": discs,
            "absent": [],
        }
        return scan.read_bytes(), saved


def try_stale(rng: np.random.Generator, folder: Path) -> str:
    """Correct a scan, change the image or the corrections, and apply them; return what came of it."""
    content, saved = reviewed()
    saved = json.loads(json.dumps(saved))
    source = folder / "in"
    source.mkdir()
    scan = source / "t2.nii.gz"
    scan.write_bytes(content)
    done, is_sound = _edited(rng, saved["discs"])
    if rng.random() < 0.5:
        done = f"{_change_image(rng, scan)}, {done}"
        is_sound = False
    corrections = folder / "corrections.json"
    corrections.write_text(json.dumps({"format": 2, "scans": {"key": saved}}), encoding="utf-8")
    if rng.random() < 0.5:
        out = folder / "out"
        code, lines = answer_of(label, "-i", scan, "-initlabel", corrections, "-ofolder", out, "-v", 0)
        written = out / "t2_discs.json"
    else:
        words = ["-i", source, "-o", folder / "out", "-corrections", corrections, "-v", 0]
        code, lines = answer_of(batch, *words)
        written = folder / "out/derivatives/sct_deepspine/t2_label-discs_dlabel.json"
    if not is_sound:
        assert code == 1, f"{done}: taken"
        assert not written.exists(), done
        assert not list(folder.rglob("derivatives/labels/**/*.nii.gz")), done
        return "refused"
    assert code == 0, (done, lines)
    after = {d["value"]: d["world_mm"] for d in json.loads(written.read_text(encoding="utf-8"))["discs"]}
    told = {d["value"]: d["world_mm"] for d in saved["discs"]}
    assert after.keys() == told.keys(), done
    assert max(np.abs(np.subtract(after[v], told[v])).max() for v in told) < WRITTEN_MM, done
    return "labelled"


def _edited(rng: np.random.Generator, discs: list[dict[str, Any]]) -> tuple[str, bool]:
    """Edit the discs as the page lets a person, or as it does not; tell whether they can stand."""
    kind = ("nothing", "nudged", "renumbered", "far", "swapped", "outside", "gap", "twice")[rng.integers(8)]
    first, second = (int(n) for n in rng.choice(len(discs), 2, replace=False))
    place = discs[first]["world_mm"]
    if kind == "nudged":
        discs[first]["world_mm"] = [place[0], place[1] + 2.0, place[2] + 2.0]
    elif kind == "renumbered":
        for disc in discs:
            disc["value"] += 1
    elif kind == "far":
        discs[first]["world_mm"] = [place[0], place[1] - 65.0, place[2]]
    elif kind == "swapped":
        discs[first]["world_mm"], discs[second]["world_mm"] = discs[second]["world_mm"], place
    elif kind == "outside":
        discs[first]["world_mm"] = [place[0] + 400.0, *place[1:]]
    elif kind == "gap":
        del discs[1 + first % (len(discs) - 2)]
    elif kind == "twice":
        discs[first]["value"] = discs[second]["value"]
    return kind, kind in ("nothing", "nudged", "renumbered")


def _change_image(rng: np.random.Generator, scan: Path) -> str:
    """Make another image of a scan, under its name."""
    image = nib.load(scan)
    data, affine = np.asarray(image.dataobj).copy(), image.affine.copy()
    kind = ("moved", "scaled", "cropped", "flipped", "grey values")[rng.integers(5)]
    if kind == "moved":
        affine[:3, 3] += rng.uniform(3, 300, 3) * rng.choice([-1, 1], 3)
    elif kind == "scaled":
        affine[:3, :3] *= rng.uniform(1.05, 2)
    elif kind == "cropped":
        data = data[:, :, int(rng.integers(1, 20)) :]
    elif kind == "flipped":
        data = data[:, :, ::-1]
    else:
        data = data + 1
    nib.save(nib.Nifti1Image(np.ascontiguousarray(data), affine), scan)
    return kind
