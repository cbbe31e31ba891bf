import nibabel as nib
import numpy as np
import pytest
from mask_folders import COLUMNS, ROWS, picture, write_folder, write_subjects
from PIL import Image

from sct_deepspine.errors import DatasetError, ImageError
from sct_deepspine.recipes.folders import find_cases, read_sample
from sct_deepspine.recipes.pictures import output_suffix, read_image, read_mask_picture, stem, write_mask

LOSSLESS = "png", "tif", "bmp", "npy", "nii.gz"


def save(array, path):
    if path.name.endswith(".npy"):
        np.save(path, array)
    elif ".nii" in path.name:
        nib.save(nib.Nifti1Image(array, np.diag([2.0, 3.0, 4.0, 1.0])), path)
    else:
        Image.fromarray(array).save(path)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_images_and_masks_come_back_from_every_kind_of_file(suffix, tmp_path, rng):
    image, mask = picture(rng)
    save(image, tmp_path / f"image.{suffix}")
    save(mask, tmp_path / f"mask.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"image.{suffix}"), image[None, None])
    np.testing.assert_array_equal(read_mask_picture(tmp_path / f"mask.{suffix}"), mask[None])


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "npy"])
def test_colours_come_first(suffix, tmp_path, rng):
    image, _ = picture(rng, channels=3)
    save(image, tmp_path / f"image.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"image.{suffix}")[0], np.moveaxis(image, 2, 0))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_pictures_keep_their_values(dtype, tmp_path, rng):
    values = rng.integers(0, 60000, (ROWS, COLUMNS)).astype(dtype)
    Image.fromarray(values).save(tmp_path / "deep.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.tif")[0, 0], values)


def test_alpha_is_left_out(tmp_path, rng):
    image, _ = picture(rng, channels=3)
    alpha = np.dstack([image, np.full(image.shape[:2], 9, dtype=np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(tmp_path / "image.png")[0], np.moveaxis(image, 2, 0))


def test_a_blurred_jpeg_mask_has_two_classes(tmp_path, rng):
    _, mask = picture(rng)
    Image.fromarray(255 * mask).save(tmp_path / "mask.jpg", quality=60)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "mask.jpg")))) > 2
    np.testing.assert_array_equal(read_mask_picture(tmp_path / "mask.jpg")[0], 255 * mask)


def test_the_indices_of_a_palette_are_the_classes(tmp_path, rng):
    _, mask = picture(rng, classes=3)
    coloured = Image.fromarray(mask, mode=None).convert("P")
    coloured.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10] + [0] * 759)
    coloured.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask_picture(tmp_path / "mask.png")[0], mask)


def test_a_volume_is_cut_along_its_third_axis_and_comes_back_in_its_grid(tmp_path, rng):
    volume = rng.integers(0, 3, (7, 11, 5)).astype(np.int16)
    affine = np.array([[0, 0, 4.0, 1], [2.0, 0, 0, -5], [0, -3.0, 0, 2], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "volume.nii.gz")
    slices = read_image(tmp_path / "volume.nii.gz")
    assert slices.shape == (5, 1, 7, 11)
    np.testing.assert_array_equal(slices[3, 0], volume[..., 3])
    write_mask(slices[:, 0], tmp_path / "mask.nii.gz", tmp_path / "volume.nii.gz")
    back = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(back.dataobj), volume)
    np.testing.assert_array_equal(back.affine, affine)
    assert back.get_data_dtype() == np.uint8


@pytest.mark.parametrize("name", ["a.b.png", "scan.nii.gz", "scan.nii", "x.NPY"])
def test_names_and_the_names_of_masks(name, tmp_path):
    expected = {"a.b.png": ("a.b", ".png"), "scan.nii.gz": ("scan", ".nii.gz"), "scan.nii": ("scan", ".nii")}
    expected["x.NPY"] = "x", ".npy"
    assert (stem(tmp_path / name), output_suffix(tmp_path / name)) == expected[name]


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "npy", "nii.gz"])
def test_a_file_that_is_no_image_is_refused(suffix, tmp_path):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(b"no image at all")
    with pytest.raises(ImageError, match=r"broken\."):
        read_image(path)


def test_arrays_of_another_shape_and_values_that_are_not_numbers_are_refused(tmp_path):
    np.save(tmp_path / "four.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(ImageError, match=r"shape \(2, 3, 4, 5\)"):
        read_image(tmp_path / "four.npy")
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan))
    with pytest.raises(ImageError, match="not finite"):
        read_image(tmp_path / "nan.npy")
    np.save(tmp_path / "share.npy", np.full((8, 8), 0.5))
    with pytest.raises(ImageError, match="other than whole numbers"):
        read_mask_picture(tmp_path / "share.npy")


