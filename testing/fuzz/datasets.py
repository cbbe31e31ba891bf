"""Folders as people have them: masks and labels among scans, scans whose content is elsewhere, two jobs."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from fuzz.images import make_base
from fuzz.running import answer_of
from platforms import can_link

from sct_deepspine.cli.batch import main as batch
from sct_deepspine.cli.label import main as label

NO_SCANS = "_seg", "_labels", "_lesion", "_canal", "_spine", "_mask", "_defacemask", "_discs", "_dlabel"
HAND_LABELS = (
    *("_labels-disc", "_label-disc", "_labels-manual", "_labels-disc-manual", "_labels"),
    *("_label-discs_dlabel", "_label-discs_desc-manual_dlabel", "_space-orig_label-discs_dlabel"),
)
POINTER = b"/annex/objects/SHA256E-s5432--0123456789abcdef.nii.gz\n"

RUN = "import sys; from sct_deepspine.cli.batch import main; sys.exit(main(sys.argv[1:]))"


def try_dataset(rng: np.random.Generator, folder: Path) -> str:
    """Label a dataset of odd files; every scan has its row, and nothing else has one."""
    image, truth = make_base()
    data = folder / "data"
    expected, by_hand = {}, set()
    for number in range(1, int(rng.integers(2, 4))):
        stem = f"sub-{number:02d}_T2w"
        place = data / f"sub-{number:02d}" / "anat"
        place.mkdir(parents=True)
        scan, kind = place / f"{stem}.nii.gz", ("scan", "scan", "link", "pointer")[rng.integers(4)]
        if kind == "scan":
            nib.save(image, scan)
        elif kind == "link" and can_link():
            scan.symlink_to(folder / "elsewhere.nii.gz")
        else:
            scan.write_bytes(POINTER)
        expected[stem] = "done" if kind == "scan" else "failed"
        for ending in rng.choice(NO_SCANS, int(rng.integers(0, 3)), replace=False):
            mask = np.zeros(image.shape, np.uint8)
            mask[3:5, 20:30, 20:30] = 1
            nib.save(nib.Nifti1Image(mask, image.affine), place / f"{stem}{ending}.nii.gz")
        if kind == "scan" and rng.random() < 0.4:
            labels = np.zeros(image.shape, np.uint8)
            for value, point in truth.items():
                voxel = np.round(nib.affines.apply_affine(np.linalg.inv(image.affine), point)).astype(int)
                labels[tuple(voxel)] = value
            hand = data / "derivatives" / "labels" / place.relative_to(data)
            hand.mkdir(parents=True)
            ending = HAND_LABELS[rng.integers(len(HAND_LABELS))]
            nib.save(nib.Nifti1Image(labels, image.affine), hand / f"{stem}{ending}.nii.gz")
            by_hand.add(stem)
    code, lines = answer_of(batch, "-i", data, "-o", folder / "out", "-v", 0)
    rows = _rows(folder / "out")
    assert rows.keys() == expected.keys(), (sorted(rows), sorted(expected))
    for stem, status in expected.items():
        wanted = "corrected" if stem in by_hand else status
        assert rows[stem]["status"] == wanted, (stem, rows[stem], wanted)
        if status == "failed":
            assert "content" in rows[stem]["error"], rows[stem]
    assert code == int("failed" in expected.values()), lines
    return "no harm"


def try_jobs(rng: np.random.Generator, folder: Path) -> str:
    """Let jobs of one participant each write to one folder at once; the table holds them all."""
    image, _ = make_base()
    jobs = []
    for number in range(1, 3):
        scan = folder / "data" / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T2w.nii.gz"
        scan.parent.mkdir(parents=True)
        nib.save(image, scan)
    for number in range(1, 3):
        words = ["-i", str(folder / "data"), "-o", str(folder / "out"), "-include", f"sub-{number:02d}_*"]
        jobs.append(
            subprocess.Popen(
                [sys.executable, "-c", RUN, *words, "-v", "0", "-masks", str(int(rng.integers(2)))],
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for job in jobs:
        _, said = job.communicate(timeout=120)
        assert (job.returncode, said) == (0, ""), said
    rows = _rows(folder / "out")
    assert {row["status"] for row in rows.values()} == {"done"}, rows
    assert len(rows) == len(jobs), sorted(rows)
    json.loads((folder / "out/derivatives/sct_deepspine/discs.json").read_text(encoding="utf-8"))
    return "no harm"


def try_mask(rng: np.random.Generator, folder: Path) -> str:
    """Give a cord mask that is displaced over some slices: levels stay, or a warning says where."""
    image, truth = make_base()
    scan, seg, out = folder / "t2.nii.gz", folder / "t2_seg.nii.gz", folder / "out"
    nib.save(image, scan)
    mask = np.zeros(image.shape, np.uint8)
    places = np.array([truth[v] for v in sorted(truth, reverse=True)])
    to_voxel = np.linalg.inv(image.affine)
    first = int(rng.integers(0, image.shape[2]))
    last, offset = first + int(rng.integers(8, 30)), rng.uniform(-40, 40, 2)
    for k in range(image.shape[2]):
        z = float(nib.affines.apply_affine(image.affine, [0, 0, k])[2])
        middle = np.array([np.interp(z, places[:, 2], places[:, axis]) for axis in (0, 1)]) - [0, 9]
        if first <= k < last:
            middle = middle + offset
        voxel = np.round(nib.affines.apply_affine(to_voxel, [*middle, z])).astype(int)
        if ((voxel >= 0) & (voxel < image.shape)).all():
            mask[voxel[0], max(voxel[1] - 3, 0) : voxel[1] + 4, k] = 1
    nib.save(nib.Nifti1Image(mask, image.affine), seg)
    code, lines = answer_of(label, "-i", scan, "-s", seg, "-ofolder", out, "-v", 0)
    if code == 1:
        return lines[0].replace(str(folder), "")
    record = json.loads((out / "t2_discs.json").read_text(encoding="utf-8"))
    for disc in record["discs"]:
        near = min(truth, key=lambda v: np.linalg.norm(truth[v] - disc["world_mm"]))
        far = np.linalg.norm(truth[near] - disc["world_mm"]) > 10
        told = record["warnings"] and record["level_confidence"] <= 0.8
        assert (disc["value"] == near and not far) or told, (disc, near, record["warnings"])
    return "labelled"


def _rows(results: Path) -> dict[str, dict[str, str]]:
    table = results / "derivatives/sct_deepspine/summary.csv"
    with table.open(newline="", encoding="utf-8") as file:
        return {row["scan"].rsplit("/", 1)[-1]: row for row in csv.DictReader(file)}
