"""A rater's work on the page: identity, edits, undo, files, and what becomes of them."""

import base64
import io
import json
import random
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import fake_model
from PIL import Image

from sct_deepspine import process_scan
from sct_deepspine.anatomy import disc_name
from sct_deepspine.cli.batch import main as batch
from sct_deepspine.cli.label import main as label
from sct_deepspine.errors import LabelsError
from sct_deepspine.io.disc_labels import read_page_corrections
from sct_deepspine.reporting.html import Entry, failed_entry, write_page
from sct_deepspine.workflow.request import ScanRequest

pytestmark = pytest.mark.browser

MODEL = fake_model()
HEIGHT, WIDTH, FIRST_ROW, STEP = 240, 90, 30, 22
GRID = {"shape": [40, 300, 300], "affine": [[1, 0, 0, -20], [0, 1, 0, -100], [0, 0, 1, -280], [0, 0, 0, 1]]}


def made_up(name="t2", sha="a", path=None, values=range(3, 11), **changes):
    """An entry whose row r and column c are the world point (0, c, −r)."""
    grey, target = np.full((HEIGHT, WIDTH), 90, dtype=np.uint8), io.BytesIO()
    grey[::STEP] = 200
    Image.fromarray(grey).save(target, format="PNG")
    rows = [FIRST_ROW + STEP * n for n in range(len(values))]
    discs = tuple(
        {"value": v, "name": disc_name(v), "confidence": 0.9, "interpolated": False, "row": r, "column": 40.0}
        | {"world_mm": [0.0, 40.0, -float(r)]}
        for v, r in zip(values, rows, strict=True)
    )
    content = {
        "picture": base64.b64encode(target.getvalue()).decode(),
        "width": WIDTH,
        "height": HEIGHT,
        "discs": discs,
        "level_confidence": 0.8,
        "row_origins": tuple((0.0, 0.0, -float(r)) for r in range(HEIGHT)),
        "column_step": (0.0, 1.0, 0.0),
        "image": GRID | {"sha256": (sha * 64)[:64], "path": path or f"{name}.nii.gz"},
    }
    return Entry(name, **content | changes)


@pytest.fixture
def context(browser):
    return browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)


@contextmanager
def opened(context, path):
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(Path(path).resolve().as_uri())
    yield page
    page.close()
    assert errors == []


@pytest.fixture
def sheet(context, tmp_path):
    """Write a page and open it; further windows share the browser's storage."""

    @contextmanager
    def open_page(*entries, **options):
        if entries:
            write_page(tmp_path / "index.html", entries, title="t", **options)
        with opened(context, tmp_path / "index.html") as page:
            yield page

    return open_page


def table(page):
    """Value → word of each row of the table of discs."""
    rows = [row.locator("td").all_inner_texts() for row in page.locator("#facts tr[data-value]").all()]
    return {int(cells[0]): cells[3] for cells in rows}


def saved(page, key="s"):
    with page.expect_download() as download:
        page.keyboard.press(key)
    page.wait_for_timeout(150)  # Chromium stops a page that downloads more than ten files a second
    return Path(download.value.path()).read_text(encoding="utf-8")


def scans_of(page):
    return json.loads(saved(page))["scans"]


def load(page, folder, content):
    path = folder / "loaded.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    page.locator("#file").set_input_files(path)
    page.wait_for_function("document.getElementById('message').textContent !== ''")


def choose(page, value):
    page.locator(f'#facts tr[data-value="{value}"]').click()


def drag(page, value, down, right=0):
    """Drag a disc, and return what the page says before it is let go."""
    box = page.locator(f'circle[data-value="{value}"]').bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y + down, steps=3)
    told = said(page)
    page.mouse.up()
    return told


def said(page):
    return page.locator("#message").inner_text()


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


# Identity


def test_two_files_of_one_name_share_nothing(painted_file, tmp_path, monkeypatch, context):
    monkeypatch.setitem(__import__("sys").modules, "spinalcordtoolbox", None)
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t2.nii.gz").write_bytes(painted_file.read_bytes())
        monkeypatch.chdir(tmp_path / name)
        assert label(["-i", "t2.nii.gz", "-qc", "../qc", "-v", "0"], model=MODEL) == 0
    with opened(context, tmp_path / "qc" / "index.html") as page:
        assert page.locator("#list .name").all_inner_texts() == ["A/t2", "B/t2"]
        press(page, "f", "8")
        press(page, "ArrowDown")
        assert "not rated" in page.locator("#facts").inner_text()
        assert list(table(page)) == list(range(3, 11))
        press(page, "p")
        scans = scans_of(page)
    assert [(scan["rating"], "discs" in scan) for scan in scans.values()] == [("fail", True), ("pass", False)]
    for key, folder in zip(scans, "AB", strict=True):
        assert key.endswith(f"/{folder}/t2.nii.gz")


