"""Inputs that are wrong in ways a person meets: one line says so, and nothing is labelled by mistake."""

import gzip
import json
import struct

import nibabel as nib
import numpy as np
import pytest
from fakes import PaintReader, SctLikeImage, fake_model, paint_truth

from sct_deepspine import DeepSpineError, GeometryError, ImageError, OutputError, label_discs
from sct_deepspine.cli.label import main
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.bids import find_scans
from sct_deepspine.io.files import plain_cell
from sct_deepspine.io.images import read_mask, read_volume
from sct_deepspine.reporting.html import Entry, failed_entry, read_entries, write_page

VOX_OFFSET, DIM, PIXDIM, QUATERN_B = 108, 40, 80, 256


@pytest.fixture
def plain_file(painted, tmp_path):
    """An uncompressed scan, whose bytes a test may change."""
    path = tmp_path / "t2.nii"
    nib.save(nib.Nifti1Image(painted.data, painted.grid.affine), path)
    return path


def patched(path, offset, form, *values):
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("offset", [0.0, 100.0, 3e38, -1.0, float("nan")])
def test_voxels_are_not_read_from_the_header(offset, plain_file):
    with pytest.raises(ImageError, match="voxels can't begin at byte"):
        read_volume(patched(plain_file, VOX_OFFSET, "<f", offset))


def test_negative_dimensions_are_refused(plain_file):
    with pytest.raises(ImageError, match="shape"):
        read_volume(patched(plain_file, DIM, "<hhhh", 3, 10, -5, 20))


def test_a_voxel_size_that_is_a_signalling_nan_is_refused_without_a_numpy_warning(plain_file):
    with pytest.raises(ImageError, match="voxel sizes of nan"):
        read_volume(patched(plain_file, PIXDIM, "<I", 0x7FA00000))


def test_a_wrong_checksum_of_a_compressed_file_is_noticed(plain_file, tmp_path):
    packed = tmp_path / "t2.nii.gz"
    content = bytearray(gzip.compress(plain_file.read_bytes()))
    content[-6] ^= 1
    packed.write_bytes(content)
    with pytest.raises(ImageError, match="CRC"):
        read_volume(packed)


