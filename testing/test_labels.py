import csv
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import SctLikeImage, fake_model
from platforms import locked_folders

import sct_deepspine
from sct_deepspine import __version__, label_discs
from sct_deepspine.anatomy import EXPECTED_SPACING_MM, disc_name
from sct_deepspine.errors import DeepSpineError, OutputError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.files import write_text, written_whole
from sct_deepspine.labels import Disc, DiscLabels

SHAPE = 7, 31, 83
AFFINE = np.array([[0, 0, -2.0, 90], [-1.5, 0, 0, 3], [0, 3.0, 0, -40], [0, 0, 0, 1]])
GRID = Grid(SHAPE, AFFINE)


def labels_at(voxels, *, first=3, source=None, grid=GRID, interpolated=()):
    points = grid.world_from_voxel(voxels)
    discs = tuple(
        Disc(first + n, point, 0.9 - 0.1 * n, first + n in interpolated) for n, point in enumerate(points)
    )
    return DiscLabels(discs, grid, 0.875, {"name": "tiny", "sha256": "ab"}, ("look here",), source)


def three_labels(source=None):
    return labels_at([[2.4, 28.6, 40], [2.2, 23, 41.3], [3, 17.1, 42]], source=source, interpolated={4})


# Names


def test_the_name_is_that_of_the_vertebrae_above_and_below():
    names = [disc_name(value) for value in range(1, 27)]
    assert names[:3] == ["top of C1", "C1/C2", "C2/C3"]
    assert [names[v - 1] for v in (7, 8, 9, 19, 20, 21, 24, 25, 26)] == [
        *("C6/C7", "C7/T1", "T1/T2", "T11/T12", "T12/L1", "L1/L2", "L4/L5", "L5/S1", "S1/S2")
    ]
    assert len(set(names)) == 26
    assert Disc(8, np.zeros(3), 1.0).name == "C7/T1"


@pytest.mark.parametrize("value", [0, 27, -1, 49, 60])
def test_other_values_are_no_discs(value):
    with pytest.raises(ValueError, match=f"from 1 to 26, got {value}"):
        disc_name(value)


# The array


def test_each_disc_is_one_voxel_of_its_value():
    array = three_labels().to_array()
    assert array.dtype == np.uint8
    assert array.shape == SHAPE
    assert np.argwhere(array).tolist() == [[2, 23, 41], [2, 29, 40], [3, 17, 42]]
    assert (array[2, 29, 40], array[2, 23, 41], array[3, 17, 42]) == (3, 4, 5)


def test_columns_of_the_result_agree_with_each_other():
    labels = three_labels()
    assert labels.values.tolist() == [3, 4, 5]
    np.testing.assert_allclose(labels.points_voxel, [[2.4, 28.6, 40], [2.2, 23, 41.3], [3, 17.1, 42]])
    np.testing.assert_allclose(GRID.voxel_from_world(labels.points_world), labels.points_voxel)
    np.testing.assert_allclose(labels.confidence, [0.9, 0.8, 0.7])
    assert labels.interpolated.tolist() == [False, True, False]


def test_discs_at_the_faces_of_the_image_stay_in_it():
    array = labels_at([[-0.49, -0.49, -0.49], [6.49, 30.49, 82.49]]).to_array()
    assert (array[0, 0, 0], array[6, 30, 82]) == (3, 4)


def test_two_discs_on_one_voxel_are_refused():
    labels = labels_at([[2, 20, 40], [2.4, 20.3, 39.8]])
    with pytest.raises(DeepSpineError, match="C3/C4 and another disc fall on one voxel") as error:
        labels.to_array()
    assert "\n" not in str(error.value)


def test_no_disc_gives_an_empty_array():
    labels = DiscLabels((), GRID, 0.0)
    assert not labels.to_array().any()
    assert labels.points_world.shape == labels.points_voxel.shape == (0, 3)
    assert labels.to_csv().count("\n") == 1


# The image


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "t2.nii.gz"
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE)
    image.set_qform(AFFINE, 1)
    nib.save(image, path)
    return path


def test_labels_are_of_the_kind_that_came_in(file):
    truth = three_labels().to_array()
    nifti, sct = nib.load(file), SctLikeImage(np.zeros(SHAPE, np.int16), AFFINE)
    for source in (file, str(file), nifti, None):
        image = three_labels(source).to_image()
        assert isinstance(image, nib.Nifti1Image)
        np.testing.assert_array_equal(image.dataobj, truth)
        np.testing.assert_array_equal(image.affine, AFFINE)
    image = three_labels(sct).to_image()
    assert type(image) is SctLikeImage
    np.testing.assert_array_equal(image.data, truth)
    assert not sct.data.any()
    data, affine = three_labels((np.zeros(SHAPE), AFFINE)).to_image()
    np.testing.assert_array_equal(data, truth)
    np.testing.assert_array_equal(affine, AFFINE)
    volume = three_labels(Volume(np.zeros(SHAPE), GRID)).to_image()
    np.testing.assert_array_equal(volume.data, truth)