def test_work_on_another_version_of_an_image_is_marked_and_not_mixed(sheet):
    with sheet(made_up(sha="a"), made_up("other", sha="c")) as page:
        page.locator("#list .name", has_text="t2").click()
        press(page, "f", "8")
    with sheet(made_up(sha="b"), made_up("other", sha="c")) as page:
        page.locator("#list .name", has_text="t2").click()
        facts = page.locator("#facts").inner_text()
        assert "not rated" in facts
        assert "Another version of this image was rated fail, corrected" in facts
        assert list(table(page)) == list(range(3, 11))
        assert [key[:3] for key in scans_of(page)] == ["aaa"]  # nor lost
        page.get_by_role("button", name="take over").click()
        assert list(table(page)) == list(range(4, 12))
        press(page, "u")
        assert list(table(page)) == list(range(3, 11))


def test_work_on_an_image_on_another_grid_can_not_be_taken_over(sheet):
    with sheet(made_up(sha="a")) as page:
        press(page, "8")
    moved = GRID | {"shape": [40, 300, 299], "sha256": "b" * 64, "path": "t2.nii.gz"}
    with sheet(made_up(image=moved)) as page:
        assert page.get_by_role("button", name="take over").is_disabled()
        page.get_by_role("button", name="discard").click()
        assert "Another version" not in page.locator("#facts").inner_text()


# Edits


@pytest.mark.parametrize(
    ("chosen", "keys", "values"),
    [
        (3, ["8"], range(4, 12)),
        (3, ["7"], range(2, 10)),
        (3, ["+"], range(4, 12)),
        (10, ["Delete"], range(3, 10)),
        (10, ["n"], range(3, 12)),
        (6, ["n", "1"], range(3, 12)),
        (6, ["n", "2"], range(2, 11)),
        (6, ["n", "Escape"], range(3, 11)),
        (6, ["6", "2"], range(3, 12)),
        (6, ["Delete", "2"], range(3, 10)),
        (6, ["Delete", "3"], range(4, 11)),
        (6, ["2", "2"], range(4, 12)),
    ],
)
def test_an_edit_by_keys_leaves_values_without_a_gap(chosen, keys, values, sheet):
    with sheet(made_up()) as page:
        choose(page, chosen)
        press(page, *keys)
        assert list(table(page)) == list(values)


@pytest.mark.parametrize(
    ("chosen", "keys", "gone"),
    [(6, ["e"], 6), (6, ["Delete", "1"], 6), (6, ["6", "1"], 6), (6, ["3", "1"], 6), (10, ["2", "1"], 10)],
)
def test_a_level_is_marked_as_not_there(chosen, keys, gone, sheet):
    with sheet(made_up()) as page:
        choose(page, chosen)
        press(page, *keys)
        assert table(page)[gone] == "not there"
        (scan,) = scans_of(page).values()
        assert scan["absent"] == [gone]
        assert gone not in [disc["value"] for disc in scan["discs"]]


def test_every_edit_has_a_button(sheet):
    with sheet(made_up(), made_up("second", sha="b")) as page:

        def click(name):
            page.get_by_role("button", name=name, exact=False).first.click()

        click("pass p")
        click("accept y")
        choose(page, 10)
        click("remove Del")
        click("add n")
        choose(page, 6)
        click("not there")
        choose(page, 5)
        for name in ("↑", "↓", "back", "front", "from here up −1"):
            click(name)
        click("mark as not there")
        for name in ("all +1", "all −1"):
            click(name)
        click("undo")
        click("redo")
        assert list(table(page)) == list(range(2, 11))
        assert [value for value, word in table(page).items() if word == "not there"] == [5, 6]
        click("reset scan")
        assert list(table(page)) == list(range(3, 11))
        for name, file in (("save", "corrections.json"), ("CSV", "ratings.csv")):
            with page.expect_download() as download:
                page.locator("header").get_by_role("button", name=name).click()
            assert download.value.suggested_filename == file


