"""Beside SCT on the same scans, in one run: the label step, and where the discs land in the template.

For machines with the Spinal Cord Toolbox::

    python testing/benchmarks/bench_sct.py FOLDER TEMPLATE [-chain 0]

FOLDER holds necks with disc labels (``NAME.json``) and cord masks; TEMPLATE is laid out as SCT's PAM50. SCT's
label step gets the cord mask and the true C2/C3; ours gets the image alone. Each scan is registered with its
true discs, with ours, and with SCT's, and with our discs and our own cord mask.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import map_coordinates

from sct_deepspine.anatomy import DISC_VALUES
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.io.annotations import Annotation, read_annotations
from sct_deepspine.io.disc_labels import read_disc_labels, unique_points
from sct_deepspine.io.images import read_mask, read_volume
from sct_deepspine.io.warps import read_displacement_field
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.sct.registration import register_to_template

PARAM = (
    "step=1,type=seg,algo=centermassrot,metric=MeanSquares:"
    "step=2,type=seg,algo=bsplinesyn,iter=0,metric=MeanSquares"
)
RIGHT_MM = 3.0

# A process of its own, for Linux counts the memory of the process that starts another to that other.
MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("template", type=Path)
    parser.add_argument("-chain", type=int, choices=(0, 1), default=1, help="register as well")
    arguments = parser.parse_args()
    for annotation in read_annotations(arguments.folder.resolve()):
        if "cord_seg" in annotation.values and 3 in annotation.points():
            with tempfile.TemporaryDirectory() as place:
                compare(annotation, arguments.template.resolve(), Path(place), bool(arguments.chain))


def compare(annotation: Annotation, template: Path, place: Path, chain: bool) -> None:
    image = annotation.path
    seg = image.parent / annotation.values["cord_seg"]
    truth = {value: point for value, point in annotation.points().items() if value in DISC_VALUES}
    print(f"\n{image.name}")
    ours = run_ours(image, place / "ours")
    sets = {
        "true discs": truth,
        "sct_deepspine": ours,
        "sct_label_vertebrae": run_sct(image, seg, truth[3], template, place / "sct"),
    }
    cord = Centerline.from_mask(read_mask(seg).data, read_mask(seg).grid).samples_world
    for name, found in sets.items():
        if found is None:
            continue
        # SCT puts its discs on the cord, we at the tip: each is compared with the truth of its own place, in
        # the sagittal plane, since the true tips of some scans were all set in one slice.
        there = {v: on_cord(p, cord) for v, p in truth.items()} if name == "sct_label_vertebrae" else truth
        errors = [np.linalg.norm((found[v] - there[v])[1:]) for v in there if v in found]
        right = sum(error <= RIGHT_MM for error in errors)
        print(
            f"  {name:<20} {right} of {len(there)} discs within {RIGHT_MM:g} mm; "
            f"mean {np.mean(errors):.2f}, median {np.median(errors):.2f}, max {np.max(errors):.2f} mm"
        )
        if chain:
            chosen = {"mask": seg, "scored": seg}
            land(name, image, chosen, found, truth, cord, template, place / f"reg_{name.replace(' ', '_')}")
    if chain and ours is not None:
        (own,) = (place / "ours").glob("*_seg.nii.gz")
        chosen = {"mask": own, "scored": seg}
        land("ours, own cord", image, chosen, ours, truth, cord, template, place / "reg_own")


def timed(name: str, line: list[str], place: Path) -> float | None:
    """Run a command; print its wall time and peak memory."""
    place.mkdir()
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *line], cwd=place, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        print(f"  {name:<20} failed: {' '.join(done.stderr.split())[-200:]}")
        return None
    print(f"  {name:<20} {seconds:.1f} s, {int(done.stdout) / 1024:.0f} MiB")
    return seconds


def run_ours(image: Path, place: Path) -> dict[int, np.ndarray] | None:
    code = "import sys; from sct_deepspine.cli.label import main; sys.exit(main())"
    line = [sys.executable, "-c", code, "-i", str(image), "-masks", "1", "-v", "0"]
    if timed("sct_deepspine_label", line, place) is None:
        return None
    (sidecar,) = place.glob("*_discs.json")
    discs = json.loads(sidecar.read_text(encoding="utf-8"))["discs"]
    return {disc["value"]: np.array(disc["world_mm"]) for disc in discs}


def run_sct(
    image: Path, seg: Path, first: np.ndarray, template: Path, place: Path
) -> dict[int, np.ndarray] | None:
    volume = read_volume(image)
    start = place.with_name("c2c3.nii.gz")
    DiscLabels((Disc(3, first, 1.0),), volume.grid, 1.0, source=str(image)).save(start)
    module = "spinalcordtoolbox.scripts.sct_label_vertebrae"
    words = ["-i", str(image), "-s", str(seg), "-c", "t2", "-initlabel", str(start), "-t", str(template)]
    if timed("sct_label_vertebrae", [sys.executable, "-m", module, *words, "-v", "0"], place) is None:
        return None
    (labels,) = place.glob("*_labeled_discs.nii.gz")
    return unique_points(read_disc_labels(str(labels)).points)


def on_cord(point: np.ndarray, cord: np.ndarray) -> np.ndarray:
    return cord[np.linalg.norm(cord - point, axis=1).argmin()]


def land(
    name: str,
    image: Path,
    cords: dict[str, Path],
    found: dict[int, np.ndarray],
    truth: dict[int, np.ndarray],
    cord: np.ndarray,
    template: Path,
    place: Path,
) -> None:
    """Register with the discs found; tell where the true ones land, and how well the cords agree.

    ``cords`` holds the ``mask`` that is registered, and the one whose warped copy is ``scored``.
    """
    grid = read_volume(image).grid
    labels = DiscLabels(
        tuple(Disc(v, p, 1.0) for v, p in sorted(found.items())), grid, 1.0, source=str(image)
    )
    started = time.perf_counter()
    try:
        done = register_to_template(
            image, cords["mask"], labels, contrast="t2", folder=place, template=template, param=PARAM
        )
    except DeepSpineError as error:
        print(f"  {name:<20} no registration: {error}")
        return
    seconds = time.perf_counter() - started
    there = template_discs(template)
    field = read_displacement_field(done.warp_template2anat)
    used = [disc.value for disc in done.labels.discs]
    residuals = {
        v: float(field.source_from_destination(on_cord(truth[v], cord))[0, 2] - there[v][2])
        for v in truth
        if v in there and used[0] <= v <= used[-1]
    }
    known = [abs(r) for r in residuals.values() if np.isfinite(r)]
    dice = cord_dice(done.warp_anat2template, cords["scored"], template, there, used)
    listed = " ".join(f"{v}:{r:+.1f}" for v, r in residuals.items())
    print(f"  {name:<20} registered in {seconds:.0f} s; residuals along z, mm: {listed}")
    print(f"  {name:<20} mean {np.mean(known):.2f}, max {np.max(known):.2f} mm; Dice of the cord {dice:.3f}")


def template_discs(template: Path) -> dict[int, np.ndarray]:
    info = (template / "template" / "info_label.txt").read_text(encoding="utf-8").splitlines()
    name = next(line.split(",")[2].strip() for line in info if line.startswith("10,"))
    image = nib.load(template / "template" / name)
    data = np.asarray(image.dataobj)
    return {round(float(data[tuple(i)])): apply_affine(image.affine, i) for i in np.argwhere(data)}


def cord_dice(warp: Path, seg: Path, template: Path, there: dict[int, np.ndarray], used: list[int]) -> float:
    """Return the overlap of the warped cord mask and the template's cord, between the end discs."""
    info = (template / "template" / "info_label.txt").read_text(encoding="utf-8").splitlines()
    name = next(line.split(",")[2].strip() for line in info if line.startswith("3,"))
    image = nib.load(template / "template" / name)
    cord = np.asarray(image.dataobj) > 0.5
    field = read_displacement_field(warp)
    inside = np.argwhere(np.ones(cord.shape, bool))
    world = apply_affine(image.affine, inside)
    low, high = there[used[-1]][2], there[used[0]][2]
    chosen = (world[:, 2] > low) & (world[:, 2] < high)
    inside, world = inside[chosen], world[chosen]
    mask = read_mask(seg)
    source = mask.grid.voxel_from_world(np.nan_to_num(field.source_from_destination(world), nan=-1e6))
    warped = map_coordinates(mask.data.astype(np.float32), source.T, order=1, cval=0) > 0.5
    expected = cord[tuple(inside.T)]
    return float(2 * (warped & expected).sum() / (warped.sum() + expected.sum()))


if __name__ == "__main__":
    main()
