"""The files of a scan: what a later run keeps, removes and takes over, and what it never touches."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sct_deepspine._version import __version__
from sct_deepspine.errors import OutputError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.io.sidecar import read_sidecar
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.workflow.names import mask_names, sct_names
from sct_deepspine.workflow.record import (
    edited_files,
    remove_results,
    write_results,
)

GRID = Grid((31, 61, 241), np.eye(4))
IMAGE, OTHER_IMAGE = {"sha256": "a" * 64}, {"sha256": "b" * 64}
ABOUT_MASKS = {"cord_mm3": 1200.0, "structures": [{"value": 3, "mm3": 400.0}]}


def labels_of(values, up_mm=0.0):
    tips = {value: np.array([15.0, 30.0, 230.0 + up_mm - 17.0 * value]) for value in values}
    return DiscLabels(tuple(Disc(value, tip, 0.9) for value, tip in tips.items()), GRID, 0.9)


NECK, UPPER, MOVED = labels_of(range(3, 9)), labels_of(range(2, 9)), labels_of(range(3, 9), up_mm=8)
NUDGED, SHIFTED = labels_of(range(3, 9), up_mm=2), labels_of(range(4, 10), up_mm=17)


@pytest.fixture
def names(tmp_path):
    return sct_names(tmp_path / "t2_discs.nii.gz")


@pytest.fixture
def of_masks(tmp_path):
    """Names of the command that makes masks of the same scan."""
    return mask_names(tmp_path, "t2")


def writing(text):
    return lambda path: path.write_text(text, encoding="utf-8")


def save(labels, names, *paths, text="x", source=IMAGE, **options):
    """Write a label image and other files, whose content is their name and a text."""
    writers = {path: writing(f"{path.name} {text}") for path in (names.labels, *paths)}
    return write_results(labels, names, writers, source=source, **options)


def save_masks(labels, of_masks, *parts, source=IMAGE, **options):
    writers = {of_masks.masks[part]: writing(part) for part in parts}
    return write_results(labels, of_masks, writers, source=source, masks=ABOUT_MASKS, **options)


def recorded(path):
    return set(json.loads(path.read_text(encoding="utf-8"))["files"])


def left_in(folder):
    return {path.name for path in folder.iterdir()}


# One run


def test_the_record_names_every_file_with_its_fingerprint(names, tmp_path):
    saved = save(NECK, names, names.csv, names.masks["seg"], session=["t1.nii.gz"])
    assert saved.written == (names.labels, names.sidecar, names.csv, names.masks["seg"])
    assert (saved.kept, saved.removed) == ((), ())
    content = json.loads(names.sidecar.read_text(encoding="utf-8"))
    assert content["GeneratedBy"] == [{"Name": "sct_deepspine", "Version": __version__}]
    assert (content["session"], content["source"]) == (["t1.nii.gz"], IMAGE)
    assert [disc["value"] for disc in content["discs"]] == list(range(3, 9))
    assert recorded(names.sidecar) == {"t2_discs.nii.gz", "t2_discs.csv", "t2_seg.nii.gz"}
    for name, digest in content["files"].items():
        assert digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_files_in_other_folders_are_recorded_by_the_way_to_them(names, tmp_path):
    picture = tmp_path / "pictures" / "t2.png"
    save(NECK, names, picture)
    assert picture.exists()
    assert recorded(names.sidecar) == {"t2_discs.nii.gz", "pictures/t2.png"}
    assert edited_files(names, [picture]) == []


def test_a_file_that_can_not_be_written_leaves_what_was_there(names, tmp_path):
    save(NECK, names, names.csv)
    before = {name: (tmp_path / name).read_bytes() for name in left_in(tmp_path)}

    def full(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"can't write .*t2_discs\.csv: No space left on device"):
        write_results(MOVED, names, {names.labels: writing("new"), names.csv: full}, source=IMAGE)
    assert {name: (tmp_path / name).read_bytes() for name in left_in(tmp_path)} == before


def test_the_label_image_is_put_in_place_after_all_others(names):
    """Without its record a label image would pass for one that a person made."""
    order = []

    def noting(path):
        order.append(path.name)
        path.write_text("x", encoding="utf-8")

    write_results(NECK, names, dict.fromkeys((names.labels, names.csv, names.preview), noting))
    assert order == [names.preview.name, names.csv.name, names.labels.name]


@pytest.mark.parametrize("name", ["Wirbelsäule", "脊椎", "broken \udce9"])
def test_names_of_every_kind_can_be_recorded(name, names):
    save(NECK, names, session=[name])
    as_written = name.encode("utf-8", "backslashreplace").decode("utf-8")
    assert as_written in names.sidecar.read_bytes().decode("utf-8")
    assert read_sidecar(names.sidecar)["session"] == [name]


# Whose files they are


def test_files_of_an_earlier_run_are_replaced(names):
    save(NECK, names, names.csv)
    save(NECK, names, names.csv, text="new")
    assert names.csv.read_text(encoding="utf-8") == "t2_discs.csv new"


@pytest.mark.parametrize("which", ["labels", "csv", "sidecar"])
def test_a_file_that_no_run_wrote_is_not_replaced_unless_that_is_asked_for(which, names):
    path = getattr(names, which)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=f"{path.name} was not written by this command"):
        save(NECK, names, names.csv)
    assert path.read_text(encoding="utf-8") == "mine"
    save(NECK, names, names.csv, overwrite=True)
    assert path.read_text(encoding="utf-8") != "mine"


def test_nobody_is_told_to_replace_a_cord_mask_that_another_program_may_have_made(names):
    names.masks["seg"].write_text("of sct_deepseg", encoding="utf-8")
    with pytest.raises(OutputError, match=r"-o or -ofolder$"):
        save(NECK, names, names.masks["seg"])
    names.csv.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"-o or -ofolder, or replace it with -overwrite 1$"):
        save(NECK, names, names.csv)


def test_a_file_that_was_edited_since_is_not_replaced(names):
    save(NECK, names, names.csv)
    names.labels.write_text("edited", encoding="utf-8")
    assert edited_files(names, [names.labels, names.csv, names.preview]) == [names.labels]
    with pytest.raises(OutputError, match="or was edited since"):
        save(NECK, names)


def test_a_folder_under_the_name_of_a_file_is_somebody_elses(names):
    names.csv.mkdir()
    assert edited_files(names, [names.csv]) == [names.csv]


# What a later run keeps


def test_what_is_not_written_again_is_kept_while_the_discs_are_the_same(names):
    save(NECK, names, names.csv, names.preview)
    saved = save(NECK, names, names.preview, text="new")
    assert saved.kept == (names.csv,)
    assert saved.removed == ()
    assert names.csv.read_text(encoding="utf-8") == "t2_discs.csv x"
    assert recorded(names.sidecar) == {"t2_discs.nii.gz", "t2_discs.csv", "t2_discs.png"}
    # And by the run after that.
    assert save(NECK, names).kept == (names.csv, names.preview)


@pytest.mark.parametrize("labels", [MOVED, SHIFTED])
def test_what_says_other_discs_is_removed_and_masks_of_the_image_stay(labels, names):
    save(NECK, names, names.csv, *names.masks.values(), masks=ABOUT_MASKS)
    saved = save(labels, names)
    assert set(saved.kept) == {names.masks["seg"], names.masks["canal"]}
    assert set(saved.removed) == {names.csv, names.masks["spine"], names.masks["seg_labeled"]}
    assert not any(path.exists() for path in saved.removed)
    assert all(path.exists() for path in saved.kept)
    content = json.loads(names.sidecar.read_text(encoding="utf-8"))
    assert content["masks"] == {"cord_mm3": 1200.0, "structures": []}
    assert set(content["files"]) == {"t2_discs.nii.gz", "t2_seg.nii.gz", "t2_canal.nii.gz"}


def test_discs_above_c2_change_no_mask(names):
    save(NECK, names, names.csv, *names.masks.values(), masks=ABOUT_MASKS)
    saved = save(UPPER, names)
    assert set(saved.kept) == set(names.masks.values())
    assert saved.removed == (names.csv,)
    assert json.loads(names.sidecar.read_text(encoding="utf-8"))["masks"] == ABOUT_MASKS


@pytest.mark.parametrize("labels", [NUDGED, labels_of(range(3, 8)), labels_of(range(4, 10))])
def test_masks_keep_their_levels_while_no_disc_has_another_one(labels, names):
    save(NECK, names, names.csv, *names.masks.values(), masks=ABOUT_MASKS)
    saved = save(labels, names)
    assert set(saved.kept) == set(names.masks.values())
    assert saved.removed == (names.csv,)


def test_one_disc_elsewhere_makes_the_levels_of_masks_false(names):
    save(NECK, names, *names.masks.values())
    saved = save(replace(NECK, discs=(MOVED.discs[0], *NECK.discs[1:])), names)
    assert set(saved.removed) == {names.masks["spine"], names.masks["seg_labeled"]}


def test_nothing_is_kept_of_another_image(names):
    save(NECK, names, names.csv, *names.masks.values(), masks=ABOUT_MASKS)
    saved = save(NECK, names, source=OTHER_IMAGE)
    assert saved.kept == ()
    assert set(saved.removed) == {names.csv, *names.masks.values()}
    assert "masks" not in json.loads(names.sidecar.read_text(encoding="utf-8"))


@pytest.mark.parametrize("sources", [(None, IMAGE), (IMAGE, None)])
def test_a_run_that_does_not_know_its_image_is_believed_to_be_of_the_same(sources, names):
    save(NECK, names, names.csv, source=sources[0])
    assert save(NECK, names, source=sources[1]).kept == (names.csv,)


@pytest.mark.parametrize("sources", [(None, IMAGE), (IMAGE, None), (None, None), ({"sha256": ""},) * 2])
def test_masks_of_an_image_that_is_not_known_are_not_kept(sources, names):
    save(NECK, names, *names.masks.values(), source=sources[0])
    assert set(save(NECK, names, source=sources[1]).removed) == set(names.masks.values())


def test_masks_that_are_gone_are_not_described(names):
    save(NECK, names, names.csv, *names.masks.values(), masks=ABOUT_MASKS)
    for path in names.masks.values():
        path.unlink()
    save(NECK, names)
    assert "masks" not in json.loads(names.sidecar.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("entry", "content"), [("masks", "x"), ("discs", [1]), ("discs", None)])
def test_a_record_edited_by_hand_stops_nothing(entry, content, names):
    save(NECK, names, names.csv, *names.masks.values(), masks=ABOUT_MASKS)
    record = json.loads(names.sidecar.read_text(encoding="utf-8"))
    names.sidecar.write_text(json.dumps(record | {entry: content}), encoding="utf-8")
    save(NECK, names)


def test_a_file_is_known_however_its_path_is_written(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(NECK, names, Path("pictures") / "t2.png")
    save(NECK, names, tmp_path / "pictures" / "x" / ".." / "t2.png")


def test_new_masks_are_described_anew(names):
    save(NECK, names, *names.masks.values(), masks=ABOUT_MASKS)
    new = {"cord_mm3": 7.0, "structures": []}
    save(NECK, names, names.masks["seg"], masks=new)
    assert json.loads(names.sidecar.read_text(encoding="utf-8"))["masks"] == new


def test_a_file_that_was_edited_is_neither_kept_nor_removed(names):
    save(NECK, names, names.csv, names.preview)
    names.csv.write_text("edited", encoding="utf-8")
    saved = save(MOVED, names)
    assert (saved.kept, saved.removed) == ((), (names.preview,))
    assert names.csv.read_text(encoding="utf-8") == "edited"
    assert recorded(names.sidecar) == {"t2_discs.nii.gz"}


def test_a_file_that_is_gone_is_forgotten(names):
    save(NECK, names, names.csv)
    names.csv.unlink()
    saved = save(NECK, names)
    assert (saved.kept, saved.removed) == ((), ())
    assert recorded(names.sidecar) == {"t2_discs.nii.gz"}


def test_an_input_is_never_removed(names):
    save(NECK, names, names.csv, names.masks["spine"])
    saved = save(MOVED, names, source=OTHER_IMAGE, inputs=[names.csv])
    assert (saved.kept, saved.removed) == ((names.csv,), (names.masks["spine"],))
    assert names.csv.exists()


# Two commands, one scan


def test_what_another_command_wrote_stays_in_its_record(names, of_masks):
    save_masks(NECK, of_masks, "spine", "seg")
    before = of_masks.sidecar.read_bytes()
    saved = save(NECK, names, names.csv)
    assert (saved.kept, saved.removed) == ((), ())
    assert recorded(names.sidecar) == {"t2_discs.nii.gz", "t2_discs.csv"}
    assert of_masks.sidecar.read_bytes() == before
    # Either way round, whatever the other one says of the discs.
    saved = save_masks(MOVED, of_masks, "spine")
    assert (saved.kept, saved.removed) == ((of_masks.masks["seg"],), ())
    assert names.labels.exists()
    saved = save_masks(MOVED, of_masks, "spine")
    assert saved.kept == (of_masks.masks["seg"],)
    assert recorded(names.sidecar) == {"t2_discs.nii.gz", "t2_discs.csv"}


def test_the_record_of_another_command_goes_with_its_discs_and_what_is_true_is_adopted(names, of_masks):
    save_masks(NECK, of_masks, "spine", "seg", "canal", "seg_labeled")
    saved = save(MOVED, names)
    masks = of_masks.masks
    assert set(saved.kept) == {masks["seg"], masks["canal"]}
    assert set(saved.removed) == {masks["spine"], masks["seg_labeled"], of_masks.sidecar}
    assert not of_masks.sidecar.exists()
    assert recorded(names.sidecar) == {"t2_discs.nii.gz", "t2_seg.nii.gz", "t2_canal.nii.gz"}
    assert json.loads(names.sidecar.read_text(encoding="utf-8"))["masks"]["cord_mm3"] == 1200.0
    assert json.loads(names.sidecar.read_text(encoding="utf-8"))["masks"]["structures"] == []
    # Now they are this command's own: the next run keeps them.
    assert set(save(MOVED, names).kept) == {masks["seg"], masks["canal"]}


def test_what_both_commands_wrote_is_sorted_out_together(names, of_masks):
    save(NECK, names, names.csv, names.masks["canal"])
    save_masks(NECK, of_masks, "spine", "seg")
    saved = save(MOVED, names)
    assert saved.kept == (names.masks["canal"], names.masks["seg"])
    assert set(saved.removed) == {names.csv, names.masks["spine"], of_masks.sidecar}


def test_the_record_of_another_command_goes_with_its_image(names, of_masks):
    save_masks(NECK, of_masks, "spine", "seg")
    saved = save(NECK, names, source=OTHER_IMAGE)
    assert saved.kept == ()
    assert set(saved.removed) == {of_masks.masks["spine"], of_masks.masks["seg"], of_masks.sidecar}
    assert "masks" not in json.loads(names.sidecar.read_text(encoding="utf-8"))


def test_either_command_replaces_files_that_the_other_recorded(names, of_masks):
    save_masks(NECK, of_masks, "spine", "seg")
    save(NECK, names, names.masks["seg"], text="new")
    assert names.masks["seg"].read_text(encoding="utf-8") == "t2_seg.nii.gz new"
    assert recorded(of_masks.sidecar) == {"t2_spine.nii.gz"}  # handed over
    assert "masks" not in json.loads(of_masks.sidecar.read_text(encoding="utf-8"))
    save_masks(NECK, of_masks, "spine", "seg")
    assert names.masks["seg"].read_text(encoding="utf-8") == "seg"


def test_a_stranger_in_the_place_of_the_other_record_says_nothing(names, of_masks):
    of_masks.sidecar.write_text('{"files": {"t2_seg.nii.gz": ""}}', encoding="utf-8")
    names.masks["seg"].write_text("mine", encoding="utf-8")
    saved = save(MOVED, names)
    assert (saved.kept, saved.removed) == ((), ())
    assert of_masks.sidecar.exists()


# Results that a new run could not make


def test_all_files_of_a_run_are_removed_with_their_record(names, tmp_path):
    save(NECK, names, names.csv)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert set(remove_results(names)) == {names.labels, names.csv, names.sidecar}
    assert left_in(tmp_path) == {"notes.txt"}
    assert remove_results(names) == []


def test_an_edited_file_is_left_with_its_record(names, tmp_path):
    save(NECK, names, names.csv)
    names.labels.write_text("edited", encoding="utf-8")
    assert remove_results(names) == [names.csv]
    assert left_in(tmp_path) == {"t2_discs.nii.gz", "t2_discs.json"}


def test_the_record_of_somebody_else_is_not_removed(names):
    names.sidecar.write_text("{}", encoding="utf-8")
    assert remove_results(names) == []
    assert names.sidecar.exists()


def test_a_broken_record_makes_no_file_ours(names):
    save(NECK, names)
    content = json.loads(names.sidecar.read_text(encoding="utf-8")) | {"files": ["t2_discs.nii.gz"]}
    names.sidecar.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(OutputError, match=r"t2_discs\.nii\.gz was not written by this command"):
        save(NECK, names)


def test_a_scan_with_one_record_knows_no_other_command(names, of_masks):
    alone = replace(names, other_records=())
    save_masks(NECK, of_masks, "seg")
    assert edited_files(names, [names.masks["seg"]]) == []
    assert edited_files(alone, [names.masks["seg"]]) == [names.masks["seg"]]