def test_a_bad_quaternion_beside_a_good_sform_does_not_matter(plain_file, painted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patched(plain_file, QUATERN_B, "<fff", 0.9, 0.9, 0.9)
    assert main(["-i", str(plain_file), "-v", "0"], model=fake_model()) == 0
    np.testing.assert_allclose(nib.load("t2_discs.nii.gz").affine, painted.grid.affine, atol=1e-4)


def test_a_folder_of_dicom_files_is_told_what_to_do(tmp_path):
    with pytest.raises(ImageError, match="dcm2niix"):
        read_volume(tmp_path)


def test_a_mask_given_as_a_scan_is_refused(phantom):
    with pytest.raises(ImageError, match="is it a mask or a label image"):
        label_discs((phantom.tissue.data, phantom.tissue.grid.affine), weights=fake_model())


def test_voxels_of_a_thousandth_of_a_millimetre_are_refused_at_once(painted):
    affine = np.array(painted.grid.affine)
    affine[:3, :3] /= 1000
    with pytest.raises(ImageError, match=r"measures 0\.048 .* mm; are the voxel sizes"):
        label_discs((painted.data, affine), weights=fake_model())


def test_the_scan_given_as_its_own_cord_mask_is_refused(painted):
    with pytest.raises(ImageError, match=r"fills \d+% of its image; is it a mask of the cord"):
        label_discs(painted, seg=painted, weights=fake_model())


def test_a_mask_beside_the_canal_is_refused(painted, phantom):
    line = phantom.centerline_world
    label_discs(painted, centerline=line, weights=fake_model())
    with pytest.raises(GeometryError, match="does not run along the spinal canal"):
        label_discs(painted, centerline=line + np.array([0, 45.0, 0]), weights=fake_model())


def test_errors_of_a_mask_name_it(tmp_path):
    with pytest.raises(ImageError, match=r"the mask .*lost\.nii\.gz: no such file"):
        read_mask(tmp_path / "lost.nii.gz")


def test_an_image_with_a_trailing_axis_gets_labels_that_sct_can_read(painted):
    image = SctLikeImage(painted.data[..., None], painted.grid.affine)
    assert label_discs(image, weights=fake_model()).to_image().data.ndim == 3


@pytest.mark.parametrize("thickness", [0.7, 1.0, 3.0, 8.0])
def test_a_single_slice_is_labelled_whatever_its_thickness(thickness, phantom):
    line, grid = phantom.centerline_world, phantom.volume.grid
    affine = np.array(grid.affine)
    affine[0, 0] = thickness
    affine[0, 3] = line[:, 0].mean()
    flat = Grid((1, *grid.shape[1:]), affine)
    scan = Volume(np.zeros(flat.shape, np.float32), flat)
    straight = {v: tip * [0, 1, 1] + [affine[0, 3], 0, 0] for v, tip in phantom.discs.items()}
    from dataclasses import replace

    across = line * [0, 1, 1] + [affine[0, 3], 0, 0]
    painted = paint_truth(replace(phantom, volume=scan, discs=straight, centerline_world=across))
    labels = label_discs(painted, weights=fake_model(refine=PaintReader(1.0)))
    assert labels.values.tolist() == sorted(phantom.discs)


def test_slices_far_from_the_bodys_axes_are_doubted(painted):
    from nibabel.affines import from_matvec
    from nibabel.eulerangles import euler2mat

    turned = painted.transformed(from_matvec(euler2mat(x=np.radians(43)), [0, 0, 0]))
    labels = label_discs(turned, weights=fake_model())
    assert any("turned by 43° from the body's axes" in warning for warning in labels.warnings)


# Names, lists and tables


def test_a_list_cant_write_outside_its_results(tmp_path, plain_file):
    (tmp_path / "list.txt").write_text("sub-07/../../../t2.nii\n", encoding="utf-8")
    (scan,) = find_scans(tmp_path / "list.txt")
    assert ".." not in scan.folder.parts
    assert not scan.folder.is_absolute()


def test_a_dataset_below_a_folder_named_derivatives_is_seen(tmp_path, plain_file):
    place = tmp_path / "derivatives" / "mine"
    place.mkdir(parents=True)
    (place / "a_T2w.nii").write_bytes(plain_file.read_bytes())
    assert [scan.path.name for scan in find_scans(place)] == ["a_T2w.nii"]


def test_a_name_that_is_not_utf8_is_written_escaped(painted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = b"t2_\xff.nii".decode("utf-8", "surrogateescape")
    nib.save(nib.Nifti1Image(painted.data, painted.grid.affine), tmp_path / "t2.nii")
    (tmp_path / "t2.nii").rename(tmp_path / name)
    assert main(["-i", name, "-v", "0"], model=fake_model()) == 0
    (sidecar,) = tmp_path.glob("*_discs.json")
    assert json.loads(sidecar.read_bytes())["discs"]


def test_a_name_too_long_for_the_file_system_leaves_nothing(painted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(painted.data, painted.grid.affine), tmp_path / "t2.nii")
    assert main(["-i", "t2.nii", "-o", "x" * 252 + ".nii", "-v", "0"], model=fake_model()) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t2.nii"]


def test_labels_are_not_saved_in_another_format(painted, tmp_path):
    labels = label_discs(painted, weights=fake_model())
    with pytest.raises(OutputError, match=r"\.nii or \.nii\.gz"):
        labels.save(tmp_path / "x.img")


def test_a_cell_is_no_formula():
    assert [plain_cell(v) for v in ("=1+1", "@x", "sub-01", 3, "")] == ["'=1+1", "'@x", "sub-01", 3, ""]


def test_a_name_with_markup_does_not_end_the_page(tmp_path):
    write_page(tmp_path / "index.html", [failed_entry("<!--<script>", "x")], title="t")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<!--<script>" not in page
    assert "\\u003c!--\\u003cscript>" in page


def test_broken_and_foreign_entries_of_a_report_are_passed_over(tmp_path):
    (tmp_path / "a.json").write_text(Entry("good").to_json(), encoding="utf-8")
    (tmp_path / "b.json").write_text('{"name": "trunc', encoding="utf-8")
    (tmp_path / "c.json").write_text('{"mine": 1}', encoding="utf-8")
    assert [entry.name for entry in read_entries(tmp_path)] == ["good"]


# Files that are somebody's


def test_a_persons_file_is_not_overwritten(painted_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["-i", str(painted_file), "-v", "0"]
    assert main(words, model=fake_model()) == 0
    label = tmp_path / "t2_discs.nii.gz"
    image = nib.load(label)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 0, image.affine), label)
    before = label.read_bytes()
    assert main(words, model=fake_model()) == 1
    assert "edited since" in capsys.readouterr().err
    assert label.read_bytes() == before
    assert main([*words, "-overwrite", "1"], model=fake_model()) == 0
    assert label.read_bytes() != before


def test_the_scan_and_its_sidecar_are_not_overwritten(painted_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(painted_file.parent)
    before = painted_file.read_bytes()
    assert main(["-i", "t2.nii.gz", "-qc-png", "t2.nii.gz", "-v", "0"], model=fake_model()) == 1
    assert painted_file.read_bytes() == before
    (painted_file.parent / "t2w.json").write_text('{"EchoTime": 0.1}', encoding="utf-8")
    assert main(["-i", "t2.nii.gz", "-o", "t2w.nii", "-v", "0"], model=fake_model()) == 1
    assert json.loads((painted_file.parent / "t2w.json").read_text(encoding="utf-8")) == {"EchoTime": 0.1}
    assert not (painted_file.parent / "t2w.nii").exists()


def test_what_an_earlier_run_wrote_stays_while_it_is_true(painted_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["-i", str(painted_file)]
    assert main([*words, "-csv", "1", "-slicer", "1"], model=fake_model()) == 0
    assert {"t2_discs.csv", "t2_discs.mrk.json"} <= {path.name for path in tmp_path.iterdir()}
    (tmp_path / "t2_discs.mrk.json").write_text("mine now", encoding="utf-8")
    capsys.readouterr()
    assert main([*words, "-preview", "0"], model=fake_model()) == 0
    assert {"t2_discs.csv", "t2_discs.png"} <= {path.name for path in tmp_path.iterdir()}
    assert "Removed" not in capsys.readouterr().out
    assert main([*words, "-initdisc", "9,60", "-preview", "0"], model=fake_model()) == 0
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert not {"t2_discs.csv", "t2_discs.png"} & names  # no longer true
    assert "t2_discs.mrk.json" in names  # a person's
    assert "Removed, out of date:" in capsys.readouterr().out


def test_every_error_of_the_package_is_of_its_family(painted):
    for bad in (3, None, "", object(), (1, 2, 3), [painted]):
        with pytest.raises(DeepSpineError):
            label_discs(bad, weights=fake_model())
