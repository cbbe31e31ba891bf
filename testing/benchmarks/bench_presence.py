"""What is found in images without a spine, and how near to being taken for one they come.

    python testing/benchmarks/bench_presence.py FOLDER [FOLDER ...]

Labels bodies without a spine, textures, and of each scan of the folders of labelled scans what lies
in front of the spine and behind it. Every disc found is one too many.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter

from sct_deepspine import label_discs
from sct_deepspine.errors import NoDiscsError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import LabelledScan, read_scans
from sct_deepspine.labeling.candidates import assignment_score
from sct_deepspine.labeling.levels import LevelAssignment, assign_levels
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.simulation.phantom import T2W, VIEWS, make_phantom, random_contrast

BODIES, TEXTURES = 60, 40
ANTERIOR_MM, POSTERIOR_MM = 60.0, 45.0
"""Distance from the outermost tips of what is cut off in front of a spine, and behind it."""

NARROWEST_MM = 50.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    arguments = parser.parse_args()
    logging.disable()
    scores: list[float] = []
    model = LabelingModel.load()

    def noted(*positional, **named) -> LevelAssignment:
        assignment = assign_levels(*positional, **named)
        scores.append(assignment_score(assignment))
        return assignment

    def is_labelled(image: Volume) -> bool:
        try:
            return bool(label_discs(image, weights=model, assign=noted).discs)
        except NoDiscsError:
            return False

    print(f"{'':<16} {'images':>6} {'no canal':>8} {'taken for spines':>16} {'highest score':>13}")
    scans = [scan for folder in arguments.folders for scan in read_scans(folder)]
    for name, images in {
        "bodies": bodies(),
        "textures": textures(),
        "in front, behind": parts(scans),
    }.items():
        scores.clear()
        found = [is_labelled(image) for image in images]
        highest = f"{max(scores):13.2f}" if scores else f"{'-':>13}"
        print(f"{name:<16} {len(found):>6} {len(found) - len(scores):>8} {sum(found):>16} {highest}")
    print(f"score needed: {model.minimum_score}")


def bodies() -> Iterator[Volume]:
    for n in range(BODIES):
        rng = np.random.default_rng((7, n))
        first, last = VIEWS[n % len(VIEWS)]
        contrast = T2W if n % 2 else random_contrast(rng)
        voxel_mm = 3.0, 1.5, 1.5
        yield make_phantom(
            rng, first=first, last=last, spine=False, voxel_mm=voxel_mm, contrast=contrast
        ).volume


def textures() -> Iterator[Volume]:
    for n in range(TEXTURES):
        rng = np.random.default_rng((8, n))
        grain = np.exp(rng.uniform(-1, 2.5, 3)) * (0.3, 1, 1)
        data = gaussian_filter(rng.standard_normal((20, 150, 200)), grain)
        yield Volume(data.astype(np.float32), Grid(data.shape, np.diag([3.0, 1.5, 1.5, 1.0])))


def parts(scans: list[LabelledScan]) -> Iterator[Volume]:
    """Cut off what lies in front of each spine and behind it, where that is wide enough."""
    for scan in (scan.deobliqued() for scan in scans):
        grid, spacing = scan.volume.grid, scan.volume.grid.spacing_mm[1]
        row = grid.voxel_from_world(np.array(list(scan.discs.values())))[:, 1]
        first = int(row.max() + ANTERIOR_MM / spacing)
        last = int(row.min() - POSTERIOR_MM / spacing)
        for start, stop in ((first, grid.shape[1]), (0, last)):
            if (stop - start) * spacing > NARROWEST_MM:
                data = scan.volume.data[:, start:stop]
                affine = np.array(grid.affine)
                affine[:3, 3] = grid.world_from_voxel([0, start, 0])[0]
                yield Volume(data, Grid(data.shape, affine))


if __name__ == "__main__":
    main()
