"""Faults of the file system while the files of a run replace those of an earlier one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
from fuzz.images import make_base
from fuzz.running import answer_of

from sct_deepspine.cli.label import main

PRODUCTS = ("-csv", "-slicer", "-upper", "-heatmaps", "-masks", "-attention")
REASONS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS)


def try_fault(rng: np.random.Generator, folder: Path) -> str:
    """Label a scan, then another one over it while something fails; return what came of it."""
    image, _ = make_base()
    data, out = np.asarray(image.dataobj), folder / "out"
    scan = folder / "t2.nii.gz"
    nib.save(image, scan)
    code, lines = answer_of(main, "-i", scan, "-ofolder", out, "-v", 0, *_products(rng))
    assert code == 0, lines
    before = contents(out)
    cut = data[:, :, : data.shape[2] - int(rng.integers(15, 40))]
    nib.save(nib.Nifti1Image(cut, image.affine), scan)
    asked = _products(rng)
    fault, name = _random_fault(rng)
    with fault:
        code, lines = answer_of(main, "-i", scan, "-ofolder", out, "-v", 0, *asked)
    if code == 1:
        assert contents(out) == before, f"{name}: not what the earlier run left"
        # Without the fault, the same command replaces all of it.
        assert answer_of(main, "-i", scan, "-ofolder", out, "-v", 0, *asked) == (0, [])
    check_run(out)
    return f"{name}: {lines[0].split(':')[-1]}" if lines else f"{name}: no harm"


def contents(folder: Path) -> dict[Path, bytes]:
    """Return the files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_run(out: Path) -> None:
    """See that a folder holds the files of one run, whole, and nothing else."""
    sidecar = out / "t2_discs.json"
    recorded = json.loads(sidecar.read_text(encoding="utf-8"))["files"]
    held = {path.name: path.read_bytes() for path in out.iterdir() if path != sidecar}
    assert held.keys() == recorded.keys(), (held.keys(), recorded.keys())
    for name, content in held.items():
        assert hashlib.sha256(content).hexdigest() == recorded[name], name


def _products(rng: np.random.Generator) -> list[Any]:
    return [word for option in PRODUCTS if rng.random() < 0.4 for word in (option, 1)]


def _random_fault(rng: np.random.Generator) -> tuple[Any, str]:
    if rng.random() < 0.5 and find_spec("resource"):  # Windows has no such limit
        size = int(10 ** rng.uniform(0, 5.5))
        return largest_file(size), "file size"
    owner, name = ((Path, "replace"), (Path, "unlink"), (tempfile, "mkdtemp"), (os, "link"))[rng.integers(4)]
    return failing(owner, name, int(rng.integers(1, 8)), int(rng.choice(REASONS))), name


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse files of more than so many bytes."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def failing(owner: Any, name: str, call: int, reason: int) -> Iterator[None]:
    """Let one call of a function of the system fail, counted from 1."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def replacement(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(reason, os.strerror(reason))
        return real(*arguments, **options)

    with mock.patch.object(owner, name, replacement):  # of the system: no argument reaches it
        yield
