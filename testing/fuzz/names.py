"""Scans under names that shells, browsers, tables and file systems stumble over."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
from fuzz.images import make_base
from fuzz.running import answer_of

from sct_deepspine.cli.batch import main as batch
from sct_deepspine.cli.label import main as label
from sct_deepspine.io.bids import image_stem

PIECES = (
    *("t2", "sub-01", " ", "'", '"', "`", "$(id)", "%s", "{0}", "&amp;", "<!--<script>", "]]>", "=1+1"),
    *("@", "+", "-", "--help", "~", "*", "?", "[a]", "\\", "\n", "\t", "\r", "\x1b[31m", ";", "|", "#", ","),
    *("é", "e\u0301", "中", "😀", "\u202e", "\u2028", "\udcff", "\udc80", ".nii", ".", ".."),
)
if os.name == "nt":  # Windows has no such names
    PIECES = tuple(piece for piece in PIECES if not re.search(r'[<>:"/\\\\|?*\x00-\x1f\ud800-\udfff]', piece))
MAX_NAME_BYTES = 255
SUFFIX = ".nii.gz"


def try_names(rng: np.random.Generator, folder: Path) -> str:
    """Label a scan with an odd name, by itself and in a cohort with a sound one; return what came of it."""
    image, _ = make_base()
    source = folder / "in"
    source.mkdir()
    nib.save(image, source / "sound.nii.gz")
    odd = source / _name(rng)
    (source / "sound.nii.gz").rename(odd)
    nib.save(image, source / "sound.nii.gz")
    before = set(folder.rglob("*"))
    out = folder / "out"
    code, lines = answer_of(label, "-i", odd, "-ofolder", out, "-csv", 1, "-qc", out / "qc", "-v", 0)
    left = set(folder.rglob("*")) - before
    if code == 1:
        assert len(os.fsencode(odd.name)) > MAX_NAME_BYTES - len("_discs"), lines
        assert not [path for path in left if path.is_file()], left
    else:
        assert (out / f"{image_stem(odd)}_discs.nii.gz").is_file()
        check_page(out / "qc" / "index.html", {image_stem(odd)})
    code_of_batch, _ = answer_of(batch, "-i", source, "-o", folder / "cohort", "-v", 0)
    results = folder / "cohort" / "derivatives" / "sct_deepspine"
    found = {"sound"} if odd.name.startswith(".") else {"sound", image_stem(odd)}
    with (results / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found), rows
    assert not [cell for row in rows for cell in row.values() if cell[:1] in tuple("=@+-")], rows
    assert {row["status"] for row in rows if row["scan"] == "sound"} == {"done"}, rows
    assert (code_of_batch == 1) == any(row["status"] == "failed" for row in rows)
    assert (results / "sound_label-discs_dlabel.nii.gz").is_file()
    check_page(results / "index.html", {"sound"} if code_of_batch else found)
    return "labelled" if not code else lines[0].replace(str(odd), "FILE")


def check_page(page: Path, names: set[str]) -> None:
    """See that a page holds the scans, and nothing that ends the script they stand in."""
    text = page.read_text(encoding="utf-8")
    data = re.search(r'<script id="entries" type="application/json">(.*?)</script>', text, re.S)
    assert data
    assert "<" not in data[1]
    told = {entry["name"].encode("utf-8", "backslashreplace") for entry in json.loads(data[1])}
    assert told >= {name.encode("utf-8", "backslashreplace") for name in names}, (told, names)


def _name(rng: np.random.Generator) -> str:
    """Make a name of one to five pieces, now and then as long as a name can be."""
    stem = "".join(rng.choice(PIECES) for _ in range(int(rng.integers(1, 6))))
    if rng.random() < 0.2:
        stem += "x" * (MAX_NAME_BYTES - len(os.fsencode(stem + SUFFIX)) - int(rng.integers(0, 40)))
    return stem + SUFFIX
