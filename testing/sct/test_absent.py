"""What the adapter does where SCT is absent, and, with a stand-in for it, where it is present."""

import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from fakes import fake_mask_model, fake_model
from platforms import posix_permissions

from sct_deepspine import sct
from sct_deepspine.batch import BatchOptions, label_scan
from sct_deepspine.cli.batch import main as batch
from sct_deepspine.errors import SctError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.bids import find_scans
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.sct import registration, toolbox
from sct_deepspine.sct.registration import template_labels

GRID = Grid((20, 20, 120), np.eye(4))


def labels_of(values, *, top=110.0, step=10.0, confidence=None):
    confidence = confidence or [1.0] * len(values)
    discs = [
        Disc(value, np.array([10.0, 12.0, top - step * n]), sure)
        for n, (value, sure) in enumerate(zip(values, confidence, strict=True))
    ]
    return DiscLabels(tuple(discs), GRID, 1.0)


def cord(bottom, top):
    data = np.zeros(GRID.shape, np.uint8)
    data[9:12, 9:12, bottom : top + 1] = 1
    return Volume(data, GRID)


# Which discs the registration is given


def test_all_discs_of_the_template_beside_the_cord_are_given():
    labels, left_out = template_labels(labels_of(range(3, 12)), cord(0, 119))
    assert labels.values.tolist() == list(range(3, 12))
    assert not left_out


def test_what_is_left_out_is_named_with_its_reason():
    labels, left_out = template_labels(labels_of(range(16, 25)), cord(55, 105))
    assert labels.values.tolist() == [17, 18, 19, 20, 21]
    assert {out.value: out.reason for out in left_out} == {
        16: "it lies above the cord mask",
        **dict.fromkeys((22, 23, 24), "the template has no such disc"),
    }
    assert [out.name for out in left_out] == ["T8/T9", "L2/L3", "L3/L4", "L4/L5"]


@pytest.mark.parametrize(
    ("count", "confidence", "chosen"),
    [
        (1, [0.9] * 5, [5]),
        (1, [0.9, 0.9, 0.2, 0.9, 0.9], [4]),
        (2, [0.9] * 5, [3, 7]),
        (2, [0.1, 0.9, 0.9, 0.9, 0.9], [4, 7]),
        (9, [0.9] * 5, [3, 4, 5, 6, 7]),
    ],
)
def test_one_or_two_discs_are_the_best_ones(count, confidence, chosen):
    given = labels_of(range(3, 8), confidence=confidence)
    labels, left_out = template_labels(given, cord(0, 119), count=count)
    assert labels.values.tolist() == chosen
    assert {out.value for out in left_out} == set(range(3, 8)) - set(chosen)


def test_discs_beyond_a_gap_are_left_out():
    # With a gap the registration fails, or gives a wrong warp without a word.
    labels, left_out = template_labels(labels_of([3, 4, 6, 7, 8]), cord(0, 119))
    assert labels.values.tolist() == [6, 7, 8]
    assert {out.value: out.reason for out in left_out} == dict.fromkeys(
        (3, 4), "a disc between it and the others is missing"
    )


def test_without_a_disc_to_give_nothing_is_registered():
    with pytest.raises(SctError, match="no disc can be given"):
        template_labels(labels_of([23, 24, 25]), cord(0, 119))
    with pytest.raises(SctError, match="no disc can be given"):
        template_labels(labels_of([3, 4]), cord(0, 20))


# Without SCT


@pytest.fixture
def no_sct(monkeypatch):
    monkeypatch.setitem(sys.modules, "spinalcordtoolbox", None)
    monkeypatch.setitem(sys.modules, "spinalcordtoolbox.utils.sys", None)
    sct.require_sct.cache_clear()
    yield
    sct.require_sct.cache_clear()


