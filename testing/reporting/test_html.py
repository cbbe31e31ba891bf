import base64
import io

import numpy as np
import pytest
from fakes import fake_model
from PIL import Image

from sct_deepspine import label_discs
from sct_deepspine.errors import DeepSpineError, OutputError
from sct_deepspine.reporting.html import Entry, failed_entry, make_entry, read_entries, write_page


@pytest.fixture
def entry(painted):
    model = fake_model()
    return make_entry(label_discs(painted, return_maps=True, weights=model), painted, "t2")


def test_an_entry_shows_the_sheet_with_its_discs(entry, painted, phantom):
    with Image.open(io.BytesIO(base64.b64decode(entry.picture))) as picture:
        assert picture.size == (entry.width, entry.height)
        grey = np.asarray(picture)
    assert np.ptp(grey) > 200
    assert [disc["value"] for disc in entry.discs] == sorted(phantom.discs)
    rows = [disc["row"] for disc in entry.discs]
    assert rows == sorted(rows)
    for upper, lower in zip(entry.discs, entry.discs[1:], strict=False):
        apart = phantom.discs[upper["value"]][2] - phantom.discs[lower["value"]][2]
        assert lower["row"] - upper["row"] == pytest.approx(apart, abs=1.5)  # pixels of 1 mm
    assert entry.level_confidence > 0.9


def test_a_place_in_the_picture_is_a_place_in_the_scan(entry, phantom):
    """As the page computes it: a row begins at a point and goes on by one step a column."""
    for disc in entry.discs:
        top = int(disc["row"])
        share = disc["row"] - top
        start = np.array(entry.row_origins[top]) * (1 - share) + np.array(entry.row_origins[top + 1]) * share
        world = start + disc["column"] * np.array(entry.column_step)
        assert np.linalg.norm((world - phantom.discs[disc["value"]])[1:]) < 1.0


def test_ratings_of_other_labels_do_not_come_back(entry, tmp_path):
    pages = []
    for name, title in (("a", "t"), ("b", "t")):
        write_page(tmp_path / f"{name}.html", [entry], title=title)
        pages.append((tmp_path / f"{name}.html").read_text(encoding="utf-8"))
    identities = {page.split('"sct_deepspine:')[1][:16] for page in pages}
    assert len(identities) == 2


def test_labels_without_maps_have_no_picture(painted):
    model = fake_model()
    with pytest.raises(DeepSpineError, match="return_maps=True"):
        make_entry(label_discs(painted, weights=model), painted, "t2")


def test_the_page_puts_first_what_failed_and_then_what_is_doubtful(tmp_path):
    entries = [Entry("sure", level_confidence=0.9), Entry("doubtful", level_confidence=0.2)]
    write_page(tmp_path / "page.html", [*entries, failed_entry("bad", "why")], title="A & B <i>")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>A &amp; B &lt;i&gt;</title>" in page
    assert page.index('"bad"') < page.index('"doubtful"') < page.index('"sure"')


def test_a_name_can_not_end_the_script(tmp_path):
    write_page(tmp_path / "page.html", [Entry("</script><script>alert(1)</script>")], title="t")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "</script><script>alert" not in page


def test_entries_are_read_back_in_the_order_of_their_files(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(Entry(name, warnings=("w",)).to_json(), encoding="utf-8")
    assert read_entries(tmp_path) == [Entry("a", warnings=("w",)), Entry("b", warnings=("w",))]


def test_a_page_that_can_not_be_written_is_told(tmp_path):
    with pytest.raises(OutputError):
        write_page(tmp_path / "lost" / "page.html", [], title="t")