def test_a_disc_dragged_past_its_neighbour_is_refused(sheet):
    with sheet(made_up()) as page:
        scale = page.locator("#pictures image").bounding_box()["height"] / HEIGHT
        drag(page, 6, STEP * scale * 1.4)
        assert "can't lie above 6 C5/C6" in said(page)
        drag(page, 6, STEP * scale)
        assert "can't be at the same place" in said(page) or "can't lie above" in said(page)
        assert set(table(page).values()) == {""}
        drag(page, 6, STEP * scale * 0.4, 9)
        assert [value for value, word in table(page).items() if word == "moved"] == [6]
        (scan,) = scans_of(page).values()
        x, y, z = scan["discs"][3]["world_mm"]
        assert (x, y, z) == pytest.approx((0, 40 + 9 / scale, -(FIRST_ROW + 3.4 * STEP)), abs=0.2)


def test_a_double_click_between_two_discs_offers_the_renumbering(sheet):
    with sheet(made_up()) as page:
        low, high = (page.locator(f'circle[data-value="{v}"]').bounding_box() for v in (6, 5))
        page.mouse.dblclick(low["x"] + 5, (low["y"] + high["y"]) / 2 + 6)
        offers = page.locator("#offer button").all_inner_texts()
        assert "renumber the 5 discs below: C5/C6 becomes C6/C7; the new disc is 6 C5/C6" in offers[0]
        assert "renumber the 3 discs above: C4/C5 becomes C3/C4; the new disc is 5 C4/C5" in offers[1]
        assert list(table(page)) == list(range(3, 11))
        page.locator("#offer button").first.click()
        assert list(table(page)) == list(range(3, 12))
        assert table(page)[6] == "added"
        assert table(page)[7] == "renumbered"


@pytest.mark.parametrize(("values", "key"), [(range(18, 26), "8"), (range(1, 9), "7")])
def test_numbers_that_are_no_discs_are_refused(values, key, sheet):
    with sheet(made_up(values=values)) as page:
        press(page, key)
        assert "Numbers run from 1 top of C1 to 25 L5/S1" in said(page)
        assert list(table(page)) == list(values)


def test_a_spine_with_a_vertebra_more_has_its_own_names_and_keeps_its_lowest_disc(sheet, tmp_path):
    discs = tuple(d | {"name": disc_name(d["value"], 25)} for d in made_up(values=range(21, 27)).discs)
    with sheet(made_up(values=range(21, 27), discs=discs, presacral=25)) as page:
        shown_names = page.locator("#facts").inner_text()
        assert "L5/L6" in shown_names
        assert "L6/S1" in shown_names
        choose(page, 26)
        press(page, "w")
        content = saved(page)
        (scan,) = json.loads(content)["scans"].values()
        assert (scan["presacral"], scan["discs"][-1]["value"]) == (25, 26)
        path = tmp_path / "corrections.json"
        path.write_text(content, encoding="utf-8")
        (reviewed,) = read_page_corrections(path)
        assert reviewed.labels.presacral == 25
        press(page, "7")  # all one up: then the lowest is no longer the disc above the sacrum
        (scan,) = scans_of(page).values()
        assert "presacral" not in scan


def test_a_disc_outside_the_image_is_refused(sheet):
    image = GRID | {"shape": [40, 142, 300], "sha256": "a" * 64, "path": "t2.nii.gz"}
    with sheet(made_up(image=image)) as page:
        choose(page, 6)
        press(page, "x")
        assert set(table(page).values()) == {"", "moved"}
        press(page, "x")
        assert "6 C5/C6 would lie outside the image" in said(page)


CANAL = tuple((0.0, 30.0, 40.0 - 5.0 * n) for n in range(70))


def test_a_disc_far_from_the_canal_is_refused_while_it_is_drawn(sheet):
    with sheet(made_up(canal_points=CANAL)) as page:
        scale = page.locator("#pictures image").bounding_box()["height"] / HEIGHT
        refusal = "6 C5/C6 would lie more than 40 mm from the spinal canal."
        assert drag(page, 6, 0, 32 * scale) == refusal  # the canal is in column 30, the discs in column 40
        assert said(page) == refusal
        assert set(table(page).values()) == {""}
        assert drag(page, 6, 0, 28 * scale) == ""
        assert [value for value, word in table(page).items() if word == "moved"] == [6]
        choose(page, 6)
        press(page, "x", "x", "x")
        assert said(page) == refusal
        low = page.locator('circle[data-value="10"]').bounding_box()
        page.mouse.dblclick(low["x"] + 34 * scale, low["y"] + 20 * scale)
        assert said(page) == "A disc more than 40 mm from the spinal canal can't be added."
        high = page.locator('circle[data-value="8"]').bounding_box()
        page.mouse.dblclick(high["x"] + 34 * scale, high["y"] + 10 * scale)  # before it asks for a number
        assert said(page) == "A disc more than 40 mm from the spinal canal can't be added."
        assert list(table(page)) == list(range(3, 11))