@pytest.mark.parametrize("kind", ["path", "nibabel", "sct", "pair", "volume", "none"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_whatever_came_in_the_saved_file_holds_the_labels(kind, suffix, file, tmp_path):
    source = {
        "path": file,
        "nibabel": nib.load(file),
        "sct": SctLikeImage(np.zeros(SHAPE, np.int16), AFFINE),
        "pair": (np.zeros(SHAPE), AFFINE),
        "volume": Volume(np.zeros(SHAPE), GRID),
        "none": None,
    }[kind]
    path = tmp_path / f"labels{suffix}"
    three_labels(source).save(path)
    saved = nib.load(path)
    np.testing.assert_array_equal(saved.dataobj, three_labels().to_array())
    np.testing.assert_allclose(saved.affine, AFFINE, atol=1e-5)
    assert saved.get_data_dtype() == np.uint8
    assert sorted(os.listdir(tmp_path)) == sorted([file.name, path.name])


def test_the_same_labels_can_be_those_of_a_file(file):
    labels = three_labels().with_source(file)
    assert labels.source == file
    assert labels.discs == labels.with_source(None).discs
    assert labels.as_dict()["image"] == str(file)


# Files are written whole or not at all


def test_nothing_is_left_of_a_file_that_cant_be_written(tmp_path):
    (tmp_path / "taken.nii.gz").mkdir()
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    for path in (tmp_path / "no" / "labels.nii", tmp_path / "taken.nii.gz", tmp_path / "file" / "labels.nii"):
        with pytest.raises(OutputError, match="can't write") as error:
            three_labels().save(path)
        assert "\n" not in str(error.value)
    for path in (tmp_path / "taken.nii.gz", tmp_path / "file" / "labels.nii"):
        with pytest.raises(OutputError, match=r"can't (write|make)"):
            write_text(path, "text")
    assert sorted(tmp_path.rglob("*")) == before
    write_text(tmp_path / "no" / "labels.txt", "text")  # a text file makes its folder
    assert (tmp_path / "no" / "labels.txt").read_text(encoding="utf-8") == "text"


@locked_folders
def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    with pytest.raises(OutputError, match="can't write to"):
        three_labels().save(locked / "labels.nii")
    assert not list(locked.iterdir())


def test_a_failure_half_way_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "labels.nii.gz"
    path.write_text("old", encoding="utf-8")

    def write_half(failure):
        with written_whole(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise failure

    with pytest.raises(OutputError, match="disk is full"):
        write_half(OSError(28, "disk is full"))
    with pytest.raises(RuntimeError, match="writer's fault"):
        write_half(RuntimeError("writer's fault"))
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_an_older_file_is_replaced(tmp_path):
    path = tmp_path / "labels.nii.gz"
    path.write_text("old", encoding="utf-8")
    three_labels().save(path)
    assert nib.load(path).shape == SHAPE
    assert os.listdir(tmp_path) == [path.name]


def test_a_bare_name_is_written_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    three_labels().save("labels.nii.gz")
    write_text("naïve.txt", "é\n")
    assert sorted(os.listdir(tmp_path)) == ["labels.nii.gz", "naïve.txt"]
    assert Path("naïve.txt").read_bytes() == "é\n".encode()


def test_labels_that_make_no_image_leave_no_file(tmp_path):
    with pytest.raises(DeepSpineError, match="one voxel"):
        labels_at([[2, 20, 40], [2, 20, 40]]).save(tmp_path / "labels.nii")
    assert not os.listdir(tmp_path)


# JSON and CSV


def test_json_tells_everything_but_the_voxels(file):
    text = three_labels(str(file)).to_json(command="label it", GeneratedBy=[{"Name": "test"}])
    content = json.loads(text)
    assert text.endswith("}\n")
    assert content == {
        "image": str(file),
        "discs": [
            {
                "value": 3,
                "name": "C2/C3",
                "world_mm": [10.0, -0.6, 45.8],
                "voxel": [2.4, 28.6, 40.0],
                "confidence": 0.9,
                "interpolated": False,
            },
            {
                "value": 4,
                "name": "C3/C4",
                "world_mm": [7.4, -0.3, 29.0],
                "voxel": [2.2, 23.0, 41.3],
                "confidence": 0.8,
                "interpolated": True,
            },
            {
                "value": 5,
                "name": "C4/C5",
                "world_mm": [6.0, -1.5, 11.3],
                "voxel": [3.0, 17.1, 42.0],
                "confidence": 0.7,
                "interpolated": False,
            },
        ],
        "landmarks": [],
        "view": "no_landmark",
        "level_confidence": 0.875,
        "presacral_vertebrae": None,
        "warnings": ["look here"],
        "notes": [],
        "evidence": {},
        "weights": {"name": "tiny", "sha256": "ab"},
        "version": __version__,
        "command": "label it",
        "GeneratedBy": [{"Name": "test"}],
    }


def test_an_image_without_a_file_has_no_name_in_json():
    assert json.loads(three_labels((np.zeros(SHAPE), AFFINE)).to_json())["image"] is None


def test_csv_has_a_line_per_disc_that_says_the_same_as_json():
    labels = three_labels()
    rows = list(csv.DictReader(labels.to_csv().splitlines()))
    for row, disc in zip(rows, labels.as_dict()["discs"], strict=True):
        assert (int(row["value"]), row["name"]) == (disc["value"], disc["name"])
        assert [float(row[c]) for c in ("x_mm", "y_mm", "z_mm")] == disc["world_mm"]
        assert [float(row[c]) for c in "ijk"] == disc["voxel"]
        assert float(row["confidence"]) == disc["confidence"]
        assert bool(int(row["interpolated"])) is disc["interpolated"]
    assert "\r" not in labels.to_csv()


# The discs above C2/C3


def neck(top_mm, *, first=3, count=4):
    """Discs straight below each other at the expected distances, in an image that ends above the first."""
    depth = np.cumsum([0] + [EXPECTED_SPACING_MM[v] for v in range(first, first + count - 1)])
    grid = Grid((9, 9, 200), np.diag([1.0, 1, 1, 1]))
    z = 199 - top_mm - depth
    return labels_at([[4, 4, height] for height in z], first=first, grid=grid)


def test_the_upper_discs_are_placed_by_the_templates_proportions():
    labels = neck(60).with_upper_discs()
    assert labels.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert labels.interpolated.tolist() == [True, True, False, False, False, False]
    heights = labels.points_world[:, 2]
    np.testing.assert_allclose(heights[1] - heights[2], EXPECTED_SPACING_MM[2])
    np.testing.assert_allclose(heights[0] - heights[1], EXPECTED_SPACING_MM[1])
    np.testing.assert_allclose(labels.points_world[:, :2], 4)
    np.testing.assert_allclose(labels.confidence[:3], labels.confidence[2])


@pytest.mark.parametrize(("top_mm", "first"), [(60, 1), (20, 2), (5, 3)])
def test_upper_discs_outside_the_image_are_left_out_without_a_gap(top_mm, first):
    labels = neck(top_mm).with_upper_discs()
    assert labels.values.tolist() == list(range(first, 7))
    assert labels.grid.contains_voxel(labels.points_voxel).all()


def test_where_the_dens_was_seen_the_upper_discs_are_there():
    labels = neck(60)
    base, tip = (Disc(v, labels.points_world[0] + [1.0, 0, up], 0.8) for v, up in ((2, 15.0), (1, 36.0)))
    seen = replace(labels, landmarks=(tip, base)).with_upper_discs()
    assert seen.values.tolist() == [1, 2, *labels.values.tolist()]
    assert not seen.interpolated.any()
    np.testing.assert_array_equal(seen.points_world[:2], [tip.point_world, base.point_world])
    assert seen.with_upper_discs().values.tolist() == seen.values.tolist()
    half = replace(labels, landmarks=(base,)).with_upper_discs()
    assert half.interpolated.tolist()[:3] == [True, False, False]


def test_without_c2_c3_or_with_one_disc_nothing_is_added():
    for labels in (neck(60, first=4), neck(60, count=1)):
        assert labels.with_upper_discs().values.tolist() == labels.values.tolist()


# As a collection


def test_labels_are_a_collection_of_discs_by_value():
    labels = three_labels()
    assert len(labels) == 3
    assert [disc.value for disc in labels] == labels.values.tolist()
    value = labels.discs[1].value
    assert labels[value] is labels.discs[1]
    assert value in labels
    assert 25 not in labels
    with pytest.raises(KeyError, match="no disc of the value 25"):
        labels[25]


def test_a_line_says_what_labels_and_discs_are():
    labels = three_labels()
    assert len(repr(labels)) < 90
    assert "3 discs" in repr(labels)
    assert len(repr(labels.discs[0])) < 90
    assert labels.discs[0].name in repr(labels.discs[0])


def test_labels_become_a_table_where_pandas_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DeepSpineError, match="pip install pandas"):
        three_labels().to_dataframe()


def test_a_notebook_shows_a_table_and_if_it_can_a_picture(painted_file):
    labels = label_discs(painted_file, weights=fake_model())
    shown = labels._repr_html_()
    assert "data:image/png;base64," in shown
    assert "<td>C2/C3</td>" in shown
    assert "data:image/png" not in labels.with_source(None)._repr_html_()
    assert labels.plot().get_size_inches()[1] > 3
    with pytest.raises(DeepSpineError, match="is not known"):
        labels.with_source(None).plot()


def test_the_package_lists_what_there_is():
    assert {"label_discs", "process_scan", "label_session"} <= set(dir(sct_deepspine))


def test_what_is_printed_is_one_line(phantom, painted):
    labels = label_discs(painted, weights=fake_model(), return_maps=True)
    for what in (labels, labels.canal, labels.prediction, painted, labels.discs[0]):
        assert len(repr(what)) < 200
        assert "\n" not in repr(what)


def test_the_package_lists_what_it_offers():
    import sct_deepspine

    assert {"label_discs", "SpineMasks", "__version__"} <= set(dir(sct_deepspine))
    assert "Any" not in dir(sct_deepspine)