def test_a_mask_in_colours_is_refused(tmp_path, rng):
    image, _ = picture(rng, channels=3)
    Image.fromarray(image).save(tmp_path / "mask.png")
    with pytest.raises(ImageError, match="in colours"):
        read_mask_picture(tmp_path / "mask.png")


def test_a_picture_of_several_pages_is_refused(tmp_path, rng):
    first, second = (Image.fromarray(picture(rng)[0]) for _ in range(2))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    with pytest.raises(ImageError, match="2 pages"):
        read_image(tmp_path / "pages.tif")


# Which files belong together


def test_files_are_found_in_order_and_matched_by_name(tmp_path):
    names = ["z", "a10", "a2", "m"]  # written in this order
    write_folder(tmp_path, names=names)
    for path in (tmp_path / "masks").glob("*.png"):  # another kind of file than the images
        Image.open(path).save(path.with_suffix(".tif"))
        path.unlink()
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == sorted(names)
    assert all(case.image.stem == case.mask.stem == case.name for case in cases)
    assert [case.subject for case in cases] == sorted(names)


def test_subjects_come_from_the_table_the_rule_or_the_name(tmp_path):
    write_folder(tmp_path, names=["eye_01L", "eye_01R", "eye_02L", "sub-07_T2w"])
    assert [c.subject for c in find_cases(tmp_path)] == ["eye_01L", "eye_01R", "eye_02L", "sub-07"]
    (tmp_path / "images" / "sub-07_T2w.png").unlink()
    (tmp_path / "masks" / "sub-07_T2w.png").unlink()
    assert [c.subject for c in find_cases(tmp_path, subject=r"(\d+)[LR]")] == ["01", "01", "02"]
    write_subjects(tmp_path, {"eye_01L": "x", "eye_01R": "x", "eye_02L": "y"})
    assert [c.subject for c in find_cases(tmp_path)] == ["x", "x", "y"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [("(", "regular expression"), ("a", "one group"), (r"(\d+)", "finds no subject in the name a")],
)
def test_a_rule_that_tells_no_subject_is_refused(rule, message, tmp_path):
    write_folder(tmp_path)
    with pytest.raises(DatasetError, match=message):
        find_cases(tmp_path, subject=rule)


def test_a_table_and_a_rule_exclude_each_other_and_a_table_names_everyone(tmp_path):
    write_folder(tmp_path, names="ab")
    write_subjects(tmp_path, {"a": "x"})
    with pytest.raises(DatasetError, match="leave out -subject"):
        find_cases(tmp_path, subject="(.)")
    with pytest.raises(DatasetError, match="no subject for b"):
        find_cases(tmp_path)
    (tmp_path / "subjects.csv").write_text("file,person\na,x\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="columns name and subject"):
        find_cases(tmp_path)


@pytest.mark.parametrize("part", ["images", "masks", "fov"])
def test_a_file_without_a_partner_is_named(part, tmp_path):
    write_folder(tmp_path, fov=True)
    (tmp_path / part / "c.png").unlink()
    with pytest.raises(DatasetError, match=r"c\.png without a file of the same name in .*"):
        find_cases(tmp_path)


def test_a_folder_of_another_layout_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no folder images/"):
        find_cases(tmp_path)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    with pytest.raises(DatasetError, match="holds no image"):
        find_cases(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "images" / "a.bmp").write_bytes(b"")
    with pytest.raises(DatasetError, match="share a name"):
        find_cases(tmp_path)


def test_a_mask_of_another_size_is_refused(tmp_path, rng):
    write_folder(tmp_path, names="ab")
    Image.fromarray(picture(rng, rows=31)[1]).save(tmp_path / "masks" / "b.png")
    first, second = find_cases(tmp_path)
    assert read_sample(first).mask.shape == (1, ROWS, COLUMNS)
    with pytest.raises(DatasetError, match=f"b.png is 31 × {COLUMNS}, its image {ROWS} × {COLUMNS}"):
        read_sample(second)


def test_the_field_of_view_is_read(tmp_path):
    write_folder(tmp_path, names="a", fov=True)
    known = read_sample(find_cases(tmp_path)[0]).known
    assert known is not None
    assert known[0, 4:-4, 4:-4].all()
    assert known.sum() == (ROWS - 8) * (COLUMNS - 8)
    Image.fromarray(np.zeros((ROWS, COLUMNS), dtype=np.uint8)).save(tmp_path / "fov" / "a.png")
    with pytest.raises(DatasetError, match="is empty"):
        read_sample(find_cases(tmp_path)[0])
