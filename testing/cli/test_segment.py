import json

import nibabel as nib
import numpy as np
import pytest
from fakes import fake_mask_model, fake_model

from sct_deepspine.cli import label as label_command
from sct_deepspine.cli.segment import main

FILES = {"spine", "seg", "canal", "seg_labeled"}


class Everything:
    """Sees every tissue somewhere, whatever it is shown."""

    pixel_mm = 1.0
    in_channels = 1

    def predict(self, planes):
        maps = np.zeros((len(planes), 5, *planes[0].shape[-2:]), dtype=np.float32)
        maps[:, 0] = 0.5
        middle = slice(len(planes) // 2 - 3, len(planes) // 2 + 4)
        maps[middle, 2, :, 53:67] = 1
        maps[middle, 1, :, 57:63] = 2
        maps[:, 3, :, 70:90] = 1
        return list(maps)


@pytest.fixture
def segment(capsys, tmp_path, monkeypatch, painted_file):
    """Runs the command on the painted phantom; returns the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        words = ["-i", str(painted_file), *map(str, words)]
        code = main(words, model=fake_mask_model(Everything()), labeling=fake_model())
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_command_writes_four_masks_and_their_facts(segment, tmp_path, painted_file):
    code, out, _ = segment("-ofolder", tmp_path / "out")
    assert code == 0
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {f"t2_{name}.nii.gz" for name in FILES} | {"t2_spine.json", "t2_spine.png"}
    image = nib.load(painted_file)
    masks = {name: nib.load(tmp_path / "out" / f"t2_{name}.nii.gz") for name in FILES}
    for mask in masks.values():
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine)
        assert mask.get_data_dtype() == np.uint8
    cord = np.asarray(masks["seg"].dataobj)
    assert cord.any()
    assert (np.asarray(masks["canal"].dataobj) >= cord).all()
    assert ((np.asarray(masks["seg_labeled"].dataobj) > 0) <= cord).all()
    facts = json.loads((tmp_path / "out" / "t2_spine.json").read_text(encoding="utf-8"))
    assert set(facts["files"]) == {f"t2_{name}.nii.gz" for name in FILES} | {"t2_spine.png"}
    assert not any(part["measured"] for part in facts["masks"]["structures"])
    assert out.count("not compared with true masks") == 1
    assert "to measure its area, use sct_deepseg spinalcord" in out
    assert "to measure its area" in facts["masks"]["cord_note"]


def test_a_mask_that_a_person_edited_is_not_replaced(segment, tmp_path):
    assert segment()[0] == 0
    path = tmp_path / "t2_seg.nii.gz"
    edited = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(edited.shape, np.uint8), edited.affine), path)
    before = path.read_bytes()
    code, _, err = segment()
    assert code == 1
    assert "t2_seg.nii.gz was not written by this command, or was edited since" in err
    assert "-overwrite" not in err
    assert path.read_bytes() == before
    assert segment("-overwrite", 1)[0] == 0
    assert path.read_bytes() != before


def test_discs_that_a_person_checked_tell_the_levels(segment, tmp_path, painted_file, phantom):
    image = nib.load(painted_file)
    data = np.zeros(image.shape, np.uint8)
    for value, tip in phantom.discs.items():
        data[tuple(np.round(phantom.volume.grid.voxel_from_world(tip)[0]).astype(int))] = value + 2
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "checked.nii.gz")
    assert segment("-ldisc", tmp_path / "checked.nii.gz")[0] == 0
    facts = json.loads((tmp_path / "t2_spine.json").read_text(encoding="utf-8"))
    assert [disc["value"] for disc in facts["discs"]] == [value + 2 for value in phantom.discs]
    assert {part["confidence"] for part in facts["masks"]["structures"]} == {1.0}


def test_the_labelling_command_writes_the_masks_too(
    capsys, tmp_path, monkeypatch, painted_file, painted, phantom
):
    monkeypatch.chdir(tmp_path)
    words = ["-i", str(painted_file), "-masks", "1"]
    code = label_command.main(words, model=fake_model(), mask_model=fake_mask_model(Everything()))
    assert code == 0
    made = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert {f"t2_{name}.nii.gz" for name in FILES} | {"t2_discs.nii.gz", "t2_discs.json"} <= made
    facts = json.loads((tmp_path / "t2_discs.json").read_text(encoding="utf-8"))
    assert facts["masks"]["cord_mm3"] > 0
    assert "t2_seg.nii.gz" in capsys.readouterr().out.split("Next")[1]  # the registration takes our cord

    # The next run says nothing about masks: they are still true and stay, and so does what is known of them.
    assert label_command.main(words[:2], model=fake_model()) == 0
    assert json.loads((tmp_path / "t2_discs.json").read_text(encoding="utf-8"))["masks"] == facts["masks"]
    # Two more discs above C2/C3 change no mask.
    assert label_command.main([*words[:2], "-upper", "1"], model=fake_model()) == 0
    assert json.loads((tmp_path / "t2_discs.json").read_text(encoding="utf-8"))["masks"] == facts["masks"]
    # Other levels make the masks false that bear levels; cord and canal are what they were.
    place = round(painted.grid.voxel_from_world(phantom.discs[7])[0, 2])
    assert label_command.main([*words[:2], "-initdisc", f"8,{place}"], model=fake_model()) == 0
    there = {name for name in FILES if (tmp_path / f"t2_{name}.nii.gz").exists()}
    assert there == {"seg", "canal"}
    said = capsys.readouterr().out.split("Removed")[1]
    assert "t2_spine.nii.gz" in said
    assert "t2_seg_labeled.nii.gz" in said
    masks = json.loads((tmp_path / "t2_discs.json").read_text(encoding="utf-8"))["masks"]
    assert masks["structures"] == []
    assert masks["cord_mm3"] == facts["masks"]["cord_mm3"]


def test_a_picture_is_written_and_a_viewer_suggested(capsys, tmp_path, monkeypatch, painted_file):
    monkeypatch.chdir(tmp_path)
    networks = {"model": fake_mask_model(Everything()), "labeling": fake_model()}
    assert main(["-i", str(painted_file), "-ofolder", "out"], **networks) == 0
    assert (tmp_path / "out" / "t2_spine.png").stat().st_size > 1000
    assert "out/t2_spine.nii.gz" in capsys.readouterr().out.split("view")[-1]
    assert main(["-i", str(painted_file), "-ofolder", "other", "-preview", "0"], **networks) == 0
    assert not (tmp_path / "other" / "t2_spine.png").exists()


def test_segmenting_removes_nothing_that_labelling_wrote(
    tmp_path, monkeypatch, painted_file, painted, phantom
):
    monkeypatch.chdir(tmp_path)
    networks = {"model": fake_mask_model(Everything()), "labeling": fake_model()}
    place = round(painted.grid.voxel_from_world(phantom.discs[7])[0, 2])
    words = ["-i", str(painted_file), "-csv", "1", "-upper", "1", "-initdisc", f"8,{place}"]
    assert label_command.main(words, model=fake_model()) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert main(words[:2], **networks) == 0
    assert main([*words[:2], "-ldisc", "t2_discs.nii.gz"], **networks) == 0
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_labelling_with_the_cord_of_segmenting_keeps_its_masks(tmp_path, monkeypatch, painted_file):
    monkeypatch.chdir(tmp_path)
    networks = {"model": fake_mask_model(Everything()), "labeling": fake_model()}
    assert main(["-i", str(painted_file)], **networks) == 0
    words = ["-i", str(painted_file), "-s", "t2_seg.nii.gz"]
    label_command.main(words, model=fake_model())
    assert {name for name in FILES if (tmp_path / f"t2_{name}.nii.gz").exists()} == set(FILES)
    assert (tmp_path / "t2_spine.json").exists()


def test_labels_do_not_take_the_name_of_a_mask(capsys, tmp_path, monkeypatch, painted_file):
    monkeypatch.chdir(tmp_path)
    assert label_command.main(["-i", str(painted_file), "-o", "t2_spine.nii.gz"], model=fake_model()) == 1
    assert "t2_spine.nii.gz is the name of a mask of this image" in capsys.readouterr().err


def test_labels_made_on_another_image_are_pointed_out(capsys, tmp_path, monkeypatch, painted_file, painted):
    monkeypatch.chdir(tmp_path)
    assert label_command.main(["-i", str(painted_file)], model=fake_model()) == 0
    nib.save(nib.Nifti1Image(painted.data * 0.5, painted.grid.affine), painted_file)
    words = ["-i", str(painted_file), "-ldisc", "t2_discs.nii.gz", "-ofolder", "out"]
    networks = {"model": fake_mask_model(Everything()), "labeling": fake_model()}
    assert label_command.main(words, model=fake_model()) == 0
    assert capsys.readouterr().out.count("made on another image") == 1
    assert main(words, **networks) == 0
    assert capsys.readouterr().out.count("made on another image") == 1


def test_either_command_knows_the_files_of_the_other(
    capsys, tmp_path, monkeypatch, painted_file, painted, phantom
):
    monkeypatch.chdir(tmp_path)
    networks = {"model": fake_mask_model(Everything()), "labeling": fake_model()}
    assert main(["-i", str(painted_file)], **networks) == 0
    # Masks again, by the other command: its own files are replaced without -overwrite.
    words = ["-i", str(painted_file)]
    masks = fake_mask_model(Everything())
    assert label_command.main([*words, "-masks", "1"], model=fake_model(), mask_model=masks) == 0
    assert main(words, **networks) == 0
    # Other levels make those masks false that bear levels, and the record that names them.
    place = round(painted.grid.voxel_from_world(phantom.discs[7])[0, 2])
    assert label_command.main([*words, "-initdisc", f"8,{place}"], model=fake_model()) == 0
    assert {name for name in FILES if (tmp_path / f"t2_{name}.nii.gz").exists()} == {"seg", "canal"}
    assert not (tmp_path / "t2_spine.json").exists()
    assert "t2_spine.json" in capsys.readouterr().out.split("Removed")[1]
    record = json.loads((tmp_path / "t2_discs.json").read_text(encoding="utf-8"))
    assert {"t2_seg.nii.gz", "t2_canal.nii.gz"} <= set(record["files"])


def test_the_given_cord_mask_is_never_overwritten(capsys, tmp_path, monkeypatch, painted_file, phantom):
    monkeypatch.chdir(tmp_path)
    mask = tmp_path / "t2_seg.nii.gz"
    data = (phantom.tissue.data >= 3).astype(np.uint8)
    nib.save(nib.Nifti1Image(data, phantom.volume.grid.affine), mask)
    before = mask.read_bytes()
    words = ["-i", str(painted_file), "-masks", "1", "-s", str(mask), "-overwrite", "1"]
    code = label_command.main(words, model=fake_model(), mask_model=fake_mask_model(Everything()))
    assert code == 1
    assert "t2_seg.nii.gz is an input (-s)" in capsys.readouterr().err
    assert mask.read_bytes() == before
    assert not (tmp_path / "t2_discs.nii.gz").exists()


class FarCord(Everything):
    """Sees a cord where there is no disc."""

    def predict(self, planes):
        maps = np.stack(super().predict(planes))
        maps[:, 1, :14], maps[:, 1, 22:] = 0, 0
        return list(maps)


def test_a_cord_beside_no_disc_keeps_labels_and_masks(capsys, tmp_path, monkeypatch, painted_file):
    monkeypatch.chdir(tmp_path)
    words = ["-i", str(painted_file), "-masks", "1"]
    assert label_command.main(words, model=fake_model(), mask_model=fake_mask_model(FarCord())) == 0
    assert "there is nothing to register with" in capsys.readouterr().out
    assert np.asarray(nib.load(tmp_path / "t2_seg.nii.gz").dataobj).any()
    assert not (tmp_path / "t2_discs_template.nii.gz").exists()


class NoCord(Everything):
    """Sees a canal without a cord in it."""

    def predict(self, planes):
        maps = np.stack(super().predict(planes))
        maps[:, 1] = 0
        return list(maps)


def test_a_view_below_the_conus_keeps_its_labels_and_says_why_nothing_is_registered(
    capsys, tmp_path, monkeypatch, painted_file, empty_sct
):
    monkeypatch.chdir(tmp_path)
    words = ["-i", str(painted_file), "-register", "1"]
    code = label_command.main(words, model=fake_model(), mask_model=fake_mask_model(NoCord()))
    assert code == 1
    printed = capsys.readouterr()
    assert "no cord was found in the image" in printed.err
    assert (tmp_path / "t2_discs.nii.gz").exists()
    assert not np.asarray(nib.load(tmp_path / "t2_seg.nii.gz").dataobj).any()


def test_a_cord_mask_that_is_there_already_is_offered_instead_of_being_replaced(
    capsys, tmp_path, monkeypatch, painted_file, empty_sct
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t2_seg.nii.gz").write_bytes(b"of sct_deepseg")
    words = ["-i", str(painted_file), "-register", "1"]
    assert label_command.main(words, model=fake_model(), mask_model=fake_mask_model()) == 1
    assert "register with it (-s t2_seg.nii.gz)" in capsys.readouterr().err
    assert not (tmp_path / "t2_discs.nii.gz").exists()
    assert (tmp_path / "t2_seg.nii.gz").read_bytes() == b"of sct_deepseg"


def test_a_scan_is_added_to_the_review_page_with_its_outlines(segment, tmp_path):
    code, out, _ = segment("-qc-page", "page", "-qc-subject", "one")
    assert code == 0
    assert "page/index.html" in out
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "one / t2" in page
    assert '"kind": "cord"' in page


def test_names_for_a_report_that_is_not_asked_for_are_an_error(segment, capsys):
    with pytest.raises(SystemExit):
        segment("-qc-subject", "one")
    assert "does nothing without -qc or -qc-page" in capsys.readouterr().err
