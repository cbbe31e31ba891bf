"""Draw the figures of the documentation, from the shipped weights.

    python docs/figures.py TRAIN VAL [NAME ...]

writes discs.png, spine_masks.png, frames.png, synthesis.png, composites.png, regions.png, failures.png and sessions.png
beside this file, or those that are named. TRAIN and VAL are folders of labelled scans.
"""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib.colors
import numpy as np
from matplotlib.patches import ConnectionPatch
from nibabel.affines import apply_affine

from sct_deepspine import label_discs, label_session, segment_spine
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.evaluation.run import RIGHT_MM, folder_cases
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.planes import (
    SLAB_MM,
    midsagittal_plane,
    normalise,
    read_labels,
    sample,
    straightened_plane,
)
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.io.annotations import canal_points, read_scans
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import straighten
from sct_deepspine.reporting.figures import (
    GREY_LIMITS,
    draw_heat,
    draw_image,
    draw_labels,
    new_figure,
    spine_window,
)
from sct_deepspine.segmentation.corridor import corridor_along
from sct_deepspine.segmentation.masks import CANAL_VALUE, CORD_VALUE, disc_mask_value
from sct_deepspine.segmentation.model import SegmentationModel
from sct_deepspine.simulation.composite import make_composite
from sct_deepspine.simulation.phantom import make_phantom, make_varied_phantom
from sct_deepspine.simulation.sessions import cut_session
from sct_deepspine.training.dataset import RandomPlanes
from sct_deepspine.training.roles import ROLES

HERE = Path(__file__).parent
FRONT = "cervical_23", "spider034"
TARGETS = {"canal": "canal", "locate": "any_disc", "refine": "any_disc"}
"""What is drawn of the training planes of each network."""

KNOWN = {"any_disc": "any_known", "canal": "canal_known"}
BONES = "purple", "green", "orange"
MOST = 4
"""Of failures shown."""

GREY = {"cmap": "gray", "vmin": GREY_LIMITS[0], "vmax": GREY_LIMITS[1], "interpolation": "bicubic"}
DPI = 130


def draw_front(path, scans):
    """Draw the discs over the heat map of a cervical and of a lumbar scan."""
    height = 5.4
    figure = new_figure(9.2, height, dark=True)
    for axes, name in zip(figure.subplots(1, 2), FRONT, strict=True):
        scan = next(scan for scan in scans if scan.name.startswith(name))
        labels = label_discs(scan.volume, return_maps=True)
        prediction = sharpened(labels.prediction, scan)
        rows = prediction.plane.shape[0]
        draw_image(axes, prediction)
        draw_heat(axes, prediction)
        draw_labels(axes, prediction, labels, rows_per_inch=rows / height)
        axes.set_ylim(rows - 0.5, -0.5)
    figure.savefig(path, dpi=DPI, facecolor="black")


