"""Time and memory of labelling one scan: cold command, first call, later calls, and each stage.

Run it on an idle machine::

    python testing/benchmarks/bench_stages.py [IMAGE] [-n CALLS] [-before CHECKOUT] [-picture FILE]

Without an image, a phantom of 384 × 225 × 52 voxels is made. Every figure is given for onnxruntime and for
torch, from the same run, and it is checked that both find the same discs. What ``bench_cold.py`` prints of
the cold command follows.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

RUNTIMES: dict[str, str | None] = {"onnxruntime": None, "torch": "cpu"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?")
    parser.add_argument("-n", type=int, default=10)
    parser.add_argument(
        "-before", help="another checkout of the repository, to compare the cold command with"
    )
    parser.add_argument("-picture", help="draw the shares of the cold command")
    parser.add_argument("-only", choices=RUNTIMES, help="time the calls of one runtime, in this process")
    arguments = parser.parse_args()
    if arguments.only:
        time_calls(arguments.image, arguments.n, RUNTIMES[arguments.only])
        return
    with tempfile.TemporaryDirectory() as folder:
        image = arguments.image or make_image(Path(folder))
        print(f"image: {image}")
        for runtime, device in RUNTIMES.items():
            print(f"\n{runtime}")
            time_command(image, folder, device)
            subprocess.run(
                [sys.executable, __file__, image, "-n", str(arguments.n), "-only", runtime], check=True
            )
        compare(image)
        print(flush=True)
        words = ["-before", arguments.before] if arguments.before else []
        words += ["-picture", arguments.picture] if arguments.picture else []
        cold = str(Path(__file__).with_name("bench_cold.py"))
        subprocess.run([sys.executable, cold, image, *words], check=True)


def make_image(folder: Path) -> str:
    import nibabel as nib
    import numpy as np

    from sct_deepspine.simulation.phantom import make_phantom

    phantom = make_phantom(np.random.default_rng(0), first=3, last=15, voxel_mm=(1.0, 1.0, 1.0))
    data = phantom.volume.data[:52, :225, :384]
    path = folder / "phantom.nii.gz"
    nib.save(nib.Nifti1Image(data, phantom.volume.grid.affine), path)
    return str(path)


def compare(image: str) -> None:
    import numpy as np

    from sct_deepspine import label_discs

    one, other = (label_discs(image, device=device) for device in RUNTIMES.values())
    assert one.values.tolist() == other.values.tolist()
    apart = np.linalg.norm(one.points_world - other.points_world, axis=1).max()
    print(f"\ndiscs of both runtimes: the same, {apart:.4f} mm apart at most")


def time_command(image: str, folder: str, device: str | None) -> None:
    code = "import sys; from sct_deepspine.cli.label import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "-i", image, "-ofolder", folder, "-v", "0"]
    command += ["-device", device] if device else []
    walls = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(command, check=True)
        walls.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"whole command: {min(walls):.2f} s (best of 3, worst {max(walls):.2f} s), peak memory {peak:.0f} MiB"
    )


def time_calls(image: str, calls: int, device: str | None) -> None:
    started = time.perf_counter()
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.labeling.pipeline import label_discs

    print(f"import: {time.perf_counter() - started:.2f} s")
    started = time.perf_counter()
    model = LabelingModel.load(device=device)
    print(f"load the weights: {time.perf_counter() - started:.3f} s")
    started = time.perf_counter()
    labels = label_discs(image, weights=model)
    print(f"label_discs, first call: {time.perf_counter() - started:.3f} s, {len(labels.discs)} discs")
    started = time.perf_counter()
    for _ in range(calls):
        label_discs(image, weights=model)
    total = (time.perf_counter() - started) / calls
    print(f"label_discs, later calls: {total:.3f} s (mean of {calls})")
    spent: dict[str, float] = defaultdict(float)
    for _ in range(calls):
        for name, seconds in stages(image, model):
            spent[name] += seconds / calls
    for name, seconds in spent.items():
        print(f"  {name:<18} {1e3 * seconds:7.1f} ms")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory in process: {peak:.0f} MiB")


def stages(image, model):
    """Run the stages of ``label_discs`` one by one; yields the name of each and its seconds."""
    from sct_deepspine.geometry.volume import DeobliquedVolume
    from sct_deepspine.io.images import read_volume
    from sct_deepspine.labeling.canal import coarse_view, find_centerline
    from sct_deepspine.labeling.pipeline import (
        assign_checked_levels,
        find_candidates,
        predict_midsagittal,
        straighten,
    )
    from sct_deepspine.labeling.refinement import refine_candidates

    clock = [time.perf_counter()]

    def lap():
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    volume = read_volume(image)
    yield "read the volume", lap()
    view = DeobliquedVolume.of(volume)
    coarse = coarse_view(view, model.locate)
    yield "average blocks", lap()
    canal = find_centerline(coarse, model.locate, finder=model.canal)
    yield "find the canal", lap()
    prediction = predict_midsagittal(coarse, canal, model.locate)
    candidates = find_candidates(prediction, canal, volume)
    yield "coarse maps", lap()
    space = straighten(view, canal)
    refine = {"coarse": prediction, "candidates": candidates, "predictor": model.refine}
    candidates = refine_candidates(view, space, **refine)
    yield "refine", lap()
    assign_checked_levels(candidates, {}, model)
    yield "assign levels", lap()


if __name__ == "__main__":
    main()
