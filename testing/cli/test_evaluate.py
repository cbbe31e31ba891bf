import csv
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import PaintReader, fake_model, paint_truth, write_scan

from sct_deepspine.cli.evaluate import main
from sct_deepspine.evaluation.run import evaluate_folder, read_annotations, read_outcomes
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.simulation.phantom import make_phantom


@pytest.fixture
def folder(tmp_path, phantom, painted):
    """One painted phantom with its card."""
    write_scan(phantom, painted, tmp_path / "scans", subject="nobody", region="neck", contrast="T2w")
    return tmp_path / "scans"


def rows_of(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_perfect_labelling_has_a_perfect_score(folder, phantom, tmp_path, capsys):
    model = fake_model()
    assert main(["-i", str(folder), "-o", str(tmp_path / "scores.csv")], model=model) == 0
    (row,) = rows_of(tmp_path / "scores.csv")
    assert (row["name"], row["subject"], row["region"], row["contrast"]) == (
        *("phantom.nii.gz", "nobody", "neck", "T2w"),
    )
    assert row["true_count"] == row["predicted_count"] == str(len(phantom.discs))
    assert row["levels_right"] == "1"
    assert float(row["mean_mm"]) < 0.5
    assert (row["missed"], row["invented"], row["error"]) == ("0", "0", "")
    assert float(row["seconds"]) > 0
    assert float(row["level_confidence"]) > 0.9

    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("phantom.nii.gz")]
    assert " right " in line
    for title in ("levels", "mean mm", "any-level", "neck", "T2w", "all", "s a scan on average"):
        assert title in out


def test_wrong_levels_are_counted_as_wrong(folder, phantom, tmp_path, capsys):
    def one_lower(maps):
        return replace(maps, level=np.roll(maps.level, 1, axis=0))

    model = fake_model(PaintReader(edit=one_lower))
    assert main(["-i", str(folder), "-o", str(tmp_path / "scores.csv")], model=model) == 0
    (row,) = rows_of(tmp_path / "scores.csv")
    assert row["levels_right"] == "0"
    assert float(row["mean_mm"]) > 10
    assert (row["missed"], row["invented"]) == ("0", "0")
    assert "WRONG" in capsys.readouterr().out


def test_outside_the_labelled_span_nothing_is_counted(tmp_path, phantom, painted):
    model = fake_model()
    middle = (phantom.discs[6][2] + phantom.discs[7][2]) / 2
    upper = {value: tip for value, tip in phantom.discs.items() if value <= 6}
    part = replace(phantom, discs=upper, span_z_mm=(middle, np.inf))
    write_scan(part, painted, tmp_path / "part")
    whole = replace(phantom, discs=upper, span_z_mm=(-np.inf, np.inf))
    write_scan(whole, painted, tmp_path / "whole")
    (narrow,), (wide,) = (list(evaluate_folder(tmp_path / name, weights=model)) for name in ("part", "whole"))
    assert (narrow.score.predicted_count, narrow.score.invented) == (4, 0)
    assert (wide.score.predicted_count, wide.score.invented) == (8, 4)
    assert narrow.score.levels_right
    assert narrow.score.complete


def test_discs_above_c2_c3_are_not_scored(tmp_path, phantom, painted):
    model = fake_model()
    more = phantom.discs | {1: phantom.discs[3] + [0, 0, 38], 2: phantom.discs[3] + [0, 0, 16]}
    write_scan(replace(phantom, discs=more), painted, tmp_path)
    (result,) = evaluate_folder(tmp_path, weights=model)
    assert result.score.true_count == len(phantom.discs)
    assert result.score.missed == 0


def test_a_scan_that_cant_be_labelled_misses_every_disc_and_the_rest_goes_on(
    folder, phantom, capsys, tmp_path
):
    model = fake_model()
    blank = paint_truth(phantom, discs=False, canal=False)
    write_scan(replace(phantom, name="blank"), blank, folder)
    write_scan(replace(phantom, name="broken"), Volume(blank.data * np.nan, blank.grid), folder)
    assert main(["-i", str(folder), "-o", str(tmp_path / "scores.csv"), "-v", "0"], model=model) == 0
    rows = {row["name"]: row for row in rows_of(tmp_path / "scores.csv")}
    assert list(rows) == ["blank.nii.gz", "broken.nii.gz", "phantom.nii.gz"]
    for name, message in (("blank.nii.gz", "no spine"), ("broken.nii.gz", "NaN")):
        assert message in rows[name]["error"]
        assert rows[name]["missed"] == str(len(phantom.discs))
        assert float(rows[name]["level_confidence"]) == 0
        assert rows[name]["levels_right"] == "0"
    assert rows["phantom.nii.gz"]["levels_right"] == "1"
    assert "no spine" in capsys.readouterr().out