def draw_masks(path, scans):
    """Draw the masks of a cervical, a lumbar and a composite whole spine: native, and straightened."""
    shown = [next(scan for scan in scans if scan.name.startswith(name)) for name in FRONT]
    shown.append(make_composite(np.random.default_rng((0, 1)), scans))
    model = SegmentationModel.load()
    figure = new_figure(11.5, 7, dark=True)
    panels = figure.subplots(1, 6, width_ratios=(1.2, 0.75, 1.2, 0.75, 0.95, 0.5))
    for index, scan in enumerate(shown):
        masks = segment_spine(scan.volume, weights=model)
        view = DeobliquedVolume.of(scan.volume)
        canal = masks.labels.canal
        native = midsagittal_plane(view, canal, 1.0)
        corridor = corridor_along(straighten(view, canal), view.volume.grid, pixel_mm=1.0)
        straight = corridor.planes(view.axes)[len(corridor.lateral_mm) // 2]
        columns = native.pixel_from_world(masks.labels.points_world)[:, 1]
        window = columns.min() - 60, columns.max() + 60
        for axes, plane, reach in zip(
            panels[2 * index : 2 * index + 2], (native, straight), (window, (0, 111)), strict=True
        ):
            draw_mask(axes, plane, view.volume, Volume(masks.spine, scan.volume.grid))
            axes.set_xlim(*reach)
    figure.savefig(path, dpi=DPI, facecolor="black")


def draw_mask(axes, plane, volume, spine):
    """Draw a plane with its structures: neighbouring vertebrae in different colours, all discs in one."""
    image = normalise(*sample(volume, plane, slab_mm=1.0))
    values = read_labels(spine, plane)
    colours = np.zeros((*values.shape, 4))
    for index, value in enumerate(np.unique(values[values > 0])):
        name = {CORD_VALUE: "red", CANAL_VALUE: "blue"}.get(int(value), BONES[index % 3])
        if value >= disc_mask_value(3):
            name = "gold"
        colours[values == value] = (
            *matplotlib.colors.to_rgb(f"tab:{name}" if name != "gold" else name),
            0.55,
        )
    axes.imshow(image, **GREY)
    axes.imshow(colours, interpolation="nearest")
    axes.axis("off")


def sharpened(prediction, scan, factor=2):
    """Read a plane at finer pixels, so that a picture is as sharp as the scan; the maps stay as they are."""
    plane = prediction.plane.subdivided(factor)
    image = normalise(*sample(scan.volume.as_ras(), plane, slab_mm=SLAB_MM))
    return PlanePrediction(
        plane,
        image,
        prediction.maps,
        replace(prediction.codec, stride=prediction.codec.stride * factor),
        prediction.attention,
    )


def draw_frames(path):
    """Draw the native plane, the straightened one and the cells of one phantom."""
    scan = make_phantom(np.random.default_rng(0), first=3, last=12, voxel_mm=(3.0, 1.0, 1.0))
    line = Centerline.from_points(scan.centerline_world)
    space = StraightSpace(line)
    tips = np.array(list(scan.discs.values()))
    figure = new_figure(11, 7)
    native, straight, cells = figure.subplots(1, 3)
    plane = midsagittal_plane(DeobliquedVolume.of(scan.volume), line, 1.0)
    native.imshow(normalise(*sample(scan.volume, plane, slab_mm=SLAB_MM)), **GREY)
    for points, style in ((line.samples_world, "c-"), (tips, "r+")):
        row, column = plane.pixel_from_world(points).T
        native.plot(column, row, style, lw=1.5, ms=9, mew=2)
    native.set_title("native: world mm", fontsize=14)
    heights = space.straight_from_native(tips)
    top = heights[:, 2].max() + 30
    laid = straightened_plane(space, (heights[:, 2].min() - 30, top), 1.0)
    image = normalise(*sample(scan.volume, laid, slab_mm=SLAB_MM))
    straight.imshow(image, **GREY)
    straight.plot(heights[:, 1] + 23.5, top - heights[:, 2], "r+", ms=9, mew=2)
    straight.axvline(23.5, color="c", lw=1.5)
    straight.set_title("straight: mm", fontsize=14)
    predictor = LabelingModel.load().refine
    assert predictor is not None
    maps = predictor.predict([image])[0]
    cells.imshow(maps.any_disc, cmap="plasma", vmin=0, vmax=1)
    pixels = np.stack([top - heights[:, 2], heights[:, 1] + 23.5], axis=1)
    row, column = predictor.codec.cell_from_pixel(pixels).T
    cells.plot(column, row, "c+", ms=9, mew=2)
    cells.set_title("any disc: cells of 2 × 2 pixels", fontsize=14)
    for axes in (native, straight, cells):
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(path, dpi=80)


def draw_planes(path, scans):
    """Draw training planes of the networks with their targets: the canal, or discs."""
    figure = new_figure(14, 12)
    rows = figure.subplots(len(TARGETS), 8)
    for row, (name, target) in zip(rows, TARGETS.items(), strict=True):
        role = ROLES[name]
        planes = RandomPlanes(
            scans, role.codec, replace(role.planes, tall_share=0), length=400, seed=1, batch=12
        )
        shown = (item for item in (planes[13 * n] for n in range(30)) if item[target].max() > 0.5)
        for axes, item in zip(row, shown, strict=False):
            axes.imshow(item["image"][0], **GREY)
            block = np.ones((role.codec.stride, role.codec.stride))
            layers = {"autumn": item[target].numpy(), "winter": 1 - item[KNOWN[target]].numpy()}
            for colours, values in layers.items():
                drawn = np.ma.masked_less(np.kron(values, block), 0.3)
                axes.imshow(drawn, cmap=colours, alpha=0.5 if colours == "autumn" else 0.25)
            axes.axis("off")
    figure.savefig(path, dpi=75)


def draw_composites(path, scans):
    """Draw composite spines and phantoms."""
    shown = [make_composite(np.random.default_rng((0, n)), scans) for n in range(3)]
    shown += [make_varied_phantom(np.random.default_rng((0, n)), spineless_share=0) for n in (9, 12)]
    figure = new_figure(14, 9)
    for axes, scan in zip(figure.subplots(1, 5), shown, strict=True):
        view = DeobliquedVolume.of(scan.volume)
        plane = midsagittal_plane(view, Centerline.from_points(canal_points(scan)), 1.5)
        axes.imshow(normalise(*sample(scan.volume, plane, slab_mm=SLAB_MM)), **GREY)
        for value, tip in scan.levels.items():
            ((row, column),) = plane.pixel_from_world(tip[None])
            axes.plot(column, row, "r.", ms=5)
            axes.text(column + 5, row, str(value), color="yellow", fontsize=11, va="center")
        axes.axis("off")
    figure.savefig(path, dpi=75)


def draw_regions(path, scans):
    """Draw what the coarse network sees, attends to and predicts, for one scan of each region."""
    cervical = next(scan for scan in scans if {3, 9} <= scan.discs.keys())
    lumbar = next(scan for scan in scans if {20, 25} <= scan.discs.keys() and min(scan.volume.data.shape) > 1)
    figure = new_figure(13, 12)
    for row, scan in zip(figure.subplots(2, 4, width_ratios=(2.0, 1, 1, 1)), (cervical, lumbar), strict=True):
        labels = label_discs(scan.volume, return_maps=True)
        prediction = labels.prediction
        draw_image(row[0], prediction)
        draw_labels(row[0], prediction, labels, rows_per_inch=prediction.plane.shape[0] / 5.5)
        first, last = spine_window(prediction, labels)
        row[1].imshow(prediction.attention, cmap="viridis", vmin=0, vmax=1)
        draw_image(row[2], prediction)
        draw_heat(row[2], prediction)
        value = prediction.maps.level.argmax(axis=0) + prediction.codec.first_value
        row[3].imshow(
            np.ma.masked_where(prediction.maps.any_disc < 0.1, value % 20), cmap="tab20", vmin=0, vmax=19
        )
        stride = prediction.codec.stride
        for axes, scale in zip(row[1:], (stride, 1, stride), strict=True):
            axes.set_xlim(first / scale, last / scale)
        for axes, title in zip(row, ("discs", "attention", "any disc", "most probable level"), strict=True):
            axes.set_title(title, fontsize=14)
            axes.axis("off")
    figure.savefig(path, dpi=75)


def draw_failures(path, folder):
    """Draw perturbed scans whose levels are wrong, with the truth beside."""
    wrong = []
    for scan, case in folder_cases(folder):
        labels = try_to_label(case)
        if labels is None:
            continue
        found = dict(zip(labels.values.tolist(), labels.points_world, strict=True))
        tips = apply_affine(np.linalg.inv(case.original_from_perturbed), np.array(list(case.truth.values())))
        truth = dict(zip(case.truth, tips, strict=True))
        if not any(is_near(found.get(value), tip) for value, tip in truth.items()):
            wrong.append((f"{scan.name.split('_T')[0]}: {case.perturbation}", labels, truth))
    if not wrong:
        return
    shown = wrong[:: max(1, len(wrong) // MOST)][:MOST]
    figure = new_figure(4.2 * len(shown), 6.5, dark=True)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (title, labels, truth) in zip(panels, shown, strict=True):
        draw_image(axes, labels.prediction)
        draw_labels(
            axes, labels.prediction, labels, truth=truth, rows_per_inch=labels.prediction.plane.shape[0] / 5.5
        )
        axes.set_title(f"{title}\nconfidence {labels.level_confidence:.2f}", fontsize=12, color="white")
    figure.savefig(path, dpi=85, facecolor="black")


def draw_session(path, scans):
    """Draw four series of one composite spine, as they were labelled together, discs of one value joined."""
    spine = make_composite(np.random.default_rng(3), scans)
    series = cut_session(spine, np.random.default_rng(1), count=4, shift_mm=(0, 0, 10))
    session = label_session([one.image for one in series])
    figure = new_figure(9, 8, dark=True)
    panels = figure.subplots(1, 4, sharey=True)
    for axes, labels, one in zip(panels, session.images, series, strict=True):
        plane = midsagittal_plane(DeobliquedVolume.of(one.image), labels.canal, 1.0)
        image = normalise(*sample(one.image.as_ras(), plane, slab_mm=SLAB_MM))
        z, y = plane.points_world[:, 0, 2], plane.points_world[0, :, 1]
        axes.imshow(image, cmap="gray", vmin=-2, vmax=3, extent=(y[0], y[-1], z[-1], z[0]), aspect="equal")
        tips = labels.points_world
        axes.plot(tips[:, 1], tips[:, 2], "o", ms=4, mfc="none", mec="#39ff6a")
        axes.set_xlim(tips[:, 1].min() - 45, tips[:, 1].max() + 60)
        axes.set_title(f"confidence {labels.level_confidence:.2f}", color="white", fontsize=9)
        axes.axis("off")
    places = [(n, disc) for n, labels in enumerate(session.images) for disc in labels.discs]
    low, high = (end(disc.point_world[2] for _, disc in places) for end in (min, max))
    panels[0].set_ylim(low - 40, high + 40)
    for value in sorted({disc.value for _, disc in places}):
        own = [(panels[n], disc) for n, disc in places if disc.value == value]
        for (left, one), (right, other) in pairwise(own):
            joint = ConnectionPatch(
                one.point_world[1:], other.point_world[1:], "data", "data", axesA=left, axesB=right,
                color="#39ff6a", lw=0.8,
            )  # fmt: skip
            figure.add_artist(joint)
        axes, disc = own[-1]
        place = disc.point_world[1:] + (10, 0)
        axes.text(*place, f"{value} {disc.name}", color="#39ff6a", fontsize=7, va="center")
    figure.savefig(path, dpi=110, facecolor="black")


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
    """Draw all figures, or those that are named."""
    train, val, *names = sys.argv[1:]
    scans = read_scans(train)
    composites = [make_composite(np.random.default_rng((0, n)), scans) for n in range(3)]
    figures = {
        "discs": lambda path: draw_front(path, read_scans(val)),
        "spine_masks": lambda path: draw_masks(path, read_scans(val)),
        "frames": draw_frames,
        "synthesis": lambda path: draw_planes(path, scans + composites),
        "composites": lambda path: draw_composites(path, scans),
        "regions": lambda path: draw_regions(path, read_scans(val)),
        "failures": lambda path: draw_failures(path, val),
        "sessions": lambda path: draw_session(path, read_scans(val)),
    }
    for name in names or figures:
        figures[name](HERE / f"{name}.png")


if __name__ == "__main__":
    main()
