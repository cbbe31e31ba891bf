"""Where the time of a cold ``sct_deepspine_label`` goes: imports by package, stages, and ratios.

Run it on an idle machine::

    python testing/benchmarks/bench_cold.py IMAGE [-before CHECKOUT] [-n RUNS] [-picture FILE]

All figures are processor time (user and system, the least of some repetitions, taken in turns), against that
of importing numpy, nibabel and onnxruntime alone. Modules are compiled first, as installing a package does.
``-before`` names another checkout of the repository, to be compared with.
"""

from __future__ import annotations

import argparse
import compileall
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
BARE = "import numpy, nibabel, onnxruntime"
COMMAND = "import sys; from sct_deepspine.cli.label import main; sys.exit(main())"
CASES: dict[str, list[str]] = {"labels": [], "labels and masks": ["-masks", "1"]}
PACKAGES = "numpy", "scipy", "nibabel", "onnxruntime", "PIL", "sct_deepspine"
STAGES = {
    "read the image": ("sct_deepspine.cli.label", "read_scan", "sct_deepspine.labeling.checks"),
    "open the networks": ("sct_deepspine.cli.label", "_models", "sct_deepspine.cli.label"),
    "label the discs": ("sct_deepspine.workflow.scan", "label_discs", "sct_deepspine.workflow.scan"),
    "write, without picture": (
        "sct_deepspine.workflow.result",
        "write_results",
        "sct_deepspine.workflow.result",
    ),
    "draw the picture": ("sct_deepspine.workflow.result", "_pictures", "sct_deepspine.workflow.result"),
}
"""What is timed: the module to load first, a function, and the module whose name for it is looked up."""

CALLS = """
import sys, time
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import label_discs
from sct_deepspine.io.images import read_volume
model, volume = LabelingModel.load(), read_volume(sys.argv[1])
label_discs(volume, weights=model)
spent = []
for _ in range(int(sys.argv[2])):
    wall, cpu = time.perf_counter(), time.process_time()
    label_discs(volume, weights=model)
    spent.append((time.perf_counter() - wall, time.process_time() - cpu))
print(*(min(column) for column in zip(*spent)))
"""

SHARES = """
import importlib, json, sys, time
begun = time.process_time()
stages, argv = json.loads(sys.argv[1]), sys.argv[2:]
spent = {}
def timed(name, function):
    def run(*args, **kwargs):
        started = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - started
    return run
import os
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy, nibabel, onnxruntime
bare = time.process_time() - begun
import PIL.Image, PIL.ImageDraw, PIL.ImageFont, PIL.PngImagePlugin
import sct_deepspine.cli._products, sct_deepspine.workflow.scan, sct_deepspine.reporting.preview
imported = time.process_time() - begun - bare
for name, (module, function, home) in stages.items():
    importlib.import_module(module)
    place = importlib.import_module(home)
    setattr(place, function, timed(name, getattr(place, function)))
from sct_deepspine.cli.label import main
code = main(argv)
rest = time.process_time() - begun - bare - imported - sum(spent.values())
shares = {"start Python": begun, "import numpy, nibabel, onnxruntime": bare, "import the package": imported}
print(json.dumps(shares | spent | {"the rest": rest}))
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("-before", type=Path, help="another checkout of the repository")
    parser.add_argument("-n", type=int, default=6)
    parser.add_argument("-picture", help="draw the shares of the cold command")
    arguments = parser.parse_args()
    checkouts = {"now": HERE} | ({"before": arguments.before.resolve()} if arguments.before else {})
    for checkout in checkouts.values():
        compileall.compile_dir(checkout / "sct_deepspine", quiet=2)
    print_imports(arguments.image)
    shares = print_stages(arguments.image, arguments.n)
    print_ratios(arguments.image, checkouts, arguments.n)
    print_calls(arguments.image, checkouts, arguments.n)
    if arguments.picture:
        draw(shares, arguments.picture)


def run(
    code: str, *words: str, checkout: Path = HERE, flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run code in a process that imports the package from a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "ORT_DISABLE_TELEMETRY": "1"}
    line = [sys.executable, *flags, "-c", code, *words]
    with tempfile.TemporaryDirectory() as folder:  # a checkout that is the current folder would come first
        return subprocess.run(
            [word.replace("{folder}", folder) for word in line],
            check=True,
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
        )


def command_words(image: str) -> list[str]:
    return ["-i", str(Path(image).resolve()), "-ofolder", "{folder}", "-v", "0"]


def print_imports(image: str) -> None:
    """Print the wall time of the command's imports, by package."""
    said = run(COMMAND, *command_words(image), flags=("-X", "importtime")).stderr
    spent: Counter[str] = Counter()
    for own, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", said):
        package = name.partition(".")[0]
        spent[package if package in PACKAGES else "the others, and Python's own"] += int(own)
    print("imports")
    for name, microseconds in spent.most_common():
        print(f"  {name:<40} {microseconds / 1e3:7.1f} ms")