def test_a_disc_far_from_the_canal_that_was_loaded_is_told_and_can_be_moved_nearer(sheet, tmp_path):
    with sheet(made_up(canal_points=CANAL)) as page:
        load(page, tmp_path, {"scans": {"t2": [{"value": 5, "world_mm": [0, 75, -60]}]}})
        facts = page.locator("#facts")
        assert "5 C4/C5 would lie more than 40 mm from the spinal canal" in facts.inner_text()
        choose(page, 5)
        press(page, "a", "a", "a", "a")
        assert "spinal canal" in facts.inner_text()
        press(page, "a")
        assert "spinal canal" not in facts.inner_text()


def test_without_a_canal_no_distance_is_checked(sheet):
    with sheet(made_up()) as page:
        scale = page.locator("#pictures image").bounding_box()["height"] / HEIGHT
        drag(page, 6, 0, 45 * scale)
        assert table(page)[6] == "moved"


def test_a_scan_without_any_disc_is_told_at_once_and_when_it_is_saved(sheet):
    with sheet(made_up(values=(5, 6))) as page:
        choose(page, 5)
        press(page, "Delete")
        choose(page, 6)
        press(page, "Delete")
        notice = "The scan has no disc: add one, or reset the scan."
        assert page.locator("#facts .notice.error").inner_text() == notice
        assert "!" in page.locator("#list .badge").text_content()
        (scan,) = scans_of(page).values()
        assert scan["discs"] == []
        assert said(page) == f"Saved 1 scan to corrections.json. 1 can't be applied yet: t2: {notice}"
        press(page, "n")
        assert page.locator("#facts .notice").count() == 0


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({5: 60, 7: 90}, "6 C5/C6 is missing: add it, or mark it as not there."),
        ({5: 90, 6: 60}, "6 C5/C6 can't lie above 5 C4/C5."),
        ({}, "The scan has no disc: add one, or reset the scan."),
    ],
)
def test_discs_that_can_not_be_applied_are_not_accepted(rows, reason, sheet, tmp_path):
    with sheet(made_up()) as page:
        discs = [{"value": value, "world_mm": [0, 40, -row]} for value, row in rows.items()]
        load(page, tmp_path, {"scans": {"t2": discs}})
        press(page, "y")
        assert said(page) == f"The discs can't be accepted as they are. {reason}"
        assert "✓" not in page.locator("#list .badge").text_content()
        press(page, "R", "y")
        assert "✓" in page.locator("#list .badge").text_content()


# Keys


def test_each_button_of_a_scan_has_a_key(sheet):
    with sheet(made_up(sha="a")) as page:
        press(page, "f", "8")
    with sheet(made_up(sha="b")) as page:
        facts = page.locator("#facts")
        for button in ("take over v", "discard g", "reset scan R"):
            assert facts.get_by_role("button", name=button).count() == 1
        press(page, "v")
        assert list(table(page)) == list(range(4, 12))
        assert "rated: fail" in facts.inner_text()
        press(page, "R")
        assert list(table(page)) == list(range(3, 11))
        press(page, "R")
        assert said(page) == "There are no edits of this scan to remove."
        press(page, "u", "u", "g")
        assert "Another version" not in facts.inner_text()
        assert scans_of(page) == {}
        for key in "vg":
            press(page, key)
            assert said(page) == "There is no work on another version of this image."
        press(page, "?")
        shown_keys = page.locator("#keys").inner_text()
        assert "take over, discard" in shown_keys
        assert "reset scan" in shown_keys


def test_work_on_another_grid_is_not_taken_over_by_its_key(sheet):
    with sheet(made_up(sha="a")) as page:
        press(page, "8")
    moved = GRID | {"shape": [40, 300, 299], "sha256": "b" * 64, "path": "t2.nii.gz"}
    with sheet(made_up(image=moved)) as page:
        press(page, "v")
        assert said(page) == "It can't be taken over: the other version has another voxel grid."
        assert list(table(page)) == list(range(3, 11))


def locked(page, *keys, **modifiers):
    """Press keys while CapsLock is on."""
    event = "options => document.body.dispatchEvent(new KeyboardEvent('keydown', options))"
    for key in keys:
        page.evaluate(event, {"key": key, "bubbles": True, "modifierCapsLock": True} | modifiers)


