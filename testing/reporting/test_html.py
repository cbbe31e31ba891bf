import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from fakes import fake_mask_model, fake_model, paint_truth
from PIL import Image

from sct_deepspine import label_discs, segment_spine
from sct_deepspine.errors import DeepSpineError, OutputError
from sct_deepspine.geometry.centerline import places_along_line
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.reporting.html import Entry, failed_entry, make_entry, read_entries, write_page
from sct_deepspine.simulation.phantom import make_phantom


@pytest.fixture
def entry(painted):
    model = fake_model()
    return make_entry(label_discs(painted, return_maps=True, weights=model), painted, "t2")


def test_an_entry_shows_the_plane_with_its_discs(entry, painted, phantom):
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


def test_the_coronal_picture_has_the_same_rows_and_the_discs_in_its_middle(entry, phantom):
    with Image.open(io.BytesIO(base64.b64decode(entry.coronal_picture))) as picture:
        assert picture.size == (entry.coronal_width, entry.height)
        assert np.ptp(np.asarray(picture)) > 100
    assert len(entry.coronal_places) == entry.height
    lateral = [tip[0] for tip in phantom.discs.values()]
    for disc in entry.discs:
        row, column = entry.coronal_places[round(disc["row"])]
        assert abs(row - disc["row"]) < 8  # the canal of a neck leans less than 40°
        expected = (np.mean(lateral) - phantom.discs[disc["value"]][0]) / entry.pixel_mm
        assert column - entry.coronal_width / 2 == pytest.approx(expected, abs=6)


def test_the_points_of_the_canal_tell_how_far_from_it_a_disc_lies(painted, phantom):
    labels = label_discs(painted, return_maps=True, weights=fake_model())
    entry = make_entry(labels, painted, "t2")
    tips = np.array(list(phantom.discs.values()))
    places = np.concatenate([tips, tips + np.array([0, 25, 0])])
    away = np.linalg.norm(places[:, None] - np.array(entry.canal_points), axis=2).min(axis=1)
    # As it is checked when discs are applied.
    _, expected = places_along_line(places, labels.canal, step_mm=1.0)
    np.testing.assert_allclose(away, expected, atol=0.5)
    assert (away > expected - 0.01).all()
    assert make_entry(replace(labels, canal=None), painted, "t2").canal_points == ()


def test_a_single_slice_has_no_coronal_picture(painted):
    middle = painted.data.shape[0] // 2
    affine = painted.grid.affine.copy()
    affine[:, 3] += affine[:, 0] * middle
    data = painted.data[middle : middle + 1]
    slice_ = Volume(data, Grid(data.shape, affine))
    labels = label_discs(slice_, return_maps=True, weights=fake_model())
    masks = segment_spine(slice_, labels=labels, weights=fake_mask_model())
    entry = make_entry(labels, slice_, "t2", masks=masks)
    assert (entry.coronal_picture, entry.coronal_places) == ("", ())
    assert any(part["sagittal"] for part in entry.structures)


def test_an_entry_without_masks_has_no_outline(entry):
    assert entry.structures == ()


def test_masks_are_outlined_in_both_pictures(painted):
    labels = label_discs(painted, return_maps=True, weights=fake_model())
    masks = segment_spine(painted, labels=labels, weights=fake_mask_model(measured=frozenset({1})))
    unsure = replace(labels, discs=tuple(replace(disc, confidence=0.5) for disc in labels.discs))
    for given, doubt in ((labels, False), (unsure, True)):
        entry = make_entry(labels, painted, "t2", masks=replace(masks, labels=given))
        kinds = {part["kind"] for part in entry.structures}
        assert kinds == {"canal", "cord", "vertebra", "disc"}
        assert {part["name"] for part in entry.structures if part["measured"]} == {"cord"}
        levelled = [part for part in entry.structures if part["kind"] in {"vertebra", "disc"}]
        assert {part["unsure"] for part in levelled} == {doubt}
        assert Entry.from_json(entry.to_json()) == entry
    vertebrae = [part for part in entry.structures if part["kind"] == "vertebra"]
    assert all(part["coronal"].startswith("M") for part in vertebrae[1:-1])
    for disc in entry.discs:
        (part,) = [part for part in entry.structures if part["name"] == disc["name"]]
        numbers = [float(word) for word in re.findall(r"-?[0-9.]+", part["sagittal"])]
        assert abs(np.mean(numbers[1::2]) - disc["row"]) < 8
        assert np.mean(numbers[0::2]) > disc["column"] - 5


def test_an_entry_kept_by_an_earlier_version_is_read(entry):
    values = json.loads(entry.to_json())
    for name in ("pixel_mm", "coronal_picture", "coronal_width", "coronal_places", "structures"):
        del values[name]
    del values["canal_points"]
    old = Entry.from_json(json.dumps(values))
    assert (old.discs, old.coronal_picture, old.structures) == (entry.discs, "", ())
    assert old.canal_points == ()


def test_a_fine_volume_is_shown_as_fine_as_it_is():
    scan = make_phantom(np.random.default_rng(1), first=3, last=7, voxel_mm=(4.0, 0.7, 0.7))
    painted = paint_truth(scan)
    entry = make_entry(label_discs(painted, return_maps=True, weights=fake_model()), painted, "t2")
    assert 0.5 <= entry.pixel_mm <= 0.7


def test_ratings_of_another_page_do_not_come_back_but_those_of_this_one_do(entry, tmp_path):
    pages = []
    for name, title in (("a", "t"), ("b", "t"), ("a", "written again")):
        write_page(tmp_path / f"{name}.html", [entry], title=title)
        pages.append((tmp_path / f"{name}.html").read_text(encoding="utf-8"))
    first, second, again = (page.split('identity = "')[1][:16] for page in pages)
    assert first == again != second


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
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError):
        write_page(tmp_path / "file" / "page.html", [], title="t")


def test_entries_of_one_name_without_an_image_have_keys_of_their_own(tmp_path):
    write_page(
        tmp_path / "page.html", [Entry("t2", warnings=("a",)), Entry("t2", warnings=("b",))], title="t"
    )
    keys = re.findall(r'"key": "(.*?)"', (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(set(keys)) == 2
