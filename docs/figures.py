"""Draw the figures of the documentation.

    python docs/figures.py TRAIN VAL

writes frames.png, synthesis.png, joined.png, regions.png and failures.png beside this file. TRAIN and VAL are folders of
labelled scans.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nibabel.affines import apply_affine

from sct_deepspine import label_discs
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.evaluation.run import RIGHT_MM, stress_cases
from sct_deepspine.geometry.planes import midsagittal_plane
from sct_deepspine.reporting.figures import draw_prediction
from sct_deepspine.geometry.planes import straightened_plane
from sct_deepspine.geometry.planes import SLAB_MM, normalise, sample
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.training.dataset import RandomPlanes, canal_points, read_folder
from sct_deepspine.training.loop import ROLES
from sct_deepspine.simulation.phantom import make_phantom, make_varied_phantom
from sct_deepspine.simulation.composite import make_composite
from sct_deepspine.models.weights import load_weights

HERE = Path(__file__).parent
MOST = 6
"""Of failures shown."""

GREY = {"cmap": "gray", "vmin": -2, "vmax": 3}


def new_figure(size):
    """Return an empty figure that can be saved."""
    figure = Figure(figsize=size, layout="tight")
    FigureCanvasAgg(figure)
    return figure


def draw_frames(path):
    """Draw the native sampling, the straight one and the cells of one phantom."""
    scan = make_phantom(np.random.default_rng(0), first=3, last=12, voxel_mm=(3.0, 1.0, 1.0))
    line = Centerline.from_points(scan.centerline_world)
    space = StraightSpace(line)
    tips = np.array(list(scan.discs.values()))
    figure = new_figure((9, 6))
    native, straight, cells = figure.subplots(1, 3)
    sampling = midsagittal_plane(scan.volume, line, 1.0)
    native.imshow(normalise(*sample(scan.volume, sampling, slab_mm=SLAB_MM)), **GREY)
    for points, style in ((line.samples_world, "c-"), (tips, "r+")):
        row, column = sampling.pixel_from_world(points).T
        native.plot(column, row, style, lw=1)
    native.set(title="native: world mm", xlabel="anterior →", ylabel="← superior")
    heights = space.straight_from_native(tips)
    top = heights[:, 2].max() + 30
    laid = straightened_plane(space, (heights[:, 2].min() - 30, top), 1.0)
    plane = normalise(*sample(scan.volume, laid, slab_mm=SLAB_MM))
    straight.imshow(plane, **GREY)
    straight.plot(heights[:, 1] + 23.5, top - heights[:, 2], "r+")
    straight.axvline(23.5, color="c", lw=1)
    straight.set(title="straight: mm", xlabel="y →", ylabel="← z (arc length)")
    predictor = load_weights().refine
    assert predictor is not None
    maps = predictor.predict([plane])[0]
    cells.imshow(maps.any_disc, cmap="hot", vmin=0, vmax=1)
    pixels = np.stack([top - heights[:, 2], heights[:, 1] + 23.5], axis=1)
    row, column = predictor.codec.cell_from_pixel(pixels).T
    cells.plot(column, row, "c+")
    cells.set(title="any disc: cells of 2 × 2 pixels", xlabel="column", ylabel="row")
    for axes in (native, straight, cells):
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(path, dpi=80)


def draw_planes(path, scans):
    """Draw training planes of both networks with their targets."""
    figure = new_figure((14, 8))
    for row, role in zip(figure.subplots(2, 12), ROLES.values(), strict=True):
        planes = RandomPlanes(scans, role.codec, role.planes, length=400, seed=1, batch=12)
        for index, axes in enumerate(row):
            item = planes[13 * index]
            axes.imshow(item["image"][0], **GREY)
            block = np.ones((role.codec.stride, role.codec.stride))
            for name, colours in (("any_disc", "autumn"), ("any_known", "winter")):
                values = item[name].numpy() if name == "any_disc" else 1 - item[name].numpy()
                shown = np.ma.masked_less(np.kron(values, block), 0.3)
                axes.imshow(shown, cmap=colours, alpha=0.5 if name == "any_disc" else 0.2)
            axes.axis("off")
    figure.savefig(path, dpi=80)


def draw_composites(path, scans):
    """Draw joined spines and phantoms."""
    shown = [make_composite(np.random.default_rng((0, n)), scans) for n in range(4)]
    shown += [make_varied_phantom(np.random.default_rng((0, n)), spineless_share=0) for n in (9, 12)]
    figure = new_figure((13, 7))
    for axes, scan in zip(figure.subplots(1, 6), shown, strict=True):
        sampling = midsagittal_plane(scan.volume, Centerline.from_points(canal_points(scan)), 1.5)
        axes.imshow(normalise(*sample(scan.volume, sampling, slab_mm=SLAB_MM)), **GREY)
        for value, tip in scan.discs.items():
            ((row, column),) = sampling.pixel_from_world(tip[None])
            axes.plot(column, row, "r.", ms=3)
            axes.text(column + 4, row, str(value), color="yellow", fontsize=6, va="center")
        axes.axis("off")
    figure.savefig(path, dpi=80)


def draw_regions(path, scans):
    """Draw what the coarse network sees, attends to and draws, for one scan of each region."""
    neck = next(scan for scan in scans if {3, 9} <= scan.discs.keys())
    lumbar = next(scan for scan in scans if {20, 25} <= scan.discs.keys() and scan.volume.data.shape[0] > 1)
    shown = [neck, make_composite(np.random.default_rng((0, 1)), scans), lumbar]
    figure = new_figure((11, 13))
    for row, scan in zip(figure.subplots(3, 4), shown, strict=True):
        labels = label_discs(scan.volume, return_maps=True)
        drawn = labels.prediction
        draw_prediction(row[0], drawn, labels)
        row[1].imshow(drawn.attention, cmap="viridis", vmin=0, vmax=1)
        row[2].imshow(drawn.maps.any_disc, cmap="hot", vmin=0, vmax=1)
        levels = np.ma.masked_where(drawn.maps.any_disc < 0.1, drawn.maps.level.argmax(axis=0) + 3)
        row[3].imshow(levels, cmap="nipy_spectral", vmin=3, vmax=25)
        for axes, title in zip(row, ("discs", "attention", "any disc", "likeliest level there"), strict=True):
            axes.set_title(title, fontsize=9)
            axes.axis("off")
    figure.savefig(path, dpi=75, facecolor="white")


def draw_failures(path, folder):
    """Draw cases of the stress suite that are read wrongly, with the truth beside."""
    wrong = []
    for card, case in stress_cases(folder):
        labels = try_to_label(case)
        if labels is None:
            continue
        found = dict(zip(labels.values.tolist(), labels.points_world, strict=True))
        true = apply_affine(np.linalg.inv(case.original_from_perturbed), np.array(list(case.truth.values())))
        if not any(is_near(found.get(v), p) for v, p in zip(case.truth, true, strict=True)):
            wrong.append((f"{card['image'].split('_T')[0]}\n{case.stress}", labels, case, true))
    shown = wrong[:MOST]
    figure = new_figure((3 * len(shown), 5))
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (title, labels, case, true) in zip(panels, shown, strict=True):
        draw_prediction(axes, labels.prediction, labels)
        for value, (row, column) in zip(case.truth, labels.prediction.sampling.pixel_from_world(true), strict=True):
            axes.text(column - 4, row, str(value), color="red", fontsize=7, ha="right", va="center")
        axes.set_title(f"{title}\nconfidence {labels.level_confidence:.2f}", fontsize=8)
    figure.savefig(path, dpi=75, facecolor="white")


def try_to_label(case):
    """Return the discs of a case that has no anchor, or None."""
    try:
        return None if case.anchor else label_discs(case.image, return_maps=True)
    except DeepSpineError:
        return None


def is_near(found, true):
    """Tell whether a disc was found where it is."""
    return found is not None and np.linalg.norm(found - true) <= RIGHT_MM


def main():
    """Draw all figures."""
    scans = read_folder(sys.argv[1])
    joined = [make_composite(np.random.default_rng((0, n)), scans) for n in range(3)]
    draw_frames(HERE / "frames.png")
    draw_planes(HERE / "synthesis.png", scans + joined)
    draw_composites(HERE / "joined.png", scans)
    draw_regions(HERE / "regions.png", read_folder(sys.argv[2]))
    draw_failures(HERE / "failures.png", sys.argv[2])


if __name__ == "__main__":
    main()