def test_keys_work_while_capslock_is_on(sheet):
    with sheet(made_up()) as page:
        facts = page.locator("#facts")
        locked(page, "P", "8")
        assert "rated: pass" in facts.inner_text()
        locked(page, "R")  # the contrast of the pictures, not the edits
        assert list(table(page)) == list(range(4, 12))
        locked(page, "U")
        assert list(table(page)) == list(range(3, 11))
        for key in "uU":  # systems differ in what Shift makes of a locked letter
            locked(page, key, shiftKey=True)
            assert list(table(page)) == list(range(4, 12))
            locked(page, "Z", ctrlKey=True)
            assert list(table(page)) == list(range(3, 11))
        press(page, "F")
        assert "rated: fail" in facts.inner_text()


def test_a_key_that_needs_a_picture_says_that_it_is_still_loading(sheet, context, tmp_path):
    with sheet(made_up(), pictures_beside=True):
        pass
    (script,) = (tmp_path / "index_files").glob("*.js")
    script.write_text(f"window.arrive = () => {script.read_text(encoding='utf-8')}", encoding="utf-8")
    with opened(context, tmp_path / "index.html") as page:
        page.wait_for_function("'arrive' in window")
        for key in ("8", "y", "n", "0", "i"):
            press(page, "p")
            assert said(page) == ""
            press(page, key)
            assert said(page) == "The pictures are still loading: try again when they are shown."
        page.evaluate("arrive()")
        press(page, "8")
        assert list(table(page)) == list(range(4, 12))
        assert said(page) == ""


# Undo, storage, files


def test_every_step_is_undone_and_done_again(sheet):
    with sheet(made_up(), made_up("second", sha="b")) as page:
        states = [scans_of(page)]
        choose(page, 6)
        for keys in (["p"], ["w"], ["e"], ["8"], ["y"], ["ArrowDown", "f"], ["j", "a"], ["n", "1"], ["d"]):
            press(page, *keys)
            states.append(scans_of(page))
        assert len({json.dumps(state) for state in states}) == len(states)
        for state in states[-2::-1]:
            press(page, "u")
            assert scans_of(page) == state
        for state in states[1:]:
            press(page, "Control+y")
            assert scans_of(page) == state


def test_work_outlives_a_reload_and_closing_warns_until_it_is_saved(sheet):
    with sheet(made_up(), made_up("second", sha="b")) as page:
        asked = []
        page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
        page.reload()
        assert asked == []
        press(page, "f", "8", "y")
        assert page.locator("#unsaved").inner_text() == "1 not saved"
        page.reload()
        assert asked == ["beforeunload"]
        assert list(table(page)) == list(range(4, 12))
        assert "rated: fail" in page.locator("#facts").inner_text()
        before = scans_of(page)
        assert page.locator("#unsaved").inner_text() == ""
        page.reload()
        assert asked == ["beforeunload"]
        assert scans_of(page) == before


def test_steps_are_undone_after_a_reload(sheet):
    with sheet(made_up(), made_up("second", sha="b")) as page:
        states = [scans_of(page)]
        for keys in (["p"], ["8"], ["ArrowDown", "f"], ["y"]):
            press(page, *keys)
            states.append(scans_of(page))
        for state in states[-2::-1]:
            page.reload()
            press(page, "u")
            assert scans_of(page) == state
        for state in states[1:]:
            page.reload()
            press(page, "U")
            assert scans_of(page) == state


def test_the_steps_that_are_kept_are_bounded(sheet, tmp_path):
    steps = "sessionStorage.getItem(Object.keys(sessionStorage).find((name) => name.includes('steps')))"
    with sheet(made_up()) as page:
        press(page, *["p"] * 205)
        kept = json.loads(page.evaluate(steps))
        assert len(kept["done"]) == 200
        page.reload()
        press(page, *["u"] * 201)
        assert said(page) == "There is nothing to undo."
        many = {f"other {n}": [{"value": 5, "world_mm": [0, 75, -60]}] * 20 for n in range(700)}
        load(page, tmp_path, {"scans": many})
        assert json.loads(page.evaluate(steps))["done"] == []  # nor what came before it
        press(page, "u")
        assert said(page) == "Undone: a file was loaded"


def test_undo_leaves_what_another_window_has_changed_since(sheet):
    with sheet(made_up(), made_up("second", sha="b")) as page:
        press(page, "ArrowDown", "p", "ArrowUp", "p")
        with sheet() as other:
            press(other, "f")
        page.wait_for_function("document.getElementById('facts').textContent.includes('rated: fail')")
        press(page, "u")
        assert said(page) == "“rated pass” can't be undone: another window has changed the scan since."
        assert "rated: fail" in page.locator("#facts").inner_text()
        press(page, "u")
        assert said(page) == "Undone: rated pass (t2)"


