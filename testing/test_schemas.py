"""What is written holds what the schemas of the documentation say, and nothing else."""

import json
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from fakes import fake_mask_model, fake_model

from sct_deepspine import ScanRequest, process_scan
from sct_deepspine.cli.batch import main as batch
from sct_deepspine.cli.label import main as label
from sct_deepspine.cli.segment import main as segment
from sct_deepspine.labels import NOTE_KINDS
from sct_deepspine.simulation.phantom import make_phantom

SCHEMAS = Path(__file__).parents[1] / "docs" / "schemas"
MODEL = fake_model()


def schema(name):
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))


def check(path, name="labels"):
    """Validate a file; returns what it holds."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema(name)).validate(content)
    return content


@pytest.mark.parametrize("name", ["labels", "corrections"])
def test_the_schemas_are_valid_and_each_field_is_described(name):
    jsonschema.Draft202012Validator.check_schema(schema(name))

    def undescribed(part, path):
        for key, value in part.get("properties", {}).items():
            if "description" not in value:
                yield f"{path}.{key}"
            yield from undescribed(value, f"{path}.{key}")
            yield from undescribed(value.get("items", {}), f"{path}.{key}[]")

    assert list(undescribed(schema(name), name)) == []


def test_the_schema_knows_every_kind_of_note():
    kinds = schema("labels")["properties"]["notes"]["items"]["properties"]["kind"]["enum"]
    assert kinds == list(NOTE_KINDS)


def test_the_labels_of_an_image(painted_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert label(["-i", str(painted_file), "-csv", "1", "-v", "0"], model=MODEL) == 0
    content = check("t2_discs.json")
    assert len(content["source"]["sha256"]) == 64
    del content["evidence"]
    content["evidense"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema("labels")).validate(content)


def test_the_labels_of_several_images(painted_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.nii.gz"
    other.write_bytes(Path(painted_file).read_bytes())
    assert label(["-i", str(painted_file), str(other), "-ofolder", "out", "-v", "0"], model=MODEL) == 0
    assert check("out/other_discs.json")["session"]["images"] == ["t2.nii.gz", "other.nii.gz"]


def test_the_masks_of_an_image(painted_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["-i", str(painted_file), "-v", "0"]
    assert segment(words, model=fake_mask_model(), labeling=MODEL) == 0
    assert "masks" in check("t2_spine.json")


def test_a_spine_with_a_vertebra_more(tmp_path):
    phantom = make_phantom(np.random.default_rng(2), voxel_mm=(3.0, 1.5, 1.5), extra=15)
    nib.save(nib.Nifti1Image(phantom.volume.data, phantom.volume.grid.affine), tmp_path / "t2.nii.gz")
    process_scan(tmp_path / "t2.nii.gz", ScanRequest()).save(tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*_discs.json")
    content = check(path)
    assert content["presacral_vertebrae"]["number"] == 25
    assert "vertebra count" in {note["kind"] for note in content["notes"]}


def test_a_cohort_with_corrections(painted, phantom, tmp_path):
    for subject in ("01", "02"):
        folder = tmp_path / "data" / f"sub-{subject}" / "anat"
        folder.mkdir(parents=True)
        image = nib.Nifti1Image(painted.data + int(subject), painted.grid.affine)
        nib.save(image, folder / f"sub-{subject}_T2w.nii.gz")
    discs = [{"value": v, "world_mm": p.tolist()} for v, p in phantom.discs.items()]
    saved = {"name": "sub-01/anat/sub-01_T2w", "discs": discs, "absent": [], "accepted": True}
    corrections = tmp_path / "corrections.json"
    corrections.write_text(json.dumps({"format": 2, "scans": {"k": saved}}), encoding="utf-8")
    check(corrections, "corrections")
    words = ["-i", str(tmp_path / "data"), "-o", str(tmp_path / "results"), "-v", "0"]
    assert batch([*words, "-corrections", str(corrections)], model=MODEL) == 0
    written = sorted((tmp_path / "results").rglob("sub-*_dlabel.json"))
    assert {check(path).get("Accepted", False) for path in written} == {True, False}
