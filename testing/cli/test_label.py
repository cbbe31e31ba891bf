import csv
import gzip
import json
import os
import shlex
import struct
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from fakes import PaintReader, fake_model, paint_truth
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat
from platforms import locked_folders, posix_signals

import sct_deepspine
from sct_deepspine.cli.label import main
from sct_deepspine.labeling.heatmaps import DiscCodec
from sct_deepspine.models.backends.torch import TorchRuntime
from sct_deepspine.models.config import HourglassConfig
from sct_deepspine.models.networks import build_network
from sct_deepspine.models.weights import TrainedNetwork
from sct_deepspine.simulation.phantom import make_phantom
from sct_deepspine.training.export import save_weights

SCRIPT = "import sys; from sct_deepspine.cli.label import main; sys.exit(main())"
PIXDIM_BYTE, SFORM_CODE_BYTE, SROW_BYTE = 76, 254, 280


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def label(capsys, monkeypatch, here):
    """Runs the command; returns the exit code and what was printed on stdout and stderr.

    A network that reads paint is run, or ``label.model``, or what ``-weights`` says.
    """

    def run(*words):
        # nibabel writes its warnings where stderr was at its import.
        for handler in nib.imageglobals.logger.handlers:
            if hasattr(handler, "stream"):
                monkeypatch.setattr(handler, "stream", sys.stderr)  # an object of nibabel's, no module
        model = None if "-weights" in words else run.model
        code = main([str(word) for word in words], model=model, demo_scan=run.demo_scan)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    run.model, run.demo_scan = fake_model(), None
    return run


def files_below(*folders):
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def everything_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# What is written


def test_labels_and_json_are_written_to_the_current_folder(label, here, painted_file, phantom, painted):
    before = files_below(painted_file.parent)
    code, out, err = label("-i", painted_file)
    assert (code, err) == (0, "")
    assert everything_below(here) == ["t2_discs.json", "t2_discs.nii.gz", "t2_discs.png"]
    assert files_below(painted_file.parent) == before

    image = nib.load("t2_discs.nii.gz")
    assert image.get_data_dtype() == np.uint8
    assert image.shape == painted.data.shape
    np.testing.assert_allclose(image.affine, nib.load(painted_file).affine)
    data = np.asarray(image.dataobj)
    assert sorted(data[data > 0].tolist()) == sorted(phantom.discs)
    for value, tip in phantom.discs.items():
        voxel = painted.grid.voxel_from_world(tip)[0]
        assert np.abs(np.argwhere(data == value)[0] - voxel).max() < 1
    for name in ("C2/C3", "C7/T1", "t2_discs.nii.gz", "sct_register_to_template"):
        assert name in out


def test_the_json_is_of_the_published_form(label, painted_file, phantom, painted):
    label("-i", painted_file, "-csv", 0)
    content = json.loads(Path("t2_discs.json").read_text(encoding="utf-8"))
    assert {"image", "discs", "level_confidence", "weights", "version", "command"} <= content.keys()
    assert content["image"] == str(painted_file)
    assert content["weights"] == {"name": "fake", "sha256": label.model.identity["sha256"]}
    assert content["version"] == sct_deepspine.__version__
    assert shlex.split(content["command"]) == ["sct_deepspine_label", "-i", str(painted_file), "-csv", "0"]
    assert 0.9 < content["level_confidence"] <= 1
    assert [disc["value"] for disc in content["discs"]] == sorted(phantom.discs)
    for disc in content["discs"]:
        assert disc.keys() == {"value", "name", "world_mm", "voxel", "confidence", "interpolated"}
        np.testing.assert_allclose(disc["world_mm"], phantom.discs[disc["value"]], atol=0.5)
        np.testing.assert_allclose(
            painted.grid.world_from_voxel(disc["voxel"])[0], disc["world_mm"], atol=1e-3
        )
        assert 0 < disc["confidence"] <= 1
        assert disc["interpolated"] is False