def test_a_file_is_loaded_by_key_image_and_name(sheet, tmp_path):
    first, second = made_up("a", sha="a"), made_up("b", sha="b")
    with sheet(first, second) as page:
        press(page, "p", "8", "ArrowDown", "d")
        before = json.loads(saved(page))
    with sheet(made_up("renamed", sha="a"), second) as page:
        page.evaluate("localStorage.clear()")
        page.reload()
        assert scans_of(page) == {}
        load(page, tmp_path, before)
        after = scans_of(page)
        assert {scan["name"]: scan.get("rating") for scan in after.values()} == {
            "renamed": "pass",
            "b": "doubt",
        }
        discs = {
            disc["value"]: disc["world_mm"] for disc in after["aaaaaaaaaaaaaaaa:renamed.nii.gz"]["discs"]
        }
        assert list(discs) == list(range(4, 12))
        press(page, "u")
        assert scans_of(page) == {}
        early = {
            "scans": {"b": [{"value": 5, "world_mm": [0, 40, -60]}, {"value": 7, "world_mm": [0, 40, -90]}]}
        }
        load(page, tmp_path, early)
        page.locator("#list .name", has_text="b").click()
        assert table(page) == {5: "corrected", 6: "missing", 7: "corrected"}
        assert "6 C5/C6 is missing" in page.locator("#facts").inner_text()
        choose(page, 6)
        press(page, "n")
        assert table(page)[6] == "added"
        load(page, tmp_path, 'scan,rating,level_confidence\n"b",fail,0.5\n')
        assert "rated: fail" in page.locator("#facts").inner_text()


@pytest.mark.parametrize("content", ["no file", "{}", '{"scans": {"b": {"discs": [{"value": 5}]}}}'])
def test_a_broken_file_changes_nothing(content, sheet, tmp_path):
    with sheet(made_up()) as page:
        press(page, "p")
        before = scans_of(page)
        load(page, tmp_path, content)
        assert "can't be read" in said(page)
        assert scans_of(page) == before


def test_labels_made_anew_do_not_cost_corrections(sheet):
    with sheet(made_up()) as page:
        press(page, "8")
    with sheet(made_up(values=range(6, 14))) as page:
        assert list(table(page)) == list(range(4, 12))
        assert "The scan was labelled again after you corrected it" in page.locator("#facts").inner_text()


# Finding one's way


def test_scans_are_filtered_and_counted(sheet):
    entries = [made_up("sure", sha="1"), made_up("doubtful", sha="2", level_confidence=0.2)]
    with sheet(*entries, failed_entry("bad", "why"), made_up("done", sha="3", corrected=True)) as page:
        buttons = page.locator("#filters button")
        assert buttons.all_inner_texts() == ["all 4", "unrated 4", "corrected 1", "failed 1", "doubtful 1"]
        assert "1 of 4 reviewed" in page.locator("#progress").inner_text()
        buttons.nth(4).click()
        assert page.locator("#list button:visible .name").all_inner_texts() == ["doubtful"]
        press(page, "8")
        assert "✎" in page.locator("#list button:visible .badge").inner_text()
        assert "2 of 4 reviewed" in page.locator("#progress").inner_text()
        press(page, "q")
        assert page.locator("#list button:visible").count() == 4


def test_the_subject_and_the_keys_are_seen_at_1280_by_720(sheet):
    names = [f"sub-{n:02d}/ses-01/anat/sub-{n:02d}_ses-01_acq-sag_T2w" for n in range(12)]
    with sheet(*(made_up(name, sha=f"{n:x}") for n, name in enumerate(names))) as page:
        first = page.locator("#list .name").first
        assert first.inner_text() == "sub-00_ses-01_acq-sag_T2w"
        assert first.evaluate("node => node.scrollWidth <= node.clientWidth")
        assert not page.locator("#keys").is_visible()
        press(page, "?")
        box = page.locator("#keys > div").bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 720
        assert page.locator("#keys > div").evaluate("node => node.scrollHeight <= node.clientHeight + 1")
        press(page, "p")
        press(page, "Escape")
        assert "not rated" in page.locator("#facts").inner_text()  # keys do nothing behind the help


def test_arrows_on_a_slider_move_the_slider(sheet):
    with sheet(made_up("a"), made_up("b", sha="b")) as page:
        slider = page.locator("#window-width")
        slider.focus()
        before = float(slider.input_value())
        press(page, "ArrowUp", "ArrowUp")
        assert float(slider.input_value()) == pytest.approx(before + 0.02)
        assert page.locator("#facts h2").inner_text() == "a"