def test_its_absence_is_told_in_one_line(no_sct, tmp_path):
    assert not sct.sct_is_installed()
    assert sct.argument_parser("about") is None
    for call in (
        sct.require_sct,
        lambda: sct.read_sct_image("t2.nii.gz"),
        lambda: sct.straighten("t2.nii.gz", "seg.nii.gz", tmp_path),
        lambda: sct.add_qc_entry("t2.nii.gz", "discs.nii.gz", tmp_path, command=["x"]),
    ):
        with pytest.raises(SctError, match="the Spinal Cord Toolbox is not installed in this Python"):
            call()


# With a stand-in


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Modules with what we ask of SCT: its version, its folders, its report."""
    folders = {"__data_dir__": tmp_path / "data", "__bin_dir__": tmp_path / "bin"}
    for folder in folders.values():
        folder.mkdir()
    system = SimpleNamespace(__version__="7.4.dev0", **{name: str(path) for name, path in folders.items()})
    entries = []
    report = SimpleNamespace(sct_label_utils=lambda **words: entries.append(words))
    package = ModuleType("spinalcordtoolbox")
    for name, module in {
        "": package,
        ".utils": ModuleType("utils"),
        ".utils.sys": system,
        ".reports": ModuleType("reports"),
        ".reports.qc2": report,
    }.items():
        monkeypatch.setitem(sys.modules, f"spinalcordtoolbox{name}", module)
    sct.require_sct.cache_clear()
    yield SimpleNamespace(system=system, entries=entries, report=report, **folders)
    sct.require_sct.cache_clear()


def test_an_old_version_is_refused(stand_in):
    assert sct.require_sct() == "7.4.dev0"
    sct.require_sct.cache_clear()
    stand_in.system.__version__ = "5.8"
    with pytest.raises(SctError, match=r"5\.8 is too old; 6\.0 or newer"):
        sct.require_sct()


@pytest.fixture
def ready(stand_in, tmp_path, monkeypatch):
    """A stand-in with a template, programs, and a registration that writes what it should."""
    (stand_in.__data_dir__ / "PAM50" / "template").mkdir(parents=True)
    for name in ("info_label.txt", "PAM50_t2.nii.gz"):
        (stand_in.__data_dir__ / "PAM50" / "template" / name).write_text("", encoding="utf-8")
    for name in registration.BINARIES:
        (stand_in.__bin_dir__ / name).write_text("", encoding="utf-8")
    runs = []

    def run(line, *, cwd, **_options):
        runs.append((line[2:], sorted(Path(cwd).iterdir())))
        folder = Path(line[line.index("-ofolder") + 1])
        for name in ("warp_template2anat", "warp_anat2template", "template2anat", "anat2template"):
            (folder / f"{name}.nii.gz").write_text("", encoding="utf-8")
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    return SimpleNamespace(runs=runs, stand_in=stand_in, run=run)


def register(tmp_path, run, **options):
    seg = tmp_path / "seg.nii.gz"
    mask = cord(0, 119)
    nib.save(nib.Nifti1Image(mask.data, mask.grid.affine), seg)
    return sct.register_to_template(
        "t2.nii.gz",
        seg,
        labels_of(range(3, 8)),
        run=partial(toolbox.run_command, run=run),
        **{"contrast": "t2", "folder": tmp_path / "reg"} | options,
    )


def test_the_command_is_run_in_an_empty_folder_with_absolute_paths(ready, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = register(tmp_path, ready.run, param="step=1")
    (line, present), *_ = ready.runs
    assert present == []
    assert line[0] == "spinalcordtoolbox.scripts.sct_register_to_template"
    words = dict(zip(line[1::2], line[2::2], strict=True))
    assert words["-i"] == str(tmp_path / "t2.nii.gz")
    assert words["-s"] == str(tmp_path / "seg.nii.gz")
    assert words["-ldisc"] == str(tmp_path / "reg" / "discs.nii.gz")
    assert words["-t"] == str(ready.stand_in.__data_dir__ / "PAM50")
    assert (words["-c"], words["-param"], words["-r"]) == ("t2", "step=1", "1")
    assert done.warp_template2anat == tmp_path / "reg" / "warp_template2anat.nii.gz"
    assert done.labels.values.tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("corrupt", "match"),
    [
        (lambda place: (place / "data/PAM50/template/info_label.txt").unlink(), "sct_download_data -d PAM50"),
        (
            lambda place: (place / "data/PAM50/template/PAM50_t2.nii.gz").unlink(),
            "no image of the contrast t2",
        ),
        (lambda place: (place / "bin" / registration.BINARIES[2]).unlink(), registration.BINARIES[2]),
    ],
    ids=["template", "contrast", "program"],
)
def test_what_is_missing_is_told_before_anything_is_written(corrupt, match, ready, tmp_path):
    corrupt(tmp_path)
    with pytest.raises(SctError, match=match):
        register(tmp_path, ready.run)
    assert not (tmp_path / "reg").exists()


def test_an_unknown_contrast_is_refused(ready, tmp_path):
    with pytest.raises(SctError, match="t1, t2, t2s, not flair"):
        register(tmp_path, ready.run, contrast="flair")


def test_a_failing_command_is_told_with_its_last_words(ready, tmp_path):
    failed = SimpleNamespace(returncode=1, stdout="much\ntalk\n", stderr="Found two labels with same value\n")
    with pytest.raises(SctError, match=r"sct_register_to_template failed: .*Found two labels"):
        register(tmp_path, lambda *_, **__: failed)
    assert not (tmp_path / "reg").exists()


def test_what_was_in_the_folder_of_a_failed_registration_stays(ready, tmp_path):
    (tmp_path / "reg").mkdir()
    (tmp_path / "reg" / "mine.txt").write_text("mine", encoding="utf-8")
    failed = SimpleNamespace(returncode=1, stdout="", stderr="no")
    with pytest.raises(SctError):
        register(tmp_path, lambda *_, **__: failed)
    assert (tmp_path / "reg" / "mine.txt").is_file()


def test_steps_that_sct_does_not_understand_are_refused_beforehand(ready, tmp_path, monkeypatch):
    def read(steps):
        raise ValueError(f"no type in\n{steps[-1]}")

    algorithms = SimpleNamespace(ParamregMultiStep=read)
    monkeypatch.setitem(sys.modules, "spinalcordtoolbox.registration", ModuleType("registration"))
    monkeypatch.setitem(sys.modules, "spinalcordtoolbox.registration.algorithms", algorithms)
    with pytest.raises(SctError, match=r"-param step=1:step=2 can't be read by SCT: no type in step=2"):
        registration.check_registration("t2", param="step=1:step=2")
    with pytest.raises(SctError, match="can't be read by SCT"):
        register(tmp_path, ready.run, param="step=1")
    assert not (tmp_path / "reg").exists()


def test_one_slice_is_refused(tmp_path):
    for count in (1, 2):
        data = np.random.default_rng(0).normal(size=(count, 50, 60))
        nib.save(nib.Nifti1Image(data, np.diag([4.0, 1, 1, 1])), tmp_path / f"{count}.nii.gz")
    registration.check_slices(tmp_path / "2.nii.gz")
    with pytest.raises(SctError, match="the image has 1 slice"):
        registration.check_slices(tmp_path / "1.nii.gz")


def test_a_command_that_writes_nothing_is_noticed(ready, tmp_path):
    done = SimpleNamespace(returncode=0, stdout="", stderr="")
    with pytest.raises(SctError, match=r"did not write .*warp_template2anat"):
        register(tmp_path, lambda *_, **__: done)


def test_the_report_gets_the_command_and_the_names(stand_in, tmp_path):
    sct.add_qc_entry("t2.nii.gz", "d.nii.gz", tmp_path, command=["label", "-i", "t2.nii.gz"], subject="s")
    (entry,) = stand_in.entries
    assert (entry["command"], entry["argv"]) == ("label", ["-i", "t2.nii.gz"])
    assert (entry["dataset"], entry["subject"]) == (None, "s")
    assert Path(entry["fname_seg"]).is_absolute()

    def fail(**_words):
        raise ValueError("no slice\nat all")

    stand_in.report.sct_label_utils = fail
    with pytest.raises(SctError, match="no slice at all"):
        sct.add_qc_entry("t2.nii.gz", "d.nii.gz", tmp_path, command=["label"])


def test_pictures_of_our_own_go_into_its_report(stand_in, tmp_path):
    asked, drawn = {}, []

    @contextmanager
    def create_qc_entry(**words):
        asked.update(words)
        yield {"path_background_img": tmp_path / "a.png", "path_overlay_img": tmp_path / "b.png"}

    stand_in.report.create_qc_entry = create_qc_entry
    words = {"command": ["label", "-i", "t2.nii.gz"]}
    sct.add_drawn_qc_entry("t2.nii.gz", tmp_path, lambda *places: drawn.append(places), **words)
    assert (asked["command"], asked["cmdline"]) == ("label", "label -i t2.nii.gz")
    assert drawn == [(tmp_path / "a.png", tmp_path / "b.png")]


def test_an_sct_without_such_entries_is_told_in_one_line(stand_in, tmp_path):
    with pytest.raises(SctError, match="report could not be made"):
        sct.add_drawn_qc_entry("t2.nii.gz", tmp_path, print, command=["label"])


@posix_permissions
def test_temporary_folders_are_private():
    with sct.temporary_folder() as folder:
        assert folder.stat().st_mode & 0o077 == 0


def test_temporary_folders_are_removed_unless_kept():
    with sct.temporary_folder() as folder:
        assert folder.is_dir()
    assert not folder.exists()
    with sct.temporary_folder(keep=True) as folder:
        pass
    assert folder.exists()
    folder.rmdir()


def test_labels_can_be_moved_and_cut_at_their_ends():
    labels = labels_of(range(3, 8))
    moved = labels.with_tips({5: [1.0, 2.0, 3.0], 8: [0, 0, 0]})
    assert moved.values.tolist() == [3, 4, 5, 6, 7, 8]
    assert moved.points_world[2].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(moved.points_world[0], labels.points_world[0])
    filled = replace(labels, discs=tuple(replace(disc, interpolated=True) for disc in labels.discs))
    assert filled.with_tips({5: [1, 2, 3]}).interpolated.tolist() == [True, True, False, True, True]
    assert labels.without({3, 5, 7}).values.tolist() == [4, 6]
    assert labels.without(()).values.tolist() == [3, 4, 5, 6, 7]


def test_a_scan_of_a_cohort_that_can_not_be_registered_keeps_its_labels(ready, painted, tmp_path):
    """The stand-in has no program that registers."""
    image = tmp_path / "scans" / "t2.nii.gz"
    image.parent.mkdir()
    nib.save(nib.Nifti1Image(painted.data, painted.grid.affine), image)
    old = tmp_path / "out" / "derivatives" / "sct_deepspine" / "t2_reg" / "warp_template2anat.nii.gz"
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier run", encoding="utf-8")
    (scan,) = find_scans(str(image.parent))
    options = BatchOptions(tmp_path / "out", masks=True, register="t2")
    row = label_scan(scan, options, fake_model(), fake_mask_model())
    assert (row.status, row.error) == ("done", "")
    assert "not registered: " in row.warnings
    assert (options.derivatives / "t2_label-discs_dlabel.nii.gz").is_file()
    assert not old.parent.exists()


@pytest.mark.parametrize("words", [["-register", "1"], ["-c", "t1"], ["-masks", "1", "-t", "x"]])
def test_a_registration_of_a_cohort_that_would_do_nothing_is_an_error(words, tmp_path):
    with pytest.raises(SystemExit):
        batch(["-i", str(tmp_path), "-o", str(tmp_path), *words])
