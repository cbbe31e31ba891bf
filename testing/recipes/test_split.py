import json
from pathlib import Path

import pytest

from sct_deepspine.errors import DatasetError
from sct_deepspine.recipes.folders import ImagePair
from sct_deepspine.recipes.split import PARTS, draw_split, read_split

SUBJECTS = [f"s{number:02d}" for number in range(20)]
CASES = [ImagePair(f"{s}_{eye}", s, Path("i"), Path("m")) for s in SUBJECTS for eye in "LR"]


def test_no_subject_is_in_two_parts_and_all_of_its_images_are_in_one():
    split = draw_split([case.subject for case in CASES], seed=3)
    parts = {part: {case.subject for case in split.cases(CASES, part)} for part in PARTS}
    assert sorted(s for subjects in parts.values() for s in subjects) == SUBJECTS
    assert sum(len(split.cases(CASES, part)) for part in PARTS) == len(CASES)
    assert [len(getattr(split, part)) for part in PARTS] == [14, 2, 4]


def test_the_shares_are_those_published():
    split = draw_split(range(2594), seed=0)
    published = {"train": 1815, "val": 259, "test": 520}
    assert all(abs(len(getattr(split, part)) - count) <= 2 for part, count in published.items())


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    assert draw_split(SUBJECTS, seed=1) == draw_split(SUBJECTS[::-1] * 2, seed=1)
    assert draw_split(SUBJECTS, seed=1) != draw_split(SUBJECTS, seed=2)


def test_a_split_comes_back_from_its_file(tmp_path):
    split = draw_split(SUBJECTS, seed=0)
    (tmp_path / "split.json").write_text(split.to_json(), encoding="utf-8")
    assert read_split(tmp_path / "split.json", SUBJECTS, seed=9) == split


def test_subjects_to_choose_by_are_drawn_of_those_to_train_on(tmp_path):
    official = {"train": SUBJECTS[:10], "test": SUBJECTS[10:]}
    (tmp_path / "split.json").write_text(json.dumps(official), encoding="utf-8")
    split = read_split(tmp_path / "split.json", SUBJECTS, seed=0)
    assert list(split.test) == SUBJECTS[10:]
    assert len(split.val) == 1
    assert sorted((*split.train, *split.val)) == SUBJECTS[:10]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["s00", "s01"], "test": ["s01"]}, "s01 more than once"),
        ({"train": ["s00"], "val": ["s02"], "test": ["nobody"]}, "nobody, of whom there is no image"),
        ({"train": [], "test": ["s01"]}, "no subject to train on"),
        ([], "is no split"),
        (None, "is no split"),
    ],
)
def test_a_split_that_cant_be_used_is_refused(content, message, tmp_path):
    path = tmp_path / "split.json"
    if content is not None:
        path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read_split(path, SUBJECTS, seed=0)


def test_two_subjects_are_too_few():
    with pytest.raises(DatasetError, match="2 subjects are too few"):
        draw_split(["a", "b"], seed=0)
