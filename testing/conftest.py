"""Fixtures that many tests share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import paint_truth, write_empty_sct

from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import LabelledScan
from sct_deepspine.sct.toolbox import require_sct
from sct_deepspine.simulation.phantom import make_phantom


@pytest.fixture(scope="session")
def phantom() -> LabelledScan:
    """A synthetic neck, C2/C3 to T2/T3, with coarse voxels."""
    return make_phantom(np.random.default_rng(1), first=3, last=10, voxel_mm=(4.0, 1.5, 1.5))


@pytest.fixture(scope="session")
def phantom_file(phantom: LabelledScan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom as a NIfTI file."""
    path = tmp_path_factory.mktemp("phantom") / "phantom.nii.gz"
    nib.save(nib.Nifti1Image(phantom.volume.data, phantom.volume.grid.affine), path)
    return path


@pytest.fixture(scope="session")
def painted(phantom: LabelledScan) -> Volume:
    """The phantom's truth as an image that the fake network can read."""
    return paint_truth(phantom)


@pytest.fixture
def painted_file(painted: Volume, tmp_path: Path) -> Path:
    """The same as a NIfTI file, alone in its folder."""
    path = tmp_path / "scan" / "t2.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(painted.data, painted.grid.affine), path)
    return path


@pytest.fixture
def empty_sct(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation of SCT that Python finds first: its folders and files are there, and do nothing."""
    folder = write_empty_sct(tmp_path_factory.mktemp("sct"))
    for name in [name for name in sys.modules if name.split(".")[0] == "spinalcordtoolbox"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(folder)
    require_sct.cache_clear()
    yield folder
    require_sct.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "spinalcordtoolbox"]:
        del sys.modules[name]


@pytest.fixture
def browser():
    """Chromium: the system's, or else playwright's own."""
    api = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with api.sync_playwright() as playwright:
        program = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(program).is_file():
            pytest.skip("chromium is not installed")
        yield playwright.chromium.launch(executable_path=program, args=flags)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real scans, with ``train`` and ``val`` in it."""
    folder = os.environ.get("SCT_DEEPSPINE_DATA")
    if not folder:
        pytest.skip("SCT_DEEPSPINE_DATA is not set")
    return Path(folder)
