"""Small made-up folders of images and masks, and downloads of the layout of the public ones."""

import csv

import numpy as np
from PIL import Image

ROWS, COLUMNS = 29, 37


def picture(rng, *, rows=ROWS, columns=COLUMNS, channels=1, classes=2):
    """Return a bright disc on noise, 8-bit ``(rows, columns[, channels])``, and the index of its class."""
    row, column = np.mgrid[:rows, :columns]
    mask = np.zeros((rows, columns), dtype=np.uint8)
    image = rng.normal(60, 10, (rows, columns))
    for value in range(1, classes):
        centre = rng.uniform(0.3, 0.7, 2) * (rows, columns)
        inside = (row - centre[0]) ** 2 + (column - centre[1]) ** 2 < (0.2 * min(rows, columns)) ** 2
        mask[inside], image[inside] = value, image[inside] + 60 * value
    grey = image.clip(0, 255).astype(np.uint8)
    return (grey if channels == 1 else np.stack([grey // n for n in (1, 2, 3)], axis=2)), mask


def write_folder(folder, *, names=tuple("abcdefgh"), seed=0, fov=False, **options):
    """Write images and masks of 0 and 255 (or of indices, for several classes), as PNG."""
    rng = np.random.default_rng(seed)
    for part in ("images", "masks", "fov")[: 3 if fov else 2]:
        (folder / part).mkdir(parents=True)
    for name in names:
        image, mask = picture(rng, **options)
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        scaled = mask if options.get("classes", 2) > 2 else 255 * mask
        Image.fromarray(scaled).save(folder / "masks" / f"{name}.png")
        if fov:
            seen = np.zeros_like(mask)
            seen[4:-4, 4:-4] = 255
            Image.fromarray(seen).save(folder / "fov" / f"{name}.png")
    return folder


def write_subjects(folder, subjects):
    with (folder / "subjects.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "subject"])
        writer.writerows(subjects.items())


def write_skin(folder, *, count=4, seed=0):
    """Write a download of the layout of ISIC 2018, task 1."""
    rng = np.random.default_rng(seed)
    images = folder / "ISIC2018_Task1-2_Training_Input"
    masks = folder / "ISIC2018_Task1_Training_GroundTruth"
    for part in (images, masks):
        part.mkdir(parents=True)
    for number in reversed(range(count)):  # not in order
        image, mask = picture(rng, rows=53, columns=71, channels=3)
        Image.fromarray(image).save(images / f"ISIC_{number:07d}.jpg")
        Image.fromarray(255 * mask).save(masks / f"ISIC_{number:07d}_segmentation.png")
    (images / "LICENSE.txt").write_text("terms", encoding="utf-8")
    return folder


def write_retina(folder, *, count=3, seed=0):
    """Write a download of the layout of DRIVE."""
    rng = np.random.default_rng(seed)
    for part, first in (("training", 21), ("test", 1)):
        for inner in ("images", "1st_manual", "mask"):
            (folder / part / inner).mkdir(parents=True)
        for number in range(first, first + count):
            image, mask = picture(rng, rows=73, columns=67, channels=3)
            Image.fromarray(image).save(folder / part / "images" / f"{number:02d}_{part}.tif")
            Image.fromarray(255 * mask).save(folder / part / "1st_manual" / f"{number:02d}_manual1.gif")
            seen = np.zeros_like(mask)
            seen[8:-8, 5:-5] = 255
            Image.fromarray(seen).save(folder / part / "mask" / f"{number:02d}_{part}_mask.gif")
    return folder


def write_lung(folder, *, people=5, slices=2, seed=0):
    """Write a download of the layout of "finding lungs in CT data"; the last slice of all is empty."""
    rng = np.random.default_rng(seed)
    for part in ("2d_images", "2d_masks"):
        (folder / part).mkdir(parents=True)
    for person in range(people):
        for number in range(slices):
            image, mask = picture(rng)
            hounsfield = 2000 - 30 * image.astype(np.int32)  # the lung is dark
            if person == people - 1 and number == slices - 1:
                mask[:] = 0
            name = f"ID_{person:04d}_Z_{100 + number:04d}.tif"
            Image.fromarray(hounsfield).save(folder / "2d_images" / name)
            Image.fromarray(255 * mask).save(folder / "2d_masks" / name)
    return folder
