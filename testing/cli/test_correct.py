"""Labels corrected by hand, and the other ways to steer the command."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import PaintReader, fake_model
from platforms import posix_signals

from sct_deepspine.cli.label import main

VOXEL_MM = 4.0
MODEL = fake_model()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def labelled(here, painted_file):
    """The labels that the command wrote: the image's path, the label file and its discs."""
    assert main(["-i", str(painted_file), "-v", "0"], model=MODEL) == 0
    return painted_file, Path("t2_discs.nii.gz"), discs_of("t2_discs.json")


def discs_of(name):
    return {
        disc["value"]: np.array(disc["world_mm"])
        for disc in json.loads(Path(name).read_text(encoding="utf-8"))["discs"]
    }


def edited(label_file, edit):
    """Write an edited copy of a label image; ``edit`` changes its array in place."""
    image = nib.load(label_file)
    data = np.asarray(image.dataobj).copy()
    edit(data)
    nib.save(nib.Nifti1Image(data, image.affine, image.header), "edited.nii.gz")


def again(image, *words):
    code = main(
        ["-i", str(image), "-initlabel", "edited.nii.gz", "-o", "again.nii.gz", "-v", "0", *words],
        model=MODEL,
    )
    return discs_of("again.json") if code == 0 else code


def test_an_unchanged_copy_changes_nothing(labelled):
    image, file, discs = labelled
    edited(file, lambda data: None)
    after = again(image)
    assert list(after) == list(discs)
    assert all(np.allclose(after[value], discs[value]) for value in discs)


@pytest.mark.parametrize(("value", "new"), [(6, 7), (6, 5), (3, 4), (10, 12)])
def test_a_renamed_disc_renumbers_all(value, new, labelled):
    image, file, discs = labelled

    def rename(data):
        data[data == value] = new

    edited(file, rename)
    after = again(image)
    kept = {v + new - value: tip for v, tip in discs.items() if 3 <= v + new - value <= 25}
    assert list(after) == list(kept)
    for v, tip in kept.items():
        assert np.linalg.norm(after[v] - tip) <= VOXEL_MM


def test_a_moved_disc_stays_where_it_was_put_and_the_others_where_they_were(labelled):
    image, file, discs = labelled

    def move(data):
        (i, j, k) = np.argwhere(data == 5)[0]
        data[i, j, k], data[i, j + 4, k] = 0, 5

    edited(file, move)
    after = again(image)
    assert list(after) == list(discs)
    assert 5 < np.linalg.norm(after[5] - discs[5]) < 8
    put = nib.load("edited.nii.gz")
    voxel = np.argwhere(np.asarray(put.dataobj) == 5)[0]
    assert np.asarray(nib.load("again.nii.gz").dataobj)[tuple(voxel)] == 5
    assert all(np.allclose(after[value], discs[value]) for value in discs if value != 5)


def test_discs_removed_stay_away(labelled):
    image, file, discs = labelled

    def remove(data):
        data[(data == 3) | (data == 6)] = 0

    edited(file, remove)
    assert list(again(image)) == [value for value in discs if value not in (3, 6)]


def test_a_value_at_two_new_places_is_refused(labelled, capsys):
    image, file, _ = labelled

    def twice(data):
        data[(data == 5) | (data == 7)] = 12

    edited(file, twice)
    assert again(image) == 1
    assert "renamed by +5 and +7" in capsys.readouterr().err
    assert not Path("again.nii.gz").exists()


def test_a_few_labels_are_taken_at_their_word(labelled):
    image, file, discs = labelled

    def keep(data):
        data[(data != 4) & (data != 8)] = 0
        data[data == 4], data[data == 8] = 6, 10

    edited(file, keep)
    assert list(again(image)) == [value + 2 for value in discs]


# Straightening


def test_without_straightening_the_discs_are_the_same(labelled):
    image, _, discs = labelled
    model = fake_model(refine=PaintReader(pixel_mm=1.0))
    for straight in ("auto", "off"):
        assert (
            main(
                ["-i", str(image), "-straight", straight, "-o", f"{straight}.nii.gz", "-v", "0"], model=model
            )
            == 0
        )
        found = discs_of(f"{straight}.json")
        assert list(found) == list(discs)
        assert max(np.linalg.norm(found[value] - discs[value]) for value in discs) < 3


def test_warps_that_are_not_there_are_told(labelled, capsys):
    image, *_ = labelled
    assert main(["-i", str(image), "-warps", "lost", "-o", "x.nii.gz"], model=MODEL) == 1
    assert "warp_curve2straight.nii.gz" in capsys.readouterr().err
    assert not Path("x.nii.gz").exists()