def test_dark_and_light(sheet):
    def wait_for(page, colour):
        page.wait_for_function(
            "colour => getComputedStyle(document.getElementById('facts')).backgroundColor === colour",
            arg={"light": "rgb(255, 255, 255)", "dark": "rgb(30, 33, 39)"}[colour],
        )

    with sheet(made_up()) as page:
        for colour in ("light", "dark"):
            page.emulate_media(color_scheme=colour)
            wait_for(page, colour)
        press(page, "b")
        page.reload()
        wait_for(page, "light")


# Many scans


def test_pictures_of_many_scans_lie_beside_the_page_and_come_when_wanted(sheet, context, tmp_path):
    entries = [made_up(f"scan-{n:03d}", sha=f"{n:064x}", level_confidence=n / 100) for n in range(40)]
    with sheet(*entries) as page:
        assert "iVBOR" not in (tmp_path / "index.html").read_text(encoding="utf-8")
        assert len(list((tmp_path / "index_files").glob("*.js"))) == 40
        for n in range(40):
            page.wait_for_selector("circle")
            assert page.locator("#facts h2").inner_text() == f"scan-{n:03d}"
            assert page.locator("circle").count() == 8
            press(page, "p", "ArrowDown")
        assert "40 of 40" in page.locator("#progress").inner_text()
        page.locator("#list button").first.click()  # its picture has gone meanwhile, and comes again
        page.wait_for_selector("circle")
    for path in (tmp_path / "index_files").glob("*.js"):
        path.unlink()
    with opened(context, tmp_path / "index.html") as page:
        page.wait_for_selector("text=are not beside the page")
    with sheet(*entries[:3]) as page:
        assert not (tmp_path / "index_files").exists()
        assert page.locator("circle").count() == 8


# From the page to the files and back


def dataset(folder, painted, count):
    for n in range(count):
        place = folder / f"sub-{n:02d}" / "anat" / f"sub-{n:02d}_T2w.nii.gz"
        place.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(painted.data * np.float32(1 + n / 1000), painted.grid.affine), place)
    (folder / "dataset_description.json").write_text(
        '{"Name": "t", "BIDSVersion": "1.9.0"}', encoding="utf-8"
    )
    return folder


def test_the_saved_file_works_with_every_command(painted, tmp_path, context, capsys):
    source, out = dataset(tmp_path / "in", painted, 2), tmp_path / "out"
    words = ["-i", str(source), "-o", str(out), "-v", "0"]
    assert batch(words, model=MODEL) == 0
    index, file = out / "derivatives" / "sct_deepspine" / "index.html", tmp_path / "corrections.json"
    with opened(context, index) as page:
        choose(page, 6)
        press(page, "e", "8", "f")
        file.write_text(saved(page), encoding="utf-8")
    (reviewed,) = read_page_corrections(file)
    corrected = source / f"{reviewed.name}.nii.gz"
    expected = [4, 5, 6, 8, 9, 10, 11]
    for meaning in ("edits", "labels"):
        result = process_scan(corrected, ScanRequest(**{meaning: str(file)}), model=MODEL)
        assert [disc.value for disc in result.labels.discs] == expected
    copy = tmp_path / "elsewhere.nii.gz"
    copy.write_bytes(corrected.read_bytes())  # told by its fingerprint
    assert (
        label(["-i", str(copy), "-initlabel", str(file), "-ofolder", str(tmp_path), "-v", "0"], model=MODEL)
        == 0
    )
    data = np.asarray(nib.load(tmp_path / "elsewhere_discs.nii.gz").dataobj)
    assert sorted(data[data > 0].tolist()) == expected
    (other,) = {*source.rglob("*.nii.gz")} - {corrected}
    assert label(["-i", str(other), "-initlabel", str(file), "-v", "0"], model=MODEL) == 1
    err = capsys.readouterr().err
    assert "holds no corrections of" in err
    assert err.count("\n") == 1
    image = nib.load(corrected)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, image.affine), corrected)
    with pytest.raises(LabelsError, match="another version of the image"):
        process_scan(corrected, ScanRequest(edits=str(file)), model=MODEL)
    assert batch([*words, "-corrections", str(file)], model=MODEL) == 1
    assert "another version of the image" in capsys.readouterr().err