def print_stages(image: str, repetitions: int) -> dict[str, float]:
    """Print the processor time of the stages of the command; return the least of each, in seconds."""
    import json

    least: dict[str, float] = {}
    for _ in range(repetitions):
        said = run(SHARES, json.dumps(STAGES), *command_words(image)).stdout
        for name, seconds in json.loads(said.splitlines()[-1]).items():
            least[name] = min(seconds, least.get(name, seconds))
    print("\nstages, processor time")
    for name, seconds in least.items():
        print(f"  {name:<40} {1e3 * seconds:7.1f} ms")
    return least


def print_ratios(image: str, checkouts: dict[str, Path], repetitions: int) -> None:
    """Print time and memory of the whole command, against the bare imports."""
    cases = {"bare imports": (BARE, [], HERE)}
    for age, checkout in checkouts.items():
        for name, words in CASES.items():
            cases[f"{name}, {age}"] = (COMMAND, [*command_words(image), *words], checkout)
    least: dict[str, tuple[float, float]] = {}
    for _ in range(repetitions):
        for name, (code, words, checkout) in cases.items():
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            run(code, *words, checkout=checkout)
            wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            known = least.get(name, (spent, wall))
            least[name] = min(spent, known[0]), min(wall, known[1])
    print(f"\n{'cold':<42} {'processor':>9} {'ratio':>6} {'wall':>7}")
    bare = least["bare imports"][0]
    for name, (spent, wall) in least.items():
        print(f"  {name:<40} {spent:7.2f} s {spent / bare:6.2f} {wall:5.2f} s")


def print_calls(image: str, checkouts: dict[str, Path], repetitions: int) -> None:
    """Print the time of ``label_discs`` with everything loaded."""
    print(f"\n{'label_discs, networks and image loaded':<42} {'processor':>9} {'':>6} {'wall':>7}")
    least: dict[str, list[float]] = {}
    for _ in range(2):
        for age, checkout in checkouts.items():
            said = run(CALLS, str(Path(image).resolve()), str(repetitions), checkout=checkout).stdout.split()
            pair = [float(word) for word in said]
            least[age] = [min(both) for both in zip(pair, least.get(age, pair), strict=True)]
    for age, (wall, spent) in least.items():
        print(f"  {age:<40} {spent:7.3f} s {'':>6} {wall:5.3f} s")


def draw(shares: dict[str, float], path: str) -> None:
    """Draw the shares of the cold command as one bar."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 2.2), layout="constrained")
    left = 0.0
    colours = pyplot.get_cmap("tab10")
    for number, (name, seconds) in enumerate(shares.items()):
        label = f"{name}, {1e3 * seconds:.0f} ms"
        axes.barh(0, 1e3 * seconds, left=left, color=colours(number), label=label)
        left += 1e3 * seconds
    axes.set_xlim(0, left)
    axes.set_yticks([])
    axes.set_xlabel("processor time, ms")
    axes.legend(ncols=3, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
