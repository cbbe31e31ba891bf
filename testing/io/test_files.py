"""Files that belong together are replaced together, or stay as they were."""

import os
import shutil
from pathlib import Path

import pytest
from platforms import symbolic_links

from sct_deepspine.errors import OutputError
from sct_deepspine.io.files import plain_line, written_together

REPLACE = Path.replace


@pytest.fixture
def files(tmp_path):
    """Two files, and a third one that is to go."""
    paths = [tmp_path / name for name in ("one.txt", "two.txt", "stale.txt")]
    for path in paths:
        path.write_text(f"old {path.stem}", encoding="utf-8")
    return paths


def write_new(one, two, stale):
    with written_together([one, two], removed=[stale]) as partials:
        for partial in partials:
            partial.write_text("new", encoding="utf-8")


def failing(monkeypatch, names, failure):
    """Let files of these names, in folders that start with a dot, not be moved away."""

    def replace(path, target):
        if path.name in names and path.parent.name.startswith("."):
            raise failure
        return REPLACE(path, target)

    monkeypatch.setattr(Path, "replace", replace)  # a fault of the system: no file can be made to cause it


def test_all_are_replaced_and_nothing_else_is_left(files):
    write_new(*files)
    one, two, _ = files
    assert sorted(one.parent.iterdir()) == [one, two]
    assert one.read_text(encoding="utf-8") == two.read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("failure", [OSError(28, "disk is full"), KeyboardInterrupt()])
def test_when_the_second_cant_be_replaced_the_first_is_put_back(failure, files, monkeypatch):
    failing(monkeypatch, {"two.txt"}, failure)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_new(*files)
    assert sorted(files[0].parent.iterdir()) == sorted(files)
    assert [path.read_text(encoding="utf-8") for path in files] == ["old one", "old two", "old stale"]


def test_a_disk_too_full_to_keep_the_old_file_leaves_it_where_it_is(files, monkeypatch):
    """Where files have no second names, the old one is copied first, which can fail half-way."""

    def no_links(*_arguments, **_options):
        raise OSError(1, "operation not permitted")

    def half_a_copy(source, target):
        Path(target).write_text("old", encoding="utf-8")
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "link", no_links)  # faults of the system, too
    monkeypatch.setattr(shutil, "copy2", half_a_copy)
    before = {path: path.read_text(encoding="utf-8") for path in files}
    with pytest.raises(OutputError, match="no space left on device"):
        write_new(*files)
    assert sorted(files[0].parent.iterdir()) == sorted(files)
    assert {path: path.read_text(encoding="utf-8") for path in files} == before


@symbolic_links
def test_a_link_is_put_back_as_a_link(files, monkeypatch):
    one, *_ = files
    one.rename(one.with_name("real.txt"))
    one.symlink_to("real.txt")
    failing(monkeypatch, {"two.txt"}, OSError(28, "disk is full"))
    with pytest.raises(OutputError, match=r"two\.txt: disk is full"):
        write_new(*files)
    assert os.readlink(one) == "real.txt"
    assert one.read_text(encoding="utf-8") == "old one"


def test_a_file_that_cant_be_put_back_is_not_thrown_away(files, monkeypatch):
    failing(monkeypatch, {"two.txt", "earlier"}, OSError(5, "input/output error"))
    with pytest.raises(OutputError):
        write_new(*files)
    kept = [path.read_text(encoding="utf-8") for path in files[0].parent.glob(".deepspine-*/earlier")]
    assert "old one" in kept


def test_the_longest_name_can_be_replaced(tmp_path):
    path = tmp_path / ("x" * 255)
    for text in ("old", "new"):
        with written_together([path]) as (partial,):
            partial.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "new"


def test_a_message_is_one_line_whatever_a_name_holds():
    assert plain_line("a\nb\u2028\udcff é") == "a\\nb\\u2028\\udcff é"