def test_csv_and_slicer_say_the_same_as_json(label, here, painted_file):
    code, _, _ = label("-i", painted_file, "-csv", 1, "-slicer", 1)
    assert code == 0
    assert everything_below(here) == [
        f"t2_discs.{end}" for end in ("csv", "json", "mrk.json", "nii.gz", "png")
    ]
    discs = json.loads(Path("t2_discs.json").read_text(encoding="utf-8"))["discs"]
    rows = list(csv.DictReader(Path("t2_discs.csv").read_text(encoding="utf-8").splitlines()))
    (node,) = json.loads(Path("t2_discs.mrk.json").read_text(encoding="utf-8"))["markups"]
    assert node["coordinateSystem"] == "LPS"
    for disc, row, point in zip(discs, rows, node["controlPoints"], strict=True):
        assert (row["value"], row["name"]) == (str(disc["value"]), disc["name"])
        assert [float(row[c]) for c in ("x_mm", "y_mm", "z_mm")] == disc["world_mm"]
        x, y, z = disc["world_mm"]
        np.testing.assert_allclose(point["position"], [-x, -y, z], atol=1e-3)
        assert point["label"] == disc["name"]


@pytest.mark.parametrize("degrees", [0, 20])
def test_each_heat_map_peaks_at_its_disc_in_the_world(degrees, label, here, painted_file, painted, phantom):
    turn = from_matvec(euler2mat(z=np.radians(degrees)), [5, -30, 20])
    nib.save(nib.Nifti1Image(painted.data, turn @ painted.grid.affine), painted_file)
    code, _, _ = label("-i", painted_file, "-heatmaps", 1, "-attention", 1)
    assert code == 0
    assert {"t2_heatmaps.nii.gz", "t2_attention.nii.gz"} <= set(everything_below(here))
    heat = nib.load("t2_heatmaps.nii.gz")
    assert heat.shape[0] == 1
    assert heat.shape[3] == 23
    for value, tip in phantom.discs.items():
        volume = np.asarray(heat.dataobj[..., value - 3])
        peak = np.linalg.inv(turn) @ heat.affine @ [*np.unravel_index(volume.argmax(), volume.shape), 1]
        # Half a cell of 4 mm along y and z; along x the sampling is written flat.
        np.testing.assert_allclose(peak[1:3], tip[1:], atol=2.3)
        assert volume.max() > 0.5
    attention = nib.load("t2_attention.nii.gz")
    assert attention.shape == heat.shape[:3]
    np.testing.assert_array_equal(attention.affine, heat.affine)
    np.testing.assert_allclose(np.asarray(attention.dataobj), np.asarray(heat.dataobj).max(3), atol=0.05)