def test_corrections_that_are_refused_can_be_set_right_on_the_page(painted, tmp_path, context, capsys):
    source, out, file = dataset(tmp_path / "in", painted, 1), tmp_path / "out", tmp_path / "corrections.json"
    words = ["-i", str(source), "-o", str(out), "-v", "0"]
    index = out / "derivatives" / "sct_deepspine" / "index.html"
    assert batch(words, model=MODEL) == 0
    with opened(context, index) as page:
        press(page, "8")
        content = json.loads(saved(page))
    (scan,) = content["scans"].values()
    del scan["discs"][3]
    file.write_text(json.dumps(content), encoding="utf-8")
    assert batch([*words, "-corrections", str(file)], model=MODEL) == 1
    assert "7 (C6/C7) is missing between discs above and below" in capsys.readouterr().err
    with opened(context, index) as page:
        assert "is missing between" in page.locator("#facts").inner_text()
        load(page, tmp_path, content)
        choose(page, 7)
        press(page, "e")
        file.write_text(saved(page), encoding="utf-8")
    assert batch([*words, "-corrections", str(file)], model=MODEL) == 0
    with opened(context, index) as page:
        assert table(page)[7] == "not there"


def test_a_scan_saved_without_any_disc_is_refused_by_name_and_stays_on_the_page(
    painted, tmp_path, context, capsys
):
    source, out, file = dataset(tmp_path / "in", painted, 1), tmp_path / "out", tmp_path / "corrections.json"
    words = ["-i", str(source), "-o", str(out), "-v", "0"]
    index = out / "derivatives" / "sct_deepspine" / "index.html"
    assert batch(words, model=MODEL) == 0
    with opened(context, index) as page:
        for value in range(3, 11):
            choose(page, value)
            press(page, "Delete")
        file.write_text(saved(page), encoding="utf-8")
    assert batch([*words, "-corrections", str(file)], model=MODEL) == 1
    assert "sub-00_T2w: every disc was removed" in capsys.readouterr().err
    with opened(context, index) as page:
        assert "every disc was removed" in page.locator("#facts").inner_text()
        press(page, "R")
        assert list(table(page)) == list(range(3, 11))


STEPS = (
    ["w"],
    ["z"],
    ["a"],
    ["x"],
    ["e"],
    ["n", "1"],
    ["n", "2"],
    ["Delete", "1"],
    ["Delete", "2"],
    ["Delete", "3"],
    ["2", "1"],
    ["4", "1"],
    ["3", "1"],
    ["5", "1"],
    ["6", "2"],
    ["7"],
    ["8"],
    ["u"],
    ["U"],
    ["y"],
    ["p"],
    ["f"],
    ["d"],
)
"""Every kind of edit; one that asks is answered."""


def shown(page):
    """Name → discs, ratings and badges of every scan, as the page shows them."""
    out = {}
    for row in page.locator("#list button").all():
        row.click()
        page.wait_for_selector("circle")
        rating, badge = (row.locator(f"span:nth-child({n})").inner_text() for n in (1, 3))
        gone = {value for value, word in table(page).items() if word == "not there"}
        out[page.locator("#facts h2").inner_text()] = rating, badge, tuple(table(page)), tuple(sorted(gone))
    return out


def test_a_session_of_a_hundred_edits_loses_nothing(painted, tmp_path, context, browser):
    source, out, file = dataset(tmp_path / "in", painted, 31), tmp_path / "out", tmp_path / "corrections.json"
    words = ["-i", str(source), "-o", str(out), "-v", "0"]
    index = out / "derivatives" / "sct_deepspine" / "index.html"
    assert batch(words, model=MODEL) == 0
    rng = random.Random(3)
    for turn in range(4):  # closed and opened again
        with opened(context, index) as page:
            for n in range(25):
                page.locator("#list button").nth(rng.randrange(31)).click()
                page.wait_for_selector("circle")
                rows = page.locator("#facts tr[data-value]")
                rows.nth(rng.randrange(rows.count())).click()
                press(page, *(STEPS[(25 * turn + n) % len(STEPS)]), "Escape")
            scans = scans_of(page)
    with opened(context, index) as page:
        text, before = saved(page), shown(page)
    assert json.loads(text)["scans"] == scans
    assert len({rating for rating, *_ in before.values()}) == 4
    file.write_text(text, encoding="utf-8")
    assert batch([*words, "-corrections", str(file)], model=MODEL) == 0
    with opened(context, index) as page:
        assert shown(page) == before
        assert scans_of(page) == scans
    assert batch([*words, "-upper", "1"], model=MODEL) == 0  # done again, without the file
    with opened(browser.new_context(), index) as page:  # in the browser of somebody else
        assert shown(page) == before
    for scan in scans.values():
        if "discs" in scan:
            sidecar = next(out.glob(f"derivatives/labels/{scan['name']}*.json"))
            discs = json.loads(sidecar.read_text(encoding="utf-8"))["discs"]
            assert [disc["value"] for disc in discs] == [disc["value"] for disc in scan["discs"]]
            for mine, kept in zip(scan["discs"], discs, strict=True):
                assert kept["world_mm"] == pytest.approx(mine["world_mm"], abs=0.01)
