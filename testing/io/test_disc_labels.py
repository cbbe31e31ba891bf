"""Disc labels come back from every file that can hold them, and what is no such file is refused."""

import json

import numpy as np
import pytest

from sct_deepspine.errors import AnchorError, LabelsError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.io.disc_labels import read_disc_labels
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.reporting.exports import markups

GRID = Grid((31, 61, 241), np.eye(4))
NECK = DiscLabels(
    tuple(Disc(v, np.array([15.0, 30.0, 230.0 - 17.0 * n]), 0.9) for n, v in enumerate(range(3, 13))),
    GRID,
    0.9,
)


def points_of(labels):
    return {disc.value: disc.point_world for disc in labels.discs}


def test_labels_come_back_from_csv_and_from_slicer(tmp_path):
    (tmp_path / "discs.csv").write_text(NECK.to_csv(), encoding="utf-8")
    (tmp_path / "discs.mrk.json").write_text(markups(NECK), encoding="utf-8")
    for name in ("discs.csv", "discs.mrk.json"):
        points = dict(read_disc_labels(tmp_path / name).points)
        assert list(points) == list(range(3, 13))
        for value, point in points_of(NECK).items():
            np.testing.assert_allclose(points[value], point, atol=1e-3)


def test_landmarks_of_the_brain_stem_and_the_conus_are_passed_over():
    data = np.zeros((9, 9, 40), np.uint8)
    data[4, 4, [5, 12, 20, 30]] = 60, 5, 4, 49
    assert sorted(value for value, _ in read_disc_labels((data, np.eye(4))).points) == [4, 5]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.arange(27000, dtype=np.int16).reshape(30, 30, 30), "26999 values; is it an image of disc labels"),
        (np.random.default_rng(0).integers(0, 2, (30, 30, 30)) * (np.indices((30,) * 3).sum(0) % 3 == 0),
         "more than 40"),
        (np.pad(np.full((1, 1, 1), 77), 3), "value 77; discs are 1 to 26"),
    ],
    ids=["grey image", "speckle", "no level"],
)  # fmt: skip
def test_what_is_no_label_image_is_refused_at_once(data, match):
    with pytest.raises(AnchorError, match=match):
        read_disc_labels((data, np.eye(4)))


@pytest.mark.parametrize("text", ["value,name\n3,C2/C3\n", '{"markups": []}', "\x00"])
def test_a_broken_table_or_point_list_is_refused(text, tmp_path):
    for name in ("x.csv", "x.mrk.json"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(AnchorError) as error:
            read_disc_labels(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(AnchorError):
        read_disc_labels(tmp_path / "lost.csv")


def test_the_json_of_markups_names_its_frame():
    assert json.loads(markups(NECK))["markups"][0]["coordinateSystem"] == "LPS"


def test_labels_are_read_where_they_are_and_a_huge_value_is_refused():
    data = np.zeros((20, 30, 40), dtype=np.int32)
    data[3, 4, 5:7], data[15, 20, 30], data[2, 2, 2] = 7, 7, 26
    points = read_disc_labels((data, np.diag([2.0, 1.0, 1.0, 1.0]))).points
    found = sorted((value, tuple(point.round(3).tolist())) for value, point in points)
    assert found == [(7, (6.0, 4.0, 5.5)), (7, (30.0, 20.0, 30.0)), (26, (4.0, 2.0, 2.0))]
    data[2, 2, 2] = 2_000_000_000
    with pytest.raises(AnchorError, match="2000000000"):
        read_disc_labels((data, np.eye(4)))


HEADER, ROWS = (
    ["value", "name", "x_mm", "y_mm", "z_mm"],
    [["3", "C2/C3", "1.5", "2", "-3"], ["4.0", "é", "1", "2", "-20"]],
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize(
    ("before", "delimiter", "decimal"),
    [
        ("", ",", "."),
        ("\n\n", ",", "."),
        ("", ", ", "."),
        ("", "\t", "."),
        ("sep=;\n", ";", ","),
        (";;;;\n", ";", ","),
    ],
)
def test_a_table_is_read_as_spreadsheets_save_it(before, delimiter, decimal, encoding, tmp_path):
    rows = [delimiter.join(cells).replace(".", decimal) for cells in ROWS]
    text = before + "\r\n".join([delimiter.join(HEADER), *rows, ""])
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    labels = read_disc_labels(tmp_path / "t.csv")
    assert [value for value, _ in labels.points] == [3, 4]
    np.testing.assert_allclose([point for _, point in labels.points], [(1.5, 2, -3), (1, 2, -20)])


def test_a_table_without_a_column_says_which(tmp_path):
    (tmp_path / "t.csv").write_text("level,x_mm,y_mm,z_mm\n3,1,2,3\n", encoding="utf-8")
    with pytest.raises(LabelsError, match="no column 'value'"):
        read_disc_labels(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("value,x_mm,y_mm,z_mm\n3.5,1,2,3\n", encoding="utf-8")
    with pytest.raises(LabelsError, match=r"3\.5 is no whole number"):
        read_disc_labels(tmp_path / "t.csv")


def test_points_that_were_never_placed_are_named(tmp_path):
    points = [
        {"label": "C2/C3", "position": [1, 2, 3]},
        {"label": "C3/C4", "position": "", "positionStatus": "undefined"},
    ]
    markups = {"markups": [{"coordinateSystem": "RAS", "controlPoints": points}]}
    (tmp_path / "t.mrk.json").write_text(json.dumps(markups), encoding="utf-8")
    labels = read_disc_labels(tmp_path / "t.mrk.json")
    assert [value for value, _ in labels.points] == [3]
    assert labels.unplaced == ("C3/C4",)


@pytest.mark.parametrize(("apart_mm", "is_one"), [(0.0, True), (0.005, True), (0.05, False), (1.0, False)])
def test_two_labels_at_one_place_are_refused(apart_mm, is_one):
    points = {3: (1.0, 2.0, 3.0), 4: (1.0, 2.0, 3.0 - apart_mm)}
    if is_one:
        with pytest.raises(LabelsError, match="the labels 3 and 4 are at one place"):
            read_disc_labels(points)
    else:
        assert [value for value, _ in read_disc_labels(points).points] == [3, 4]


@pytest.mark.parametrize("stored", [2.9999, 3.0001])
def test_a_label_value_that_a_tool_rounded_is_read(stored):
    data = np.zeros((9, 9, 40), np.float32)
    data[4, 4, 12], data[4, 4, 30] = stored, 4
    assert sorted(value for value, _ in read_disc_labels((data, np.eye(4))).points) == [3, 4]


@pytest.mark.parametrize("stored", [2.95, 3.2, 3.35])
def test_a_scaled_label_image_is_refused(stored):
    data = np.zeros((9, 9, 40), np.float32)
    data[4, 4, 12], data[4, 4, 30] = stored, 4
    with pytest.raises(LabelsError, match=f"hold the value {stored}; label values are whole numbers"):
        read_disc_labels((data, np.eye(4)))
