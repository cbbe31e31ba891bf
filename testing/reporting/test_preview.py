"""The preview shows every disc, and never costs the labels."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import fake_mask_model, fake_model
from PIL import Image

from sct_deepspine import ScanRequest, label_discs, process_scan
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.reporting import preview
from sct_deepspine.reporting.preview import write_layers, write_preview


def drawn(result, path, **options):
    write_preview(result.labels, result.volume, path, title="t2.nii.gz", **options)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.fixture
def result(painted_file):
    return process_scan(
        painted_file, ScanRequest(masks=True), model=fake_model(), mask_model=fake_mask_model()
    )


def is_colour(picture, colour):
    return (np.abs(picture - colour).max(axis=2) < 40).any()


def test_discs_that_were_placed_have_another_colour(result, tmp_path):
    seen = drawn(result, tmp_path / "a.png")
    assert is_colour(seen, preview.SEEN)
    assert not is_colour(seen, preview.PLACED)
    discs = tuple(replace(disc, interpolated=disc.value == 5) for disc in result.labels.discs)
    placed = drawn(replace(result, labels=replace(result.labels, discs=discs)), tmp_path / "b.png")
    assert is_colour(placed, preview.PLACED)


def test_masks_are_laid_over_the_image(result, tmp_path):
    plain, masked = drawn(result, tmp_path / "a.png"), drawn(result, tmp_path / "b.png", masks=result.masks)
    assert plain.shape == masked.shape
    assert np.ptp(masked, axis=2).sum() > 1.2 * np.ptp(plain, axis=2).sum()  # more colour


def test_the_image_shows_through_the_masks(result, tmp_path):
    plain, masked = drawn(result, tmp_path / "a.png"), drawn(result, tmp_path / "b.png", masks=result.masks)
    under = (np.ptp(masked, axis=2) > np.ptp(plain, axis=2)) & (np.ptp(plain, axis=2) == 0)
    grey, laid_over = plain[under].mean(axis=1), masked[under].mean(axis=1)
    assert np.ptp(grey) > 50
    slope = np.polyfit(grey, laid_over, 1)[0]
    assert slope > 0.5  # of two greys under one colour, more than half of the difference is left


def test_a_long_title_and_long_warnings_are_not_cut(result, tmp_path):
    short = drawn(result, tmp_path / "a.png")
    labels = replace(result.labels, warnings=("word " * 60,))
    long = drawn(replace(result, labels=labels), tmp_path / "b.png")
    assert long.shape[1] == short.shape[1]
    assert long.shape[0] > short.shape[0] + 2 * preview.LINE_PX
    assert not long[: long.shape[0] - short.shape[0], -3:].any()  # nothing reaches the border


def test_labels_without_a_canal_have_no_picture(result, tmp_path):
    with pytest.raises(DeepSpineError, match="needs the canal"):
        drawn(replace(result, labels=replace(result.labels, canal=None)), tmp_path / "a.png")


def test_a_picture_that_can_not_be_drawn_does_not_cost_the_labels(result, tmp_path, caplog):
    from sct_deepspine.workflow.names import sct_names
    from sct_deepspine.workflow.result import Outputs, save_result

    blind = replace(result, labels=replace(result.labels, canal=None))
    saved = save_result(blind, sct_names(tmp_path / "t2_discs.nii.gz"), Outputs(preview=True))
    assert (tmp_path / "t2_discs.nii.gz").is_file()
    assert tmp_path / "t2_discs.png" not in saved.written
    assert "could not be drawn (a picture needs the canal" in caplog.text


def test_the_layers_of_a_report_are_equal_but_for_what_was_found(painted, tmp_path):
    labels = label_discs(painted, weights=fake_model())
    background, overlay = tmp_path / "background.png", tmp_path / "overlay.png"
    write_layers(labels, painted, background, overlay, title="t2")
    write_preview(labels, painted, tmp_path / "preview.png", title="t2")
    plain, whole, preview = (
        np.asarray(Image.open(path)) for path in (background, overlay, tmp_path / "preview.png")
    )
    np.testing.assert_array_equal(whole, preview)
    changed = (plain != whole).any(axis=2)
    assert plain.shape == whole.shape
    assert 0 < changed.mean() < 0.2