def test_a_picture_is_written_on_request(label, here, painted_file):
    assert label("-i", painted_file, "-qc-png", "picture.png")[0] == 0
    content = Path("picture.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 300
    assert height > 300


def test_a_folder_to_write_to_is_made(label, here, painted_file):
    assert label("-i", painted_file, "-ofolder", "new/deep", "-csv", 1)[0] == 0
    assert everything_below(here / "new" / "deep") == [
        f"t2_discs.{end}" for end in ("csv", "json", "nii.gz", "png")
    ]


@pytest.mark.parametrize("name", ["sub/mine.nii.gz", "sub/mine.nii"])
def test_a_file_to_write_names_the_others(name, label, here, painted_file):
    assert label("-i", painted_file, "-o", name, "-csv", 1, "-heatmaps", 1)[0] == 0
    expected = [Path(name).name, "mine.csv", "mine.json", "mine.png"]
    expected += ["mine_heatmaps.json", "mine_heatmaps.nii.gz"]
    assert everything_below(here / "sub") == sorted(expected)
    assert nib.load(name).get_data_dtype() == np.uint8


def test_labelling_again_replaces_the_files(label, here, painted_file):
    for _ in range(2):
        assert label("-i", painted_file)[0] == 0
    assert everything_below(here) == ["t2_discs.json", "t2_discs.nii.gz", "t2_discs.png"]


def test_verbosity_zero_is_silent(label, painted_file):
    assert label("-i", painted_file, "-v", 0) == (0, "", "")


# What is known beforehand


def values_written(name="t2_discs.json"):
    return [disc["value"] for disc in json.loads(Path(name).read_text(encoding="utf-8"))["discs"]]


def test_a_slice_number_shifts_the_levels(label, painted_file, painted, phantom):
    place = round(painted.grid.voxel_from_world(phantom.discs[7])[0, 2])
    assert label("-i", painted_file, "-initdisc", f"8,{place}")[0] == 0
    assert values_written() == [value + 1 for value in sorted(phantom.discs)]


def test_initz_says_the_same_the_other_way_round(label, painted_file, painted, phantom):
    place = round(float(painted.grid.voxel_from_world(phantom.discs[7])[0][2]))
    assert label("-i", painted_file, "-initz", f"{place},8")[0] == 0
    assert sorted(int(v) for v in np.unique(nib.load("t2_discs.nii.gz").dataobj) if v) == [
        value + 1 for value in sorted(phantom.discs)
    ]


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("-t x", "-register"),
        ("-n-labels 1", "-register"),
        ("-param x", "-register"),
        ("-qc-subject x", "-qc"),
    ],
)
def test_an_option_that_would_do_nothing_is_an_error(words, needed, label, painted_file, capsys):
    with pytest.raises(SystemExit) as exit_:
        label("-i", painted_file, *words.split())
    assert exit_.value.code == 2
    assert f"does nothing without {needed}" in capsys.readouterr().err


def test_slices_are_counted_from_the_inferior_end_of_a_flipped_image(
    label, here, painted_file, painted, phantom
):
    flipped = nib.load(painted_file).as_reoriented([[2, -1], [0, 1], [1, -1]])
    nib.save(flipped, "flipped.nii.gz")
    place = round(painted.grid.voxel_from_world(phantom.discs[7])[0, 2])
    assert label("-i", "flipped.nii.gz", "-initdisc", f"8,{place}")[0] == 0
    assert values_written("flipped_discs.json") == [value + 1 for value in sorted(phantom.discs)]


def test_a_label_image_shifts_the_levels(label, here, painted_file, painted, phantom):
    data = np.zeros(painted.data.shape, np.uint8)
    data[tuple(np.round(painted.grid.voxel_from_world(phantom.discs[5])[0]).astype(int))] = 7
    nib.save(nib.Nifti1Image(data, painted.grid.affine), "known.nii.gz")
    assert label("-i", painted_file, "-initlabel", "known.nii.gz")[0] == 0
    assert values_written() == [value + 2 for value in sorted(phantom.discs)]


def test_a_cord_mask_replaces_the_search(label, here, painted_file, painted, phantom):
    label.model = fake_model(PaintReader(edit=lambda maps: replace(maps, canal=0 * maps.canal)))
    assert label("-i", painted_file)[0] == 1
    mask = (phantom.tissue.data >= 3).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, painted.grid.affine), "seg.nii.gz")
    code, out, _ = label("-i", painted_file, "-s", "seg.nii.gz")
    assert code == 0
    assert "-s seg.nii.gz" in out
    assert values_written() == sorted(phantom.discs)


def test_upper_discs_are_added_on_request(label, here, painted, phantom):
    grid = painted.grid
    taller = np.pad(painted.data, [(0, 0), (0, 0), (0, 40)], mode="edge")
    nib.save(nib.Nifti1Image(taller, grid.affine), "tall.nii.gz")
    assert label("-i", "tall.nii.gz", "-upper", 1)[0] == 0
    assert values_written("tall_discs.json") == [1, 2, *sorted(phantom.discs)]
    discs = json.loads(Path("tall_discs.json").read_text(encoding="utf-8"))["discs"]
    assert [disc["interpolated"] for disc in discs[:3]] == [True, True, False]


