"""The page in a browser."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
from fakes import fake_mask_model, fake_model

from sct_deepspine import label_discs, segment_spine
from sct_deepspine.reporting.html import failed_entry, make_entry, write_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def entries(painted):
    labels = label_discs(painted, return_maps=True, weights=fake_model())
    masks = segment_spine(painted, labels=labels, weights=fake_mask_model())
    return make_entry(labels, painted, "plain"), make_entry(labels, painted, "with masks", masks=masks)


@contextmanager
def opened(path, browser):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.resolve().as_uri())
    yield page
    assert errors == []


def height_of(page, picture=0):
    return page.locator("#pictures image").nth(picture).bounding_box()["height"]


def test_masks_and_points_are_switched_by_button_and_key(entries, tmp_path, browser):
    write_page(tmp_path / "page.html", [entries[1]], title="t")
    with opened(tmp_path / "page.html", browser) as page:
        outlines, masks = page.locator("#pictures path.outline"), page.get_by_role("button", name="masks")
        assert outlines.count() > 10
        assert outlines.first.is_visible()
        page.keyboard.press("m")
        assert not outlines.first.is_visible()
        assert page.locator("circle").count() == page.locator("path.mark").count() == 8
        masks.click()
        page.keyboard.press("t")
        assert outlines.first.is_visible()
        assert page.locator("circle").count() == page.locator("path.mark").count() == 0
        assert "not validated against true masks: canal" in page.locator("#facts").inner_text()


def test_without_masks_there_is_no_button_for_them(entries, tmp_path, browser):
    write_page(tmp_path / "page.html", [entries[0], failed_entry("bad", "why")], title="t")
    with opened(tmp_path / "page.html", browser) as page:
        assert page.locator("#pictures svg").count() == 0
        assert "why" in page.locator("#facts").inner_text()
        page.keyboard.press("0")
        page.keyboard.press("ArrowDown")
        assert page.locator("#pictures svg").count() == 2
        assert not page.locator("#masks").is_visible()


def test_an_entry_of_an_earlier_version_is_shown_with_its_one_picture(entries, tmp_path, browser):
    old = replace(entries[0], coronal_picture="", coronal_width=0, coronal_places=())
    write_page(tmp_path / "page.html", [old], title="t")
    with opened(tmp_path / "page.html", browser) as page:
        assert page.locator("#pictures svg").count() == 1
        assert page.locator("circle").count() == 8


def test_pictures_are_zoomed_moved_and_fitted_together(entries, tmp_path, browser):
    write_page(tmp_path / "page.html", entries[1:], title="t")
    with opened(tmp_path / "page.html", browser) as page:
        first, tip = height_of(page), page.locator("circle").nth(3).bounding_box()
        assert first > 600
        x, y = tip["x"] + tip["width"] / 2, tip["y"] + tip["height"] / 2
        page.mouse.move(x + 1, y + 20)
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(100)
        assert height_of(page) > 1.3 * first
        assert height_of(page, 1) == pytest.approx(height_of(page), rel=1e-3)
        near = page.locator("circle").nth(3).bounding_box()
        assert near["x"] + near["width"] / 2 == pytest.approx(x, abs=3)  # what was at the pointer stays there
        before = [page.locator(kind).nth(3).bounding_box()["y"] for kind in ("circle", "path.mark")]
        page.mouse.down()
        page.mouse.move(x + 31, y + 60, steps=3)
        page.mouse.up()
        after = [page.locator(kind).nth(3).bounding_box()["y"] for kind in ("circle", "path.mark")]
        assert after == pytest.approx([place + 40 for place in before], abs=2)
        page.keyboard.press("0")
        assert height_of(page) == pytest.approx(first)


def test_the_right_button_sets_window_and_level(entries, tmp_path, browser):
    write_page(tmp_path / "page.html", entries[1:], title="t")
    with opened(tmp_path / "page.html", browser) as page:
        slope = page.locator("#window feFuncG")
        start = [slope.get_attribute(name) for name in ("slope", "intercept")]
        page.mouse.move(500, 500)
        page.mouse.down(button="right")
        page.mouse.move(410, 460, steps=3)
        page.mouse.up(button="right")
        assert float(slope.get_attribute("slope")) > 1.3 * float(start[0])
        page.keyboard.press("r")
        assert [slope.get_attribute(name) for name in ("slope", "intercept")] == start