def test_what_needs_the_cord_says_so(labelled, capsys):
    image, *_ = labelled
    with pytest.raises(SystemExit) as exit_:
        main(["-i", str(image), "-straight", "sct"], model=MODEL)
    assert exit_.value.code == 2
    assert "give -s SEG" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["-register", "1"], ["-straight", "sct"]])
def test_without_sct_what_needs_it_is_refused(words, labelled, capsys, monkeypatch):
    image, *_ = labelled
    monkeypatch.setitem(sys.modules, "spinalcordtoolbox", None)
    from sct_deepspine import sct

    sct.require_sct.cache_clear()
    assert main(["-i", str(image), "-s", str(image), *words, "-o", "x.nii.gz"], model=MODEL) == 1
    assert "Spinal Cord Toolbox is not installed" in capsys.readouterr().err
    assert not Path("x.nii.gz").exists()
    sct.require_sct.cache_clear()


# The report


@pytest.fixture
def no_sct(monkeypatch):
    monkeypatch.setitem(sys.modules, "spinalcordtoolbox", None)


def test_the_page_gathers_scans_and_replaces_those_labelled_again(labelled, no_sct, capsys):
    image, *_ = labelled
    other = image.with_name("other.nii.gz")
    shutil.copy(image, other)
    for path in (image, other, image):
        assert (
            main(["-i", str(path), "-qc", "qc", "-qc-dataset", "set", "-qc-subject", "one"], model=MODEL) == 0
        )
    assert "qc/index.html" in capsys.readouterr().out
    page = Path("qc/index.html").read_text(encoding="utf-8")
    assert page.count('"picture": "iVBOR') == 2
    assert "set / one / other" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.browser
def test_the_page_works_in_a_browser(labelled, no_sct, browser):
    image, *_ = labelled
    assert main(["-i", str(image), "-qc", "qc", "-v", "0"], model=MODEL) == 0
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(Path("qc/index.html").resolve().as_uri())
    assert page.locator("circle").count() == 8
    page.keyboard.press("t")
    assert page.locator("circle").count() == 0
    page.keyboard.press("f")
    assert "rated: fail" in page.locator("#facts").inner_text()
    with page.expect_download() as download:
        page.keyboard.press("c")
    download.value.save_as("ratings.csv")
    assert errors == []
    assert Path("ratings.csv").read_text(encoding="utf-8").splitlines()[1].startswith('"t2",fail,')


@pytest.mark.browser
def test_discs_are_corrected_on_the_page(labelled, no_sct, browser):
    image, _, discs = labelled
    assert main(["-i", str(image), "-qc", "qc", "-v", "0"], model=MODEL) == 0
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(Path("qc/index.html").resolve().as_uri())
    # Drag C5/C6 (6), remove C6/C7 (7) with its button, add one below the last, renumber all by a key.
    box = page.locator('circle[data-value="6"]').bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=4)
    page.mouse.up()
    page.locator('circle[data-value="7"]').click()
    page.get_by_role("button", name="remove").click()
    page.get_by_role("button", name="keep the numbers").click()
    low = page.locator('circle[data-value="10"]').bounding_box()
    page.mouse.dblclick(low["x"], low["y"] + 40)
    page.keyboard.press("+")
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as("corrections.json")
    page.reload()
    assert page.locator("circle").count() == 8  # corrections outlive a reload
    assert errors == []
    (told,) = json.loads(Path("corrections.json").read_text(encoding="utf-8"))["scans"].values()
    assert told["absent"] == [8]
    found = {disc["value"]: np.array(disc["world_mm"]) for disc in told["discs"]}
    assert list(found) == [4, 5, 6, 7, 9, 10, 11, 12]
    for value in (3, 4, 5, 8, 9, 10):
        assert np.linalg.norm((found[value + 1] - discs[value])[1:]) < 1.5
    forwards, _ = (found[7] - discs[6])[1:]
    assert forwards > 3
    assert found[12][2] < discs[10][2] - 3


# Interruption


WRITES_SLOWLY = """
import signal, sys, time
from sct_deepspine.cli.label import main
from sct_deepspine.labels import DiscLabels

save = DiscLabels.save

def save_slowly(labels, path):
    save(labels, path)
    print("written", flush=True)
    time.sleep(60)

DiscLabels.save = save_slowly
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started to ignore it
sys.exit(main())
"""


@posix_signals
@pytest.mark.parametrize(("signal_", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_interrupted_while_it_writes_leaves_nothing(signal_, code, here, phantom_file):
    running = subprocess.Popen(
        [sys.executable, "-c", WRITES_SLOWLY, "-i", phantom_file, "-ofolder", here / "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout.readline() == "written\n"
    running.send_signal(signal_)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert err.splitlines() == ["interrupted; nothing half-written was left"]
    assert not list((here / "out").iterdir())