def test_discs_that_the_template_lacks_are_left_out_of_a_second_file(label, here):
    scan = make_phantom(np.random.default_rng(3), first=17, last=25, voxel_mm=(5.0, 2.5, 2.5))
    volume = paint_truth(scan)
    nib.save(nib.Nifti1Image(volume.data, volume.grid.affine), "back.nii.gz")
    code, out, _ = label("-i", "back.nii.gz")
    assert code == 0
    assert "-ldisc back_discs_template.nii.gz" in out
    held = {
        name: np.unique(nib.load(f"{name}.nii.gz").dataobj) for name in ("back_discs", "back_discs_template")
    }
    assert held["back_discs"].tolist() == [0, *range(17, 26)]
    assert held["back_discs_template"].tolist() == [0, *range(17, 22)]


def test_a_neck_needs_no_second_file(label, here, painted_file):
    _, out, _ = label("-i", painted_file)
    assert not list(here.glob("*_template*"))
    assert "-ldisc t2_discs.nii.gz" in out


def test_the_demonstration_shows_the_error_against_the_truth(label, here, phantom, painted):
    label.demo_scan = replace(phantom, volume=painted)
    code, out, err = label("-demo")
    assert (code, err) == (0, "")
    assert f"{len(phantom.discs)} discs, {len(phantom.discs)} found, 0 invented" in out
    assert "mean 0." in out
    assert everything_below(here) == [
        "phantom.nii.gz",
        *(f"phantom_discs.{end}" for end in ("json", "nii.gz", "png")),
    ]


@pytest.mark.parametrize("words", [("-ldisc", "a.csv"), ("-initlabel", "a.csv"), ("-initdisc", "3,4")])
def test_labels_are_of_no_demonstration(words, capsys):
    with pytest.raises(SystemExit):
        main(["-demo", *words])
    assert f"{words[0]} does nothing with -demo" in capsys.readouterr().err


def test_checked_labels_are_not_straightened(capsys):
    with pytest.raises(SystemExit):
        main(["-i", "t2.nii.gz", "-ldisc", "a.csv", "-straight", "off"])
    assert "-straight and -warps do nothing with -ldisc" in capsys.readouterr().err


# Bad input: one line on stderr, exit code 1, nothing written


def noise(shape=(7, 11, 13), dtype=np.float32):
    return np.random.default_rng(0).uniform(0, 1000, shape).astype(dtype)


def save(path, data, affine=None):
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1]) if affine is None else affine), path)


def spoilt(value):
    data = noise()
    data[3, 4, 5] = value
    return data


def poke(path, offset, form, *values):
    """Rewrite bytes of the header by hand: nibabel would mend or refuse them."""
    save(path, noise())
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)))


def poke_without_forms(path, *lengths):
    """Leave the voxel sizes as the only geometry of the header."""
    poke(path, PIXDIM_BYTE + 4, "<3f", *lengths)
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<2h", content, SFORM_CODE_BYTE - 2, 0, 0)
    path.write_bytes(gzip.compress(bytes(content)))


def make_singular(path):
    poke(path, SROW_BYTE, "<12f", *[1.0] * 12)


def truncate(path):
    save(path, noise((23, 29, 31)))
    path.write_bytes(path.read_bytes()[:-5000])


BAD_IMAGES = {
    "missing file": lambda path: None,
    "not a NIfTI": lambda path: path.write_text("Dear reader,\nthis is no image.\n", encoding="utf-8"),
    "empty file": lambda path: path.write_bytes(b""),
    "truncated": truncate,
    "two dimensions": lambda path: save(path, noise((11, 13))),
    "several volumes": lambda path: save(path, noise((7, 11, 13, 3))),
    "all zero": lambda path: save(path, np.zeros((7, 11, 13), np.int16)),
    "constant": lambda path: save(path, np.full((7, 11, 13), 5, np.int16)),
    "NaN": lambda path: save(path, spoilt(np.nan)),
    "infinite": lambda path: save(path, spoilt(-np.inf)),
    "complex": lambda path: save(path, noise(dtype=np.complex64)),
    "zero spacing": lambda path: poke(path, PIXDIM_BYTE + 4, "<3f", 0, 2, 2),
    "negative spacing": lambda path: poke(path, PIXDIM_BYTE + 4, "<3f", 2, -2, 2),
    "NaN spacing": lambda path: poke(path, PIXDIM_BYTE + 4, "<3f", 2, 2, np.nan),
    "zero spacing, no affine": lambda path: poke_without_forms(path, 2, 0, 2),
    "negative spacing, no affine": lambda path: poke_without_forms(path, 2, 2, -2),
    "singular affine": make_singular,
}


