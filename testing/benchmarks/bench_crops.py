"""How levels and confidences hold when a scan is cut off, from above or from below, in steps of 10 mm.

    python testing/benchmarks/bench_crops.py FOLDER [-weights FILE] [-o CSV] [-png FILE] [-step MM]

FOLDER holds labelled scans. Each is cut from its upper end and from its lower end until three discs are left,
and labelled from the image alone. A cut is right if no disc has the value of another. A confidence of 0.8 or
less is doubtful.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sct_deepspine import label_discs
from sct_deepspine.anatomy import DISC_VALUES
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.evaluation.landmarks import score_scan
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import LabelledScan, read_scans
from sct_deepspine.labeling.model import LabelingModel

SURE = 0.8
MIN_DISCS = 3


@dataclass(frozen=True)
class Cut:
    """One cropped view and what became of it."""

    scan: str
    end: str
    cut_mm: float
    discs: int
    right: bool
    confidence: float
    view: str
    first: int
    error: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("-weights", metavar="FILE")
    parser.add_argument("-o", metavar="CSV")
    parser.add_argument("-png", metavar="FILE")
    parser.add_argument("-step", type=float, default=10.0, metavar="MM")
    arguments = parser.parse_args()
    logging.disable()
    model = LabelingModel.load(arguments.weights)
    cuts = [cut for scan in read_scans(arguments.folder) for cut in label_cuts(scan, model, arguments.step)]
    report(cuts)
    if arguments.o:
        with Path(arguments.o).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(vars(cuts[0])))
            writer.writeheader()
            writer.writerows(map(vars, cuts))
    if arguments.png:
        draw(cuts, arguments.png)


def label_cuts(scan: LabelledScan, model: LabelingModel, step_mm: float) -> Iterator[Cut]:
    """Label every cut of a scan."""
    ras = scan.volume.as_ras()
    z = ras.grid.world_from_voxel(np.outer(np.arange(ras.grid.shape[2]), (0, 0, 1)))[:, 2]
    for end in ("above", "below"):
        for cut_mm in np.arange(0.0, np.ptp(z), step_mm):
            inside = z <= z.max() - cut_mm if end == "above" else z >= z.min() + cut_mm
            first, last = np.flatnonzero(inside)[[0, -1]]
            affine = np.array(ras.grid.affine)
            affine[:3, 3] = ras.grid.world_from_voxel([0, 0, first])[0]
            data = ras.data[:, :, first : last + 1]
            view = Volume(data, Grid(data.shape, affine))
            # Half a voxel of the tip is enough to see a disc; a disc at the very edge is not counted.
            truth = {
                value: tip
                for value, tip in scan.discs.items()
                if value in DISC_VALUES and z[first] + 3 < tip[2] < z[last] - 3
            }
            if len(truth) < MIN_DISCS:
                break
            yield label_cut(scan, view, truth, end, float(cut_mm), model, (z[first] + 3, z[last] - 3))


def label_cut(scan, view, truth, end, cut_mm, model, edges) -> Cut:
    """Label one cut; no answer is an answer without confidence."""
    span = max(scan.span_z_mm[0], edges[0]), min(scan.span_z_mm[1], edges[1])
    try:
        labels = label_discs(view, weights=model)
    except DeepSpineError as error:
        return Cut(scan.name, end, cut_mm, len(truth), False, 0.0, "", 0, str(error)[:60])
    found = {disc.value: disc.point_world for disc in labels.discs}
    score = score_scan(truth, found, span_z_mm=span)
    return Cut(
        scan.name,
        end,
        cut_mm,
        len(truth),
        score.levels_right,
        round(labels.level_confidence, 3),
        labels.view,
        labels.discs[0].value,
        "",
    )


def report(cuts: list[Cut]) -> None:
    """Print a line per scan and end, and one for all."""
    titles = f"{'cuts':>4} {'right':>5} {'wrong':>5} {'wrong and sure':>14} {'highest wrong':>13}"
    print(f"{'scan':<24} {'cut':<6} {titles}")
    for key in [*dict.fromkeys((cut.scan, cut.end) for cut in cuts), ("all", "")]:
        own = [cut for cut in cuts if key[0] == "all" or (cut.scan, cut.end) == key]
        wrong = [cut.confidence for cut in own if not cut.right]
        sure = sum(confidence > SURE for confidence in wrong)
        highest = f"{max(wrong):13.2f}" if wrong else f"{'-':>13}"
        figures = f"{len(own):>4} {len(own) - len(wrong):>5} {len(wrong):>5} {sure:>14} {highest}"
        print(f"{key[0]:<24} {key[1]:<6} {figures}")
    for view in dict.fromkeys(cut.view for cut in cuts):
        own = [cut for cut in cuts if cut.view == view]
        share = np.mean([cut.right for cut in own])
        print(f"view {view or 'none found':<12} {len(own):>4} cuts, {share:6.1%} right")
    said = [cut for cut in cuts if cut.confidence >= 0.9]
    if said:
        print(
            f"confidence of 0.9 or more: {len(said)}, "
            f"of which right {np.mean([cut.right for cut in said]):.1%}"
        )


def draw(cuts: list[Cut], path: str) -> None:
    """Draw confidence against cut, right ones and wrong ones."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, end in zip(figure.subplots(2, 1, sharex=True), ("above", "below"), strict=True):
        for right, colour, name in ((True, "tab:green", "levels right"), (False, "tab:red", "levels wrong")):
            own = [cut for cut in cuts if cut.end == end and cut.right == right]
            where, said = [c.cut_mm for c in own], [c.confidence for c in own]
            axes.plot(where, said, ".", color=colour, ms=9, label=name)
        axes.axhline(SURE, color="grey", lw=1)
        axes.set_title(f"cut from {end}", fontsize=13)
        axes.set_ylabel("confidence", fontsize=12)
        axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("cut off, mm", fontsize=12)
    axes.legend(fontsize=12)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
