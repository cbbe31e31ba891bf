"""Draw the pictures of the tutorial, by running what it says; the page is drawn by Chromium.

    python docs/tutorial_pictures.py

writes tutorial_neck.png, tutorial_page.png and tutorial_corrected.png beside this file. Needs the extra ``browser``
and Chromium.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from playwright.sync_api import sync_playwright

from sct_deepspine.cli.batch import main as batch
from sct_deepspine.cli.label import main as label
from sct_deepspine.simulation.phantom import make_phantom

HERE = Path(__file__).parent
SIZE = {"width": 1280, "height": 720}


def draw_page(index):
    """Draw the review page, and again after a disc was moved."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=SIZE)
        page.goto(index.resolve().as_uri())
        page.wait_for_selector("#pictures image")
        page.screenshot(path=HERE / "tutorial_page.png")
        for key in ("j", "j", "j", "z", "z", "z", "z", "z"):
            page.keyboard.press(key)
        page.screenshot(path=HERE / "tutorial_corrected.png")
        browser.close()


def main():
    """Run the tutorial and draw what it shows."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        label(["-demo", "-ofolder", str(folder / "first"), "-v", "0"])
        shutil.copy(folder / "first" / "phantom_discs.png", HERE / "tutorial_neck.png")
        for number, (first, last) in enumerate([(3, 14), (3, 16), (17, 25)], start=1):
            scan = make_phantom(np.random.default_rng(number), first=first, last=last)
            path = folder / f"study/sub-0{number}/anat/sub-0{number}_T2w.nii.gz"
            path.parent.mkdir(parents=True)
            nib.save(nib.Nifti1Image(scan.volume.data, scan.volume.grid.affine), path)
        batch(["-i", str(folder / "study"), "-o", str(folder / "results"), "-v", "0"])
        draw_page(folder / "results" / "derivatives" / "sct_deepspine" / "index.html")


if __name__ == "__main__":
    main()