def refused(label, folder, *words):
    """Check that a command fails as it should, and return its one line."""
    before = files_below(folder)
    names = everything_below(folder)
    code, out, err = label(*words)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("ERROR: ")
    assert len(line) > 15
    assert files_below(folder) == before
    assert everything_below(folder) == names
    return line


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_refused(kind, label, here, tmp_path):
    path = tmp_path / "bad.nii.gz"
    BAD_IMAGES[kind](path)
    refused(label, tmp_path, "-i", path)


def test_a_bad_mask_or_anchor_is_refused(label, here, tmp_path, painted_file, painted):
    save(tmp_path / "empty.nii.gz", np.zeros(painted.data.shape, np.uint8), painted.grid.affine)
    for words in (
        ("-s", tmp_path / "lost.nii.gz"),
        ("-s", tmp_path / "empty.nii.gz"),
        ("-initlabel", tmp_path / "lost.nii.gz"),
        ("-initlabel", tmp_path / "empty.nii.gz"),
        ("-initdisc", "3,9999"),
        ("-initdisc", "3,-1"),
        ("-initdisc", "2,50"),
        ("-initdisc", "49,50"),
    ):
        refused(label, tmp_path, "-i", painted_file, *words)


def test_an_image_without_a_spine_is_refused(label, here, tmp_path, phantom):
    empty = paint_truth(phantom, discs=False, canal=False)
    save(tmp_path / "leg.nii.gz", empty.data, empty.grid.affine)
    assert "no spine was found" in refused(label, tmp_path, "-i", tmp_path / "leg.nii.gz", "-csv", 1)


def test_a_folder_that_can_not_be_made_is_refused(label, here, tmp_path, painted_file):
    (here / "file").write_text("in the way", encoding="utf-8")
    refused(label, tmp_path, "-i", painted_file, "-ofolder", "file/sub")
    refused(label, tmp_path, "-i", painted_file, "-o", "file/discs.nii.gz")


@locked_folders
def test_a_folder_that_may_not_be_written_to_is_refused(label, here, tmp_path, painted_file):
    (here / "locked").mkdir()
    (here / "locked").chmod(0o500)
    for words in (("-ofolder", "locked"), ("-o", "locked/discs.nii"), ("-qc-png", "locked/picture.png")):
        assert "locked" in refused(label, tmp_path, "-i", painted_file, *words)


@pytest.mark.parametrize("name", ["discs.txt", "discs", "discs.nii.bz2", "discs.json"])
def test_an_output_of_another_format_is_refused(name, label, here, tmp_path, painted_file):
    refused(label, tmp_path, "-i", painted_file, "-o", name)


def test_an_output_that_is_a_folder_is_refused(label, here, tmp_path, painted_file):
    (here / "taken.nii.gz").mkdir()
    refused(label, tmp_path, "-i", painted_file, "-o", "taken.nii.gz")


def test_the_scan_itself_is_never_written_over(label, here, tmp_path, painted_file):
    refused(label, tmp_path, "-i", painted_file, "-o", painted_file)


def test_a_bad_image_leaves_no_new_folder_behind(label, here, tmp_path):
    refused(label, tmp_path, "-i", tmp_path / "lost.nii.gz", "-ofolder", "new")


@pytest.fixture
def tiny_weights(tmp_path):
    """A weights file of an untrained network without attention."""
    torch.manual_seed(0)
    config = HourglassConfig(channels=25, stacks=1, width=4, depth=1, attention=False)
    path = tmp_path / "tiny.safetensors"
    save_weights(
        path,
        {"locate": TrainedNetwork(TorchRuntime(build_network(config).eval()), asdict(DiscCodec(2)), 2.0)},
        {"name": "tiny"},
    )
    return path


