"""Several images of one person in one call."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import PaintReader, fake_mask_model, fake_model, paint_truth

from sct_deepspine import ScanRequest
from sct_deepspine.cli.label import main
from sct_deepspine.cli.segment import main as segment_main
from sct_deepspine.errors import RequestError
from sct_deepspine.labeling.session_notes import SessionNote
from sct_deepspine.workflow.session import _without_notes, process_session

MODEL = fake_model()


@pytest.fixture
def pair(painted, phantom, tmp_path, monkeypatch):
    """Files of the upper and the lower part of the phantom, which share a few discs."""
    monkeypatch.chdir(tmp_path)
    middle = round(float(painted.grid.voxel_from_world(phantom.discs[6])[0, 2]))
    rows = {"upper": slice(middle - 25, None), "lower": slice(0, middle + 25)}
    for name, part in rows.items():
        affine = np.array(painted.grid.affine)
        affine[:3, 3] = painted.grid.world_from_voxel([0, 0, part.start])[0]
        nib.save(nib.Nifti1Image(painted.data[:, :, part], affine), tmp_path / f"{name}.nii.gz")
    return ["upper.nii.gz", "lower.nii.gz"]


def content(name):
    return json.loads(Path(name).read_text(encoding="utf-8"))


def test_each_image_gets_its_files_and_knows_of_the_others(pair, phantom, capsys):
    assert main(["-i", *pair, "-ofolder", "out", "-csv", "1"], model=MODEL) == 0
    upper, lower = content("out/upper_discs.json"), content("out/lower_discs.json")
    assert {d["value"] for d in upper["discs"]} | {d["value"] for d in lower["discs"]} == set(phantom.discs)
    assert upper["session"]["images"] == pair
    assert (upper["session"]["index"], lower["session"]["index"]) == (0, 1)
    assert upper["session"]["groups"] == lower["session"]["groups"]
    assert Path("out/lower_discs.csv").is_file()
    printed = capsys.readouterr().out
    assert "upper.nii.gz: " in printed
    assert "lower_discs.nii.gz" in printed
    for disc in lower["discs"]:
        assert np.linalg.norm(disc["world_mm"] - phantom.discs[disc["value"]]) < 6  # maps of 4 mm


def test_a_level_told_of_the_first_image_holds_for_all(pair, phantom, painted):
    image = nib.load(pair[0])
    place = round(float((np.linalg.inv(image.affine) @ [*phantom.discs[5], 1])[2]))
    assert main(["-i", *pair, "-initdisc", f"6,{place}", "-v", "0"], model=MODEL) == 0
    values = [d["value"] for name in ("upper", "lower") for d in content(f"{name}_discs.json")["discs"]]
    assert {value - 1 for value in values} == set(phantom.discs)


def test_labels_of_any_of_the_images_hold_for_all(pair, phantom):
    assert main(["-i", pair[1], "-v", "0"], model=MODEL) == 0
    image = nib.load("lower_discs.nii.gz")
    data = np.asarray(image.dataobj).copy()
    data[data > 0] += 1
    nib.save(nib.Nifti1Image(data, image.affine), "edited.nii.gz")
    words = ["-i", *pair, "-initlabel", "edited.nii.gz", "-ofolder", "out", "-v", "0"]
    assert main(words, model=MODEL) == 0
    for name in ("upper", "lower"):
        for disc in content(f"out/{name}_discs.json")["discs"]:
            if disc["value"] - 1 in phantom.discs:
                assert np.linalg.norm(disc["world_mm"] - phantom.discs[disc["value"] - 1]) < 6
    told = " ".join(content("out/upper_discs.json")["warnings"])
    assert "the levels of upper.nii.gz rest on lower.nii.gz" in told


def test_edited_labels_lose_what_the_session_before_the_edit_said(pair):
    session = process_session(pair, model=MODEL).session
    stale = SessionNote("the levels of lower.nii.gz rest on upper.nii.gz", frozenset((1,)))
    labels = replace(session.images[1], warnings=(stale.sentence, "of the image itself"))
    assert _without_notes(labels, replace(session, notes=(stale,))).warnings == ("of the image itself",)


def test_labels_of_one_image_are_not_said_to_be_of_another_one_than_the_rest(pair, capsys):
    assert main(["-i", pair[1], "-v", "0"], model=MODEL) == 0
    words = ["-i", *pair, "-ldisc", "lower_discs.nii.gz", "-ofolder", "out"]
    assert main(words, model=MODEL) == 0
    assert "made on another image" not in capsys.readouterr().out
    image = nib.load(pair[1])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 0.5, image.affine), pair[1])
    assert main([*words, "-overwrite", "1"], model=MODEL) == 0
    notes = {name: content(f"out/{name}_discs.json")["warnings"] for name in ("upper", "lower")}
    assert not [note for note in notes["upper"] if "made on another image" in note]
    assert len([note for note in notes["lower"] if "made on another image" in note]) == 1


def test_a_localizer_helps_and_gets_no_file(pair, phantom):
    assert main(["-i", pair[1], "-localizer", pair[0], "-ofolder", "out", "-v", "0"], model=MODEL) == 0
    assert {path.name for path in Path("out").iterdir()} == {
        f"lower_discs.{end}" for end in ("nii.gz", "json", "png")
    }
    assert content("out/lower_discs.json")["session"]["images"] == [pair[1], pair[0]]


def test_masks_are_made_of_each_image(pair):
    words = ["-i", *pair, "-masks", "1", "-ofolder", "out", "-v", "0"]
    assert main(words, model=MODEL, mask_model=fake_mask_model()) == 0
    assert Path("out/upper_seg.nii.gz").is_file()
    assert content("out/lower_discs.json")["masks"]["weights"]["name"] == "fake"


def test_an_image_that_shows_no_disc_is_said_to_get_none(pair, capsys, phantom):
    blank = paint_truth(phantom, discs=False, canal=False)
    far = np.array(blank.grid.affine)
    far[2, 3] -= 1000
    nib.save(nib.Nifti1Image(blank.data, far), "far.nii.gz")
    assert main(["-i", pair[0], "far.nii.gz", "-ofolder", "out"], model=MODEL) == 0
    assert "far.nii.gz: no disc lies in this image; nothing is written" in capsys.readouterr().out
    assert not Path("out/far_discs.nii.gz").exists()


def test_two_geometries_of_an_image_are_said_by_every_command(pair, capsys):
    image = nib.load(pair[0])
    out = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    out.set_sform(image.affine, 1)
    out.set_qform(image.affine + np.outer((0, 20, 0, 0), (0, 0, 0, 1)), 1)
    nib.save(out, pair[0])
    assert main(["-i", *pair, "-ofolder", "out"], model=MODEL) == 0
    assert capsys.readouterr().out.count("holds two geometries") == 1
    assert main(["-i", pair[0], "-ofolder", "alone"], model=MODEL) == 0
    assert capsys.readouterr().out.count("holds two geometries") == 1
    assert segment_main(["-i", pair[0], "-ofolder", "masks"], model=fake_mask_model(), labeling=MODEL) == 0
    assert capsys.readouterr().out.count("holds two geometries") == 1


@pytest.mark.parametrize(
    "words",
    [["-o", "x.nii.gz"], ["-s", "x.nii.gz"], ["-register", "1"], ["-qc-png", "x.png"], ["-straight", "off"]],
)
def test_what_is_of_one_image_is_refused(words, pair, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["-i", *pair, *words], model=MODEL)
    assert exit_.value.code == 2
    assert "is of one image" in capsys.readouterr().err


def test_two_images_of_one_name_are_refused(pair, tmp_path, capsys):
    (tmp_path / "b").mkdir()
    Path("b/upper.nii.gz").write_bytes(Path(pair[0]).read_bytes())
    assert main(["-i", pair[0], "b/upper.nii.gz"], model=MODEL) == 1
    assert "under one name" in capsys.readouterr().err


def test_an_image_that_can_not_be_read_is_named(pair, capsys):
    assert main(["-i", pair[0], "lost.nii.gz"], model=MODEL) == 1
    assert "lost.nii.gz" in capsys.readouterr().err
    assert not Path("upper_discs.nii.gz").exists()


def test_levels_that_are_not_sure_enough_are_refused_by_name(pair):
    request = ScanRequest(min_confidence=1.0)
    unsure = fake_model(PaintReader())
    with pytest.raises(Exception, match=r"the levels of .* are less certain than asked for"):
        process_session(pair, request, names=pair, model=unsure)


def test_a_cord_is_of_one_image(pair):
    with pytest.raises(RequestError, match="cord is of one image"):
        process_session(pair, ScanRequest(cord=pair[0]), model=MODEL)


@pytest.fixture
def twins(painted, tmp_path, monkeypatch):
    """Files of two images on one grid, as T1w and T2w of the same slices."""
    monkeypatch.chdir(tmp_path)
    for name, scale in (("first", 1.0), ("second", 0.5)):
        nib.save(nib.Nifti1Image(painted.data * scale, painted.grid.affine), tmp_path / f"{name}.nii.gz")
    return ["first.nii.gz", "second.nii.gz"]


def page_file(tmp_path, **scans):
    """Write what the review page saves: the discs of each image, some of them one level lower."""
    discs = {
        name: [{"value": v + shift, "world_mm": tip.tolist()} for v, tip in tips.items()]
        for name, (tips, shift) in scans.items()
    }
    (tmp_path / "c.json").write_text(json.dumps({"scans": discs}), encoding="utf-8")
    return "c.json"


@pytest.mark.parametrize("option", ["-initlabel", "-ldisc"])
def test_corrections_of_the_page_go_to_their_own_image_also_if_others_have_its_grid(
    option, twins, tmp_path, phantom
):
    page = page_file(tmp_path, second=(phantom.discs, 1))
    assert main(["-i", *twins, option, page, "-ofolder", "out", "-v", "0"], model=MODEL) == 0
    first, second = content("out/first_discs.json"), content("out/second_discs.json")
    assert (first["view"] == "corrected", second["view"] == "corrected") == (False, True)
    np.testing.assert_allclose([d["world_mm"] for d in second["discs"]], [*phantom.discs.values()], atol=1e-3)


def test_corrections_of_several_images_go_to_each_of_them(twins, tmp_path, phantom):
    page = page_file(tmp_path, first=(phantom.discs, 0), second=(phantom.discs, 0))
    assert main(["-i", *twins, "-initlabel", page, "-ofolder", "out", "-v", "0"], model=MODEL) == 0
    for name in ("first", "second"):
        found = content(f"out/{name}_discs.json")
        assert found["view"] == "corrected"
        np.testing.assert_allclose(
            [d["world_mm"] for d in found["discs"]], [*phantom.discs.values()], atol=1e-3
        )


@pytest.mark.parametrize("with_record", [True, False])
def test_edits_go_to_the_image_that_they_were_made_on_or_are_named_after(with_record, twins):
    assert main(["-i", *twins, "-csv", "1", "-v", "0"], model=MODEL) == 0
    lines = Path("second_discs.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("6,")]
    name = "second_discs.csv" if with_record else "second_edited.csv"
    Path(name).write_text("\n".join(kept), encoding="utf-8")
    assert main(["-i", *twins, "-initlabel", name, "-ofolder", "out", "-v", "0"], model=MODEL) == 0
    values = {n: [d["value"] for d in content(f"out/{n}_discs.json")["discs"]] for n in ("first", "second")}
    assert 6 in values["first"]
    assert 6 not in values["second"]


def test_an_edit_of_one_disc_changes_that_disc_alone(pair, phantom):
    assert main(["-i", *pair, "-csv", "1", "-v", "0"], model=MODEL) == 0
    before = {name: content(f"{name}_discs.json") for name in ("upper", "lower")}
    lines = Path("lower_discs.csv").read_text(encoding="utf-8").splitlines()
    last = max(phantom.discs)
    kept = [line for line in lines if not line.startswith(f"{last},")]
    Path("edited.csv").write_text("\n".join(kept), encoding="utf-8")
    assert main(["-i", *pair, "-initlabel", "edited.csv", "-ofolder", "out", "-v", "0"], model=MODEL) == 0
    upper, lower = content("out/upper_discs.json"), content("out/lower_discs.json")
    assert upper["discs"] == before["upper"]["discs"]
    assert upper["level_confidence"] == before["upper"]["level_confidence"]
    assert lower["level_confidence"] == before["lower"]["level_confidence"]
    assert [d["value"] for d in lower["discs"]] == [d["value"] for d in before["lower"]["discs"]][:-1]


def test_a_person_may_label_an_image_in_which_no_spine_is_seen(pair, phantom, tmp_path):
    affine = nib.load(pair[1]).affine
    grey = np.random.default_rng(0).normal(100, 20, nib.load(pair[1]).shape).astype(np.float32)
    nib.save(nib.Nifti1Image(grey, affine), "noise.nii.gz")
    tips = {v: tip for v, tip in phantom.discs.items() if v >= 8}
    page = page_file(tmp_path, noise=(tips, 0))
    words = ["-i", "noise.nii.gz", *pair, "-ldisc", page, "-ofolder", "out", "-v", "0"]
    assert main(words, model=MODEL) == 0
    assert {d["value"] for d in content("out/noise_discs.json")["discs"]} == set(tips)
    assert content("out/upper_discs.json")["level_confidence"] > 0.9


def test_no_input_is_written_over(pair, tmp_path, capsys):
    Path("upper_spine.nii.gz").write_bytes(Path(pair[1]).read_bytes())
    before = Path("upper_spine.nii.gz").read_bytes()
    networks = {"model": MODEL, "mask_model": fake_mask_model()}
    words = ["-i", pair[0], "-localizer", "upper_spine.nii.gz", "-masks", "1", "-overwrite", "1"]
    assert main(words, **networks) == 1
    assert "is an input" in capsys.readouterr().err
    assert Path("upper_spine.nii.gz").read_bytes() == before


def test_a_session_is_written_as_a_whole_or_not_at_all(pair, capsys):
    Path("out").mkdir()
    Path("out/lower_discs.csv").write_text("mine", encoding="utf-8")
    assert main(["-i", *pair, "-csv", "1", "-ofolder", "out"], model=MODEL) == 1
    assert "lower_discs.csv was not written by this command" in capsys.readouterr().err
    assert [path.name for path in Path("out").iterdir()] == ["lower_discs.csv"]


def test_names_are_those_of_all_images(pair):
    with pytest.raises(RequestError, match="expected 2 names, of the images and localizers, got 1"):
        process_session(pair, names=["a"], model=MODEL)
