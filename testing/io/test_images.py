import gzip
import itertools
import struct

import nibabel as nib
import numpy as np
import pytest
from fakes import SctLikeImage
from nibabel.orientations import inv_ornt_aff

from sct_deepspine.errors import DeepSpineError, GeometryError, ImageError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.images import image_like, is_sct_image, read_mask, read_volume

SHAPE = 5, 7, 11
ORIENTATIONS = [
    np.column_stack([axes, flips])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
PIXDIM_BYTE = 76


def oblique_affine():
    """Anisotropic, turned by 20 and by -15 degrees, far from the origin."""
    a, b = np.radians((20, -15))
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag([3.3, 0.7, 1.1])
    affine[:3, 3] = -71.3, 40.9, -507.7
    return affine


AFFINE = oblique_affine()


def ramp(shape=SHAPE, dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def header_with(path, offset, form, *values):
    """Rewrite bytes of a NIfTI-1 header by hand, since nibabel would mend them."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "t2.nii.gz"
    nib.save(nib.Nifti1Image(ramp(), AFFINE), path)
    return path


# Reading


@pytest.mark.parametrize("kind", ["path", "text path", "nibabel", "pair", "volume", "sct"])
def test_every_kind_of_image_gives_the_same_voxels_at_the_same_place(kind, file):
    image = {
        "path": file,
        "text path": str(file),
        "nibabel": nib.load(file),
        "pair": (ramp(), AFFINE),
        "volume": Volume(ramp(), Grid(SHAPE, AFFINE)),
        "sct": SctLikeImage(ramp(), AFFINE),
    }[kind]
    volume = read_volume(image)
    np.testing.assert_array_equal(volume.data, ramp())
    np.testing.assert_allclose(volume.grid.affine, AFFINE, atol=1e-4)
    assert volume.grid.shape == SHAPE


def test_scaled_voxels_are_read_as_they_are_meant(tmp_path):
    path = tmp_path / "scaled.nii"
    image = nib.Nifti1Image(ramp(), AFFINE)
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, path)
    np.testing.assert_allclose(read_volume(path).data, ramp() * 0.5 + 3)


def test_trailing_axes_of_length_one_are_dropped(tmp_path):
    path = tmp_path / "five.nii"
    nib.save(nib.Nifti1Image(ramp((*SHAPE, 1, 1)), AFFINE), path)
    for image in (path, (ramp((*SHAPE, 1)), AFFINE), SctLikeImage(ramp((*SHAPE, 1)), AFFINE)):
        np.testing.assert_array_equal(read_volume(image).data, ramp())


def test_an_image_one_voxel_thick_is_a_volume():
    assert read_volume((ramp((1, 7, 11)), AFFINE)).grid.shape == (1, 7, 11)
    assert read_volume((ramp((5, 7, 1)), AFFINE)).grid.shape == (5, 7, 1)


def test_only_what_has_all_of_scts_promises_counts_as_its_image():
    assert is_sct_image(SctLikeImage(ramp(), AFFINE))
    assert not is_sct_image(nib.Nifti1Image(ramp(), AFFINE))
    assert not is_sct_image((ramp(), AFFINE))


@pytest.mark.parametrize("flips", ORIENTATIONS, ids=lambda ornt: "".join(map(str, ornt.ravel())))
def test_every_voxel_keeps_its_place_and_value_in_all_48_orientations(flips):
    shape = tuple(np.array(SHAPE)[np.argsort(flips[:, 0])])  # after reorientation the shape is SHAPE
    affine = AFFINE @ inv_ornt_aff(flips, shape)
    data = ramp(shape)
    ras = Volume(data, Grid(shape, affine)).as_ras()

    assert ras.grid.orientation == "RAS"
    assert ras.grid.shape == ras.data.shape == SHAPE
    np.testing.assert_allclose(ras.grid.spacing_mm, [3.3, 0.7, 1.1])
    index = np.indices(SHAPE).reshape(3, -1).T
    before = Grid(shape, affine).voxel_from_world(ras.grid.world_from_voxel(index))
    np.testing.assert_allclose(before, np.round(before), atol=1e-6)
    np.testing.assert_array_equal(ras.data.ravel(), data[tuple(np.round(before).astype(int).T)])
    assert np.shares_memory(ras.data, data)


# Bad input


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) > 10


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"no such file.*lost\.nii") as error:
        read_volume(tmp_path / "lost.nii")
    assert one_line(error)


@pytest.mark.parametrize("content", [b"Dear reader,\nthis is no image.\n", b"", b"\x00" * 400])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".txt"])
def test_a_file_that_is_no_image_is_refused(content, suffix, tmp_path):
    path = tmp_path / f"letter{suffix}"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"letter") as error:
        read_volume(path)
    assert one_line(error)


@pytest.mark.parametrize("part", [0.05, 0.5, 0.98])
def test_a_truncated_file_is_refused(part, tmp_path):
    path = tmp_path / "cut.nii.gz"
    noise = np.random.default_rng(0).integers(0, 30_000, (23, 29, 31), dtype=np.int16)
    nib.save(nib.Nifti1Image(noise, AFFINE), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ImageError, match=r"truncated|can't be read") as error:
        read_volume(path)
    assert one_line(error)


def test_a_file_cut_short_without_compression_is_refused(tmp_path):
    path = tmp_path / "cut.nii"
    nib.save(nib.Nifti1Image(ramp(), AFFINE), path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ImageError, match="truncated") as error:
        read_volume(path)
    assert one_line(error)


COLOURS = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def spoilt(value):
    data = ramp(dtype=np.float32)
    data[2, 3, 4] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ramp((7, 11)), "2 dimensions.*7 × 11"),
        (np.float32(3), "0 dimensions"),
        (ramp((*SHAPE, 3)), "several volumes.*5 × 7 × 11 × 3"),
        (ramp((*SHAPE, 1, 2)), "several volumes"),
        (np.zeros(SHAPE, COLOURS), "type"),
        (ramp(dtype=np.complex64), "type complex64"),
        (ramp().astype(str), "type"),
        (ramp().astype(object), "type"),
        (spoilt(np.nan), "NaN"),
        (spoilt(np.inf), "infinite"),
        (spoilt(-np.inf), "infinite"),
        (np.full(SHAPE, 3.5), r"same value \(3\.5\)"),
        (ramp((1, 1, 1)), "same value"),
        (np.zeros((5, 0, 11)), "no voxels.*5 × 0 × 11"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_voxels_that_cant_be_worked_on_are_refused(data, message):
    with pytest.raises(ImageError, match=message) as error:
        read_volume((data, AFFINE))
    assert one_line(error)


@pytest.mark.parametrize("dtype", [COLOURS, np.complex64])
def test_files_of_colours_or_complex_numbers_are_refused(dtype, tmp_path):
    data = np.zeros(SHAPE, dtype)
    path = tmp_path / "colours.nii"
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    with pytest.raises(ImageError, match="real grey values") as error:
        read_volume(path)
    assert one_line(error)


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([1, 0, 1, 1]), "singular"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.diag([1, np.nan, 1, 1]), "NaN"),
        (np.diag([1, np.inf, 1, 1]), "infinite"),
        (np.eye(3), r"\(4, 4\), got \(3, 3\)"),
    ],
)
def test_an_affine_that_defines_no_space_is_refused(affine, message):
    with pytest.raises(GeometryError, match=message) as error:
        read_volume((ramp(), affine))
    assert one_line(error)


def test_a_file_whose_sform_is_singular_is_refused(file):
    header_with(file, 280, "<12f", *[0.0] * 12)
    header_with(file, 254, "<h", 1)  # sform_code
    with pytest.raises(GeometryError, match="singular") as error:
        read_volume(file)
    assert one_line(error)


@pytest.mark.parametrize("lengths", [(0, 1, 1), (1, -1, 1), (1, 1, np.nan), (np.inf, 1, 1)])
def test_a_header_with_impossible_voxel_sizes_is_refused(lengths, file):
    header_with(file, PIXDIM_BYTE + 4, "<3f", *lengths)
    with pytest.raises(DeepSpineError, match="voxel sizes") as error:
        read_volume(file)
    assert one_line(error)


@pytest.mark.parametrize("image", [None, 3, [ramp(), AFFINE, 1], (ramp(),), {"data": ramp()}])
def test_what_is_no_kind_of_image_is_refused(image):
    with pytest.raises(ImageError, match="can't read an image from") as error:
        read_volume(image)
    assert one_line(error)


# Masks


def test_voxels_above_zero_are_in_the_mask():
    soft = np.zeros(SHAPE)
    soft[1, 2, 3], soft[4, 5, 6] = 0.3, -2
    assert np.argwhere(read_mask((soft, AFFINE)).data).tolist() == [[1, 2, 3]]


def test_an_empty_mask_is_refused():
    with pytest.raises(ImageError, match="empty") as error:
        read_mask((np.zeros(SHAPE), AFFINE))
    assert one_line(error)


def test_a_mask_of_the_whole_body_is_no_mask_of_the_cord():
    body = np.zeros((10, 10, 10))
    body[:, :, :3] = 1
    assert read_mask((body, AFFINE)).data.sum() == 300
    body[:, :, :4] = 1
    with pytest.raises(ImageError, match="fills 40% of its image; is it a mask of the cord"):
        read_mask((body, AFFINE))


# Back to the kind that came in

LABELS = ramp(dtype=np.uint8) % 26


def test_labels_come_back_as_the_kind_that_went_in(file):
    grid = Grid(SHAPE, AFFINE)
    sct = SctLikeImage(ramp(), AFFINE)
    assert isinstance(image_like(nib.load(file), LABELS, grid), nib.Nifti1Image)
    assert isinstance(image_like(file, LABELS, grid), nib.Nifti1Image)
    assert isinstance(image_like(str(file), LABELS, grid), nib.Nifti1Image)
    assert isinstance(image_like(None, LABELS, grid), nib.Nifti1Image)
    assert isinstance(image_like(sct, LABELS, grid), SctLikeImage)
    assert isinstance(image_like(Volume(ramp(), grid), LABELS, grid), Volume)
    data, affine = image_like((ramp(), AFFINE), LABELS, grid)
    np.testing.assert_array_equal(data, LABELS)
    np.testing.assert_array_equal(affine, AFFINE)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (2, 1), (4, 3)])
def test_a_nifti_image_gives_its_version_units_and_codes_to_the_labels(kind, codes, tmp_path):
    affine = np.diag([3.3, 0.7, 1.1, 1.0])
    image = kind(ramp(), affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    image.header.set_xyzt_units("mm", "msec")
    path = tmp_path / "t2.nii.gz"
    nib.save(image, path)
    volume = read_volume(path)
    nib.save(image_like(path, LABELS, volume.grid), tmp_path / "labels.nii.gz")

    before, after = nib.load(path), nib.load(tmp_path / "labels.nii.gz")
    assert type(after) is kind
    np.testing.assert_array_equal(after.affine, before.affine)
    np.testing.assert_array_equal(after.dataobj, LABELS)
    assert after.get_data_dtype() == np.uint8
    assert [int(after.header[name]) for name in ("sform_code", "qform_code")] == list(codes)
    assert after.header.get_xyzt_units() == ("mm", "msec")
    np.testing.assert_array_equal(after.header["pixdim"][1:4], before.header["pixdim"][1:4])


def test_voxel_sizes_that_disagree_with_the_affine_are_kept(file):
    header_with(file, PIXDIM_BYTE + 4, "<3f", 3.25, 0.75, 1.25)
    header_with(file, 252, "<2h", 0, 2)  # qform_code, sform_code
    labels = image_like(file, LABELS, read_volume(file).grid)
    np.testing.assert_array_equal(labels.header["pixdim"][1:4], [3.25, 0.75, 1.25])
    np.testing.assert_allclose(labels.affine, AFFINE, atol=1e-4)


def test_labels_of_an_oblique_image_lie_on_its_grid(file, tmp_path):
    image = nib.load(file)
    image.set_qform(AFFINE, 1)
    nib.save(image, tmp_path / "oblique.nii.gz")
    volume = read_volume(tmp_path / "oblique.nii.gz")
    nib.save(image_like(tmp_path / "oblique.nii.gz", LABELS, volume.grid), tmp_path / "labels.nii.gz")
    before, after = nib.load(tmp_path / "oblique.nii.gz"), nib.load(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(after.affine, before.affine)
    np.testing.assert_allclose(after.get_qform(), before.get_qform(), atol=1e-5)


def test_scaling_of_the_image_is_not_applied_to_the_labels(tmp_path):
    image = nib.Nifti1Image(ramp(), AFFINE)
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "scaled.nii")
    labels = image_like(tmp_path / "scaled.nii", LABELS, Grid(SHAPE, AFFINE))
    nib.save(labels, tmp_path / "labels.nii")
    np.testing.assert_array_equal(nib.load(tmp_path / "labels.nii").dataobj, LABELS)


def test_an_sct_image_loses_its_fourth_axis_and_its_scaling():
    sct = SctLikeImage(ramp((*SHAPE, 1)), AFFINE)
    sct.hdr["scl_slope"], sct.hdr["scl_inter"] = 0.5, 3
    labels = image_like(sct, LABELS, Grid(SHAPE, AFFINE))
    np.testing.assert_array_equal(labels.data, LABELS)
    assert labels.hdr.get_data_dtype() == np.uint8
    assert (float(labels.hdr["scl_slope"]), float(labels.hdr["scl_inter"])) == (1, 0)


def test_the_image_that_came_in_is_not_altered(file):
    sct, nifti = SctLikeImage(ramp(), AFFINE), nib.load(file)
    header, content = sct.hdr.copy(), file.read_bytes()
    nifti_header = nifti.header.copy()
    for image in (sct, nifti, file):
        labels = image_like(image, LABELS.copy(), read_volume(image).grid)
        if image is sct:
            labels.data[:] = 0
            labels.hdr["pixdim"] = 0
    np.testing.assert_array_equal(sct.data, ramp())
    assert sct.hdr == header
    assert nifti.header == nifti_header
    assert file.read_bytes() == content


# What no body fills, and what would take all the memory


def refused(image, match):
    with pytest.raises(ImageError, match=match) as caught:
        read_volume(image)
    assert "\n" not in str(caught.value)


def small_image(**header):
    image = nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.eye(4))
    for name, value in header.items():
        image.header[name] = value
    return image


def test_an_image_of_many_metres_is_refused():
    image = nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.diag([1, 1, 1000, 1.0]))
    refused(image, r"3 × 4 × 5000 mm; are the voxel sizes")


@pytest.mark.parametrize(("code", "match"), [(1, "in meter"), (3, "in micron"), (7, "has no meaning")])
def test_a_unit_that_is_not_mm_is_refused(code, match):
    refused(small_image(xyzt_units=code), match)


def test_an_unknown_unit_is_taken_for_mm():
    assert read_volume(small_image(xyzt_units=0)).data.shape == (3, 4, 5)


def test_values_that_leave_single_precision_are_refused():
    refused((np.array([0.0, 1e35, 1]).reshape(3, 1, 1), np.eye(4)), "values of 1e")


def test_a_header_that_claims_too_many_voxels_is_refused_before_they_are_read(tmp_path):
    path = tmp_path / "huge.nii"
    nib.save(small_image(), path)
    raw = bytearray(path.read_bytes())
    raw[42:48] = np.array([3000, 3000, 3000], "<i2").tobytes()
    path.write_bytes(raw)
    refused(path, r"2\.7e\+10 voxels")