def test_tampered_weights_are_refused(label, here, tmp_path, painted_file, tiny_weights):
    content = bytearray(tiny_weights.read_bytes())
    content[-1] ^= 1
    tiny_weights.write_bytes(content)
    assert "SHA-256" in refused(label, tmp_path, "-i", painted_file, "-weights", tiny_weights)


def test_weights_or_a_device_that_do_not_exist_are_refused(label, here, tmp_path, painted_file, tiny_weights):
    refused(label, tmp_path, "-i", painted_file, "-weights", "lost.safetensors")
    refused(label, tmp_path, "-i", painted_file, "-weights", tiny_weights, "-device", "abacus")


def test_an_attention_map_that_does_not_exist_is_refused(label, here, tmp_path, painted_file):
    class Plain(PaintReader):
        def attention(self, plane):
            return None

    label.model = fake_model(Plain())
    line = refused(label, tmp_path, "-i", painted_file, "-attention", 1, "-csv", 1)
    assert "attention" in line


def test_the_script_fails_with_one_line_and_no_traceback(here):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "-i", "lost.nii.gz"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["ERROR: -i: no such file: lost.nii.gz"]


@posix_signals  # a closed pipe is told otherwise on Windows
@pytest.mark.parametrize("words", [["-h"], ["-demo"]])
def test_a_reader_that_has_enough_ends_the_output_quietly(words, here):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-c", SCRIPT, *words]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


def test_onnxruntime_leaves_no_trace_of_its_reports(here, phantom_file):
    home = here / "home"
    home.mkdir()
    everywhere_else = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith(("XDG", "ORT"))}
    subprocess.run(
        [sys.executable, "-c", SCRIPT, "-i", phantom_file, "-ofolder", here / "out", "-v", "0"],
        env=everywhere_else | {"HOME": str(home)},
        check=True,
    )
    assert not list(home.rglob("*onnxruntime*"))


# Usage


@pytest.mark.parametrize(
    "words",
    [
        "-csv 1",
        "-i",
        "-i t2.nii.gz -demo",
        "-i t2.nii.gz -csv 2",
        "-i t2.nii.gz -v loud",
        "-i t2.nii.gz -o a.nii -ofolder b",
        "-i t2.nii.gz -initdisc 3",
        "-i t2.nii.gz -initdisc 3,4,5",
        "-i t2.nii.gz -initdisc C2,40",
        "-i t2.nii.gz -initdisc 3,40 -initlabel known.nii.gz",
        "-i t2.nii.gz -heat 1",
        "-i t2.nii.gz other.nii.gz -o both.nii.gz",
    ],
)
def test_a_usage_error_exits_with_two(words, label, here, capsys):
    with pytest.raises(SystemExit) as exit_:
        label(*words.split())
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "sct_deepspine_label: error: " in printed.err
    assert not everything_below(here)


def test_without_arguments_the_help_goes_to_stderr(label, capsys):
    with pytest.raises(SystemExit) as exit_:
        label()
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "MANDATORY ARGUMENTS" in printed.err
    assert "-csv" not in printed.err  # the options are shown on request
    assert "All options: sct_deepspine_label -h" in printed.err


@pytest.mark.parametrize("word", ["-version", "--version"])
def test_the_version_is_told(word, label, capsys):
    with pytest.raises(SystemExit) as exit_:
        label(word)
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"sct_deepspine_label {sct_deepspine.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_of_a_shell_is_printed(shell, label, capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as exit_:
        label("--print-completion", shell)
    assert exit_.value.code == 0
    assert "-initlabel" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_on_request_goes_to_stdout(word, label, capsys):
    with pytest.raises(SystemExit) as exit_:
        label(word)
    assert exit_.value.code == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for option in ("-i", "-s", "-o", "-ofolder", "-initdisc", "-initlabel", "-csv", "-heatmaps", "-qc-png"):
        assert f"{option} " in printed.out
