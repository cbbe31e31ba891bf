"""Time of labelling against the number of voxels, and the throughput of a batch with one and two workers.

Run it on an idle machine::

    python testing/benchmarks/bench_scaling.py

The volumes are one phantom at ever finer voxels, so that the body stays the same.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from sct_deepspine import label_discs
from sct_deepspine.simulation.phantom import make_phantom

VOXELS_MM = ((4.0, 2.0, 2.0), (3.0, 1.5, 1.5), (2.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 0.7, 0.7))
CALLS = 3
SCANS = 400
CODE = "import sys; from sct_deepspine.cli.batch import main; sys.exit(main())"


def main() -> None:
    time_volumes()
    time_whole_spine()
    time_batch()


def best_of(image: nib.Nifti1Image) -> float:
    label_discs(image)
    walls = []
    for _ in range(CALLS):
        started = time.perf_counter()
        label_discs(image)
        walls.append(time.perf_counter() - started)
    return min(walls)


def image_of(first: int, last: int, voxel_mm: tuple[float, float, float], seed: int = 0) -> nib.Nifti1Image:
    scan = make_phantom(np.random.default_rng(seed), first=first, last=last, voxel_mm=voxel_mm)
    return nib.Nifti1Image(scan.volume.data, scan.volume.grid.affine)


def time_volumes() -> None:
    print(f"{'voxels':>12} {'shape':>20} {'seconds':>8} {'µs / 1000 voxels':>17}")
    for voxel_mm in VOXELS_MM:
        image = image_of(3, 14, voxel_mm)
        seconds, voxels = best_of(image), int(np.prod(image.shape))
        print(f"{voxels:12} {image.shape!s:>20} {seconds:8.3f} {1e9 * seconds / voxels:17.1f}")


def time_whole_spine() -> None:
    image = image_of(3, 25, (1.0, 1.0, 1.0))
    data = np.asarray(image.dataobj)[:43, :384, :696]
    whole = nib.Nifti1Image(data, image.affine)
    print(f"\nwhole spine of {data.shape}: {best_of(whole):.3f} s")


def time_batch() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        images = [image_of(3, 12, (3.0, 1.0, 1.0), seed=seed) for seed in range(4)]
        for number in range(SCANS):
            nib.save(images[number % 4], source / f"scan{number:03}.nii.gz")
        seconds = {}
        for jobs in (1, 2):
            line = [sys.executable, "-c", CODE, "-i", source, "-o", f"{folder}/out{jobs}", "-jobs", str(jobs)]
            started, used = time.perf_counter(), processor_seconds()
            subprocess.run([*line, "-v", "0"], check=True)
            seconds[jobs], used = time.perf_counter() - started, processor_seconds() - used
            print(f"batch of {SCANS}, {jobs} jobs: {seconds[jobs]:.1f} s, processor time {used:.1f} s")
        print(f"throughput with two workers: {seconds[1] / seconds[2]:.2f} times that of one")


def processor_seconds() -> float:
    """Return what the processes started here, and ended, have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
