"""Time and memory of the masks beside the discs alone, for one image.

Run it on an idle machine::

    python testing/benchmarks/bench_segmentation.py IMAGE [-n CALLS]

Each cold figure is a whole command in a process of its own, with onnxruntime: the best of three.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time

COMMAND = """
import resource, sys
from sct_deepspine.cli.{module} import main
code = main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)
sys.exit(code)
"""

CASES = {
    "discs": ("label", []),
    "discs and masks": ("label", ["-masks", "1"]),
    "masks (sct_deepspine_segment)": ("segment", []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("-n", type=int, default=5)
    arguments = parser.parse_args()
    for name, (module, words) in CASES.items():
        best, peak = min(time_command(arguments.image, module, words) for _ in range(3))
        print(f"{name:<30} {best:6.2f} s cold, peak memory {peak:5.0f} MiB")
    time_calls(arguments.image, arguments.n)


def time_command(image: str, module: str, words: list[str]) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", COMMAND.format(module=module), "-i", image, "-ofolder", folder]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "-v", "0", *words], check=True, capture_output=True, text=True, cwd=folder
        )
        return time.perf_counter() - started, float(done.stderr.split()[-1])


def time_calls(image: str, calls: int) -> None:
    from sct_deepspine import label_discs, segment_spine
    from sct_deepspine.io.images import read_volume
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.segmentation.model import SegmentationModel

    labeling, model = LabelingModel.load(), SegmentationModel.load()
    volume = read_volume(image)
    labels = label_discs(volume, weights=labeling)
    segment_spine(volume, labels=labels, weights=model, labeling=labeling)
    spent = {"label_discs": 0.0, "segment_spine": 0.0}
    for _ in range(calls):
        started = time.perf_counter()
        labels = label_discs(volume, weights=labeling)
        between = time.perf_counter()
        segment_spine(volume, labels=labels, weights=model, labeling=labeling)
        spent["label_discs"] += (between - started) / calls
        spent["segment_spine"] += (time.perf_counter() - between) / calls
    for name, seconds in spent.items():
        print(f"{name:<30} {seconds:6.2f} s a call (mean of {calls})")


if __name__ == "__main__":
    main()