def test_only_cards_of_labelled_scans_count(folder):
    (folder / "notes.json").write_text('{"text": "nothing here"}', encoding="utf-8")
    assert [annotation.name for annotation in read_annotations(folder)] == ["phantom.nii.gz"]


def test_a_folder_without_labelled_scans_is_refused(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "lost"):
        assert main(["-i", str(folder)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("ERROR: no labelled scan")


@pytest.mark.parametrize("text", ["not JSON", '{"discs": {}}', '{"discs": {"3": [1, 2]}}'])
def test_a_broken_card_is_refused_by_name(text, folder, capsys):
    model = fake_model()
    (folder / "broken.json").write_text(text, encoding="utf-8")
    assert main(["-i", str(folder), "-v", "0"], model=model) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ERROR: ")
    assert "broken.json" in line


def test_a_table_that_cant_be_written_is_refused(folder, tmp_path, capsys):
    model = fake_model()
    assert main(["-i", str(folder), "-o", str(tmp_path / "new" / "scores.csv"), "-v", "0"], model=model) == 0
    assert (tmp_path / "new" / "scores.csv").is_file()
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["-i", str(folder), "-o", str(tmp_path / "file" / "scores.csv"), "-v", "0"], model=model) == 1
    assert "can't make the folder" in capsys.readouterr().err


def test_under_stress_each_change_has_its_line(folder, capsys):
    model = fake_model()
    assert main(["-i", str(folder), "-stress", "1", "-v", "0"], model=model) == 0
    table = capsys.readouterr().out.split("\n\n")[-2].splitlines()
    assert "discs right %" in table[0]
    figures = {line[:24].strip(): line[24:].split() for line in table[1:]}
    # The paint is read through every change of place; its grey values must stay as they are.
    for name in ("plain", "2 mm isotropic", "crop 4 with landmark", "crop 4 with anchor", "pitch +20°"):
        assert float(figures[name][1]) == 100, name
    for name in ("inverted", "remap 1", "5 mm slices", "noise", "bias", "motion", "roll -20°", "yaw +20°"):
        assert figures[name][0] == "1"


def test_a_usage_error_exits_with_two(capsys):
    for words in ([], ["-o", "scores.csv"], ["-i", "scans", "-stress", "2"]):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        assert exit_.value.code == 2
        assert "sct_deepspine_evaluate" in capsys.readouterr().err


def test_confidences_are_judged_written_and_drawn(folder, tmp_path, capsys):
    model = fake_model()
    files = ["-confidences", str(tmp_path / "c.csv"), "-reliability", str(tmp_path / "r.png")]
    assert main(["-i", str(folder), "-v", "0", *files], model=model) == 0
    assert "scan, landmark" in capsys.readouterr().out
    outcomes = [outcome for _, outcome in read_outcomes(tmp_path / "c.csv")]
    assert [j.part for j in outcomes] == ["scan"] + ["disc"] * 8
    assert all(j.right and j.kind == "landmark" and j.confidence > 0.5 for j in outcomes)
    assert (tmp_path / "r.png").stat().st_size > 1000


def test_a_bids_dataset_with_label_images_can_be_evaluated(tmp_path, phantom, painted):
    model = fake_model()
    anat, labels = tmp_path / "sub-01" / "anat", tmp_path / "derivatives" / "labels" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    labels.mkdir(parents=True)
    nib.save(nib.Nifti1Image(painted.data, painted.grid.affine), anat / "sub-01_T2w.nii.gz")
    truth = DiscLabels(
        tuple(Disc(value, tip, 1.0) for value, tip in sorted(phantom.discs.items())), painted.grid, 1.0
    )
    truth.save(labels / "sub-01_T2w_label-discs_dlabel.nii.gz")
    (result,) = evaluate_folder(tmp_path, weights=model)
    assert (result.score.subject, result.score.contrast) == ("sub-01", "T2w")
    assert result.score.true_count == len(phantom.discs)
    assert result.score.levels_right


def test_whole_spines_are_composed_of_a_cervical_and_a_lumbar_scan(tmp_path, capsys):
    model = fake_model()
    for name, first, last in (("cervical", 3, 10), ("lumbar", 18, 25)):
        scan = make_phantom(np.random.default_rng(first), first=first, last=last, voxel_mm=(6.0, 3.0, 3.0))
        write_scan(replace(scan, name=name), scan.volume, tmp_path, subject=name)
    assert main(["-i", str(tmp_path), "-composites", "1", "-v", "0"], model=model) == 0
    printed = capsys.readouterr().out
    for name in ("whole spine", "thoracic crop 6", "thoracic crop 8 with anchor"):
        assert name in printed
    (tmp_path / "lumbar.json").unlink()
    assert main(["-i", str(tmp_path), "-composites", "1", "-v", "0"], model=model) == 1
    assert "no lumbar scan" in capsys.readouterr().err
