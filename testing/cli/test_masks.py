import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from mask_folders import COLUMNS, ROWS, picture, write_folder, write_lung, write_retina, write_skin
from PIL import Image
from safetensors.torch import load_file, save_file

from sct_deepspine.cli.masks import main
from sct_deepspine.models.config import MCGUNetConfig
from sct_deepspine.models.networks import build_network
from sct_deepspine.models.weights import load_weights
from sct_deepspine.recipes.folders import find_cases
from sct_deepspine.recipes.prediction import MaskModel

TINY = ["-width", "4", "-batch", "2", "-steps", "4", "-evaluate-every", "2", "-precision", "single"]
WRITTEN = [
    *("best.safetensors", "config.json", "convergence.gif", "convergence.png", "last.safetensors", "log.csv"),
    *("split.json", "validation_000002.png", "validation_000004.png", "weights.json", "weights.masks.onnx"),
    "weights.safetensors",
]


def run(*arguments):
    return main([str(argument) for argument in arguments])


def train(folder, target, *arguments):
    return run("train", "-i", folder, "-ofolder", target, *TINY, "-v", 0, *arguments)


def one_line(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "step/s" not in line]
    assert line.startswith("ERROR: ")
    return line


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        run(*arguments)
    assert exit_.value.code == 2
    return capsys.readouterr().err


def steps_logged(folder):
    with (folder / "log.csv").open(encoding="utf-8") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of eight pictures, for reading only."""
    return write_folder(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """The folder of a run that is over; for reading only."""
    target = tmp_path_factory.mktemp("finished") / "run"
    assert train(folder, target, "-network", "bcdunet", "-dense", 1) == 0
    return target


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_writes_all_it_promises(finished):
    assert sorted(path.name for path in finished.iterdir()) == WRITTEN
    assert steps_logged(finished) == [2, 4]
    for name in ("convergence.png", "validation_000004.png"):
        with Image.open(finished / name) as picture_:
            assert min(picture_.size) > 200
    config = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    assert config["network"] == {
        **{"kind": "bcdunet", "channels": 1, "in_channels": 1, "width": 4, "dense": 1, "directions": 2}
    }
    card = load_weights(finished / "weights.safetensors").card["masks"]
    assert (card["training_images"], card["validation_images"]) == (5, 1)
    assert card["task"]["codec"]["values"] == [0, 255]
    assert card["task"]["augment"] is False  # as published


def test_no_subject_is_trained_on_and_tested_on(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "run", "-subject", "([a-h])", "-seed", 2) == 0
    split = json.loads((tmp_path / "run" / "split.json").read_text(encoding="utf-8"))
    everyone = [subject for part in split.values() for subject in part]
    assert sorted(everyone) == list("abcdefgh")
    capsys.readouterr()
    weights = tmp_path / "run" / "weights.safetensors"
    assert run("evaluate", "-i", folder, "-weights", weights, "-ofolder", tmp_path / "scores", "-v", 0) == 0
    out = capsys.readouterr().out
    assert "2 images of 2 subjects" in out
    with (tmp_path / "scores" / "scores.csv").open(encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == sorted(split["test"])
    with Image.open(tmp_path / "scores" / "best_and_worst.png") as picture_:
        assert min(picture_.size) > 300


def test_scores_have_intervals_and_true_names(folder, finished, capsys):
    weights = finished / "weights.safetensors"
    assert run("evaluate", "-i", folder, "-weights", weights, "-part", "all", "-v", 0) == 0
    out = capsys.readouterr().out
    assert "8 images of 8 subjects" in out
    for name in ("f1", "sensitivity", "specificity", "accuracy", "precision", "jaccard", "auc"):
        (line,) = [line for line in out.splitlines() if line.startswith(name)]
        assert "[" in line


def test_a_run_learns(tmp_path, capsys):
    write_folder(tmp_path / "folder", names=[f"n{number:02d}" for number in range(12)])
    more = ["-network", "unet", "-steps", 120, "-evaluate-every", 40, "-batch", 4, "-width", 6, "-lr", 0.01]
    assert train(tmp_path / "folder", tmp_path / "run", *more) == 0
    capsys.readouterr()
    weights = tmp_path / "run" / "weights.safetensors"
    assert run("evaluate", "-i", tmp_path / "folder", "-weights", weights, "-v", 0) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("f1")]
    assert float(line.split()[1]) > 0.8


def test_several_classes_are_trained_scored_and_predicted(tmp_path, capsys):
    folder = write_folder(tmp_path / "folder", classes=3, channels=3)
    assert train(folder, tmp_path / "run", "-network", "mcgunet", "-augment", 1) == 0
    weights = tmp_path / "run" / "weights.safetensors"
    config = load_weights(weights).networks["masks"].runtime.config
    assert (config.channels, config.in_channels) == (3, 3)
    capsys.readouterr()
    assert run("evaluate", "-i", folder, "-weights", weights, "-v", 0) == 0
    assert "class 1, 2 images" in (out := capsys.readouterr().out)
    assert "class 2, 2 images" in out
    assert run("predict", "-i", folder, "-weights", weights, "-ofolder", tmp_path / "out", "-v", 0) == 0
    assert len(find_cases_of(tmp_path / "out")) == 8
    values = np.unique([np.asarray(Image.open(path)) for path in (tmp_path / "out").iterdir()])
    assert set(values) <= {0, 1, 2}


def find_cases_of(folder):
    return sorted(path.name for path in folder.iterdir())


def test_patches_are_predicted_as_wide_as_the_image(folder, tmp_path):
    assert train(folder, tmp_path / "run", "-patch", 16) == 0
    weights = tmp_path / "run" / "weights.safetensors"
    image = folder / "images" / "a.png"
    for stride in ((), ("-stride", 5)):
        assert (
            run("predict", "-i", image, "-weights", weights, "-ofolder", tmp_path / "out", *stride, "-v", 0)
            == 0
        )
        with Image.open(tmp_path / "out" / "a.png") as mask:
            assert mask.size == (COLUMNS, ROWS)


def test_a_mask_is_of_the_kind_of_its_image(finished, tmp_path):
    image, _ = picture(np.random.default_rng(5))
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "one.npy", image)
    Image.fromarray(image).save(tmp_path / "in" / "two.tif")
    nib.save(
        nib.Nifti1Image(np.dstack([image, image]), np.diag([2.0, 3.0, 4.0, 1.0])),
        tmp_path / "in" / "t.nii.gz",
    )
    weights = finished / "weights.safetensors"
    assert (
        run("predict", "-i", tmp_path / "in", "-weights", weights, "-ofolder", tmp_path / "out", "-v", 0) == 0
    )
    assert find_cases_of(tmp_path / "out") == ["one.npy", "t.nii.gz", "two.png"]
    expected = MaskModel.load(weights).predict(image[None, None])[0]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "one.npy"), expected)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "two.png")), expected)
    volume = nib.load(tmp_path / "out" / "t.nii.gz")
    np.testing.assert_array_equal(volume.affine, np.diag([2.0, 3.0, 4.0, 1.0]))
    np.testing.assert_array_equal(np.asarray(volume.dataobj), np.dstack([expected, expected]))


def test_torch_and_onnxruntime_predict_the_same(finished):
    image, _ = picture(np.random.default_rng(6))
    weights = finished / "weights.safetensors"
    maps = [MaskModel.load(weights, device=d).probabilities(image[None, None]) for d in (None, "cpu")]
    np.testing.assert_allclose(*maps, atol=1e-4)


def test_the_same_run_twice_gives_the_same_weights(folder, finished, tmp_path):
    assert train(folder, tmp_path / "again", "-network", "bcdunet", "-dense", 1) == 0
    one, other = (load_file(path / "last.safetensors") for path in (finished, tmp_path / "again"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_goes_on_where_it_stopped_and_only_with_the_same_data(folder, copied, capsys):
    same = ["-network", "bcdunet", "-dense", 1, "-resume", 1, "-steps", 6]
    assert train(folder, copied, *same) == 0
    assert steps_logged(copied) == [2, 4, 6]
    for change in (("-seed", 3), ("-augment", 1), ("-patch", 16), ("-standardise", "image")):
        capsys.readouterr()
        assert train(folder, copied, *same, *change) == 1
        assert "begun with other images" in one_line(capsys)
    assert steps_logged(copied) == [2, 4, 6]


def test_prepared_tasks_can_be_trained_on_and_scored(tmp_path, capsys):
    """The commands of the documentation, on made-up downloads."""
    for task, write in (("skin", write_skin), ("retina", write_retina), ("lung", write_lung)):
        size = [] if task == "retina" else ["-size", 16]
        prepared = tmp_path / task
        download = write(tmp_path / f"{task}_download")
        assert run("prepare", task, download, "-ofolder", prepared, *size) == 0
        out = capsys.readouterr().out
        assert f"Written: {len(find_cases(prepared))} images" in out
        assert ("-patch 64" in out) == (task == "retina")
        target = tmp_path / f"run_{task}"
        patch = ["-patch", 16] if task == "retina" else []
        assert train(prepared, target, "-network", "unet", "-steps", 2, *patch) == 0
        weights = target / "weights.safetensors"
        assert run("evaluate", "-i", prepared, "-weights", weights, "-v", 0) == 0
        assert "jaccard" in capsys.readouterr().out
    assert json.loads((tmp_path / "run_retina/split.json").read_text(encoding="utf-8"))["test"] == [
        "01_test",
        "02_test",
        "03_test",
    ]


# What is refused


@pytest.mark.parametrize("option", [("-dense", 2), ("-directions", 1)])
def test_an_option_of_the_lstm_is_refused_for_a_unet(option, folder, tmp_path, capsys):
    words = ["train", "-i", folder, "-ofolder", tmp_path / "run", "-network", "unet", *option]
    assert f"{option[0]} does nothing with -network unet" in refused(capsys, *words)


def test_an_encoder_is_refused_where_it_does_not_fit(folder, tmp_path, capsys):
    words = ["train", "-i", folder, "-ofolder", tmp_path / "run", "-encoder", "vgg16.pth"]
    assert "-encoder needs -network mcgunet -width 64" in refused(capsys, *words)
    full = ["-network", "mcgunet", "-width", 64]
    assert run(*words, *full, "-v", 0) == 1
    assert "no such weights file: vgg16.pth" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_the_encoder_of_the_file_is_what_training_starts_from(folder, tmp_path):
    torch.manual_seed(3)
    network = build_network(MCGUNetConfig(channels=1, in_channels=3))
    layers = [m for stage in (*network.encoder, network.dense[0]) for m in stage if hasattr(m, "weight")]
    indices = 0, 2, 5, 7, 10, 12, 14, 17, 19, 21
    tensors = {f"features.{n}.weight": m.weight.detach() for n, m in zip(indices, layers, strict=True)}
    tensors |= {f"features.{n}.bias": m.bias.detach() for n, m in zip(indices, layers, strict=True)}
    save_file(tensors, tmp_path / "vgg.safetensors")
    words = ["-network", "mcgunet", "-width", 64, "-encoder", tmp_path / "vgg.safetensors"]
    words += ["-steps", 1, "-evaluate-every", 1, "-batch", 1, "-lr", 1e-12]  # a step that leads nowhere
    target = tmp_path / "run"
    assert run("train", "-i", folder, "-ofolder", target, *words, "-precision", "single", "-v", 0) == 0
    trained = load_file(target / "weights.safetensors")
    name = next(name for name in trained if name.endswith("encoder.1.0.weight"))
    start = network.encoder[1][0].weight.detach()
    torch.testing.assert_close(trained[name].float(), start, rtol=1e-3, atol=1e-6)  # stored in half precision


def test_a_size_that_does_nothing_is_refused(tmp_path, capsys):
    words = ["prepare", "retina", tmp_path, "-ofolder", tmp_path / "out", "-size", 64]
    assert "-size does nothing for retina" in refused(capsys, *words)


@pytest.mark.parametrize("task", ["skin", "retina", "lung"])
def test_a_missing_download_gets_one_line(task, tmp_path, capsys):
    assert run("prepare", task, tmp_path / "lost", "-ofolder", tmp_path / "out") == 1
    assert str(tmp_path / "lost") in one_line(capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("-patch", 20), "multiple of 8"),
        (("-width", 0), "at least 1"),
        (("-steps", 0), "at least 1"),
        (("-dense", 0), "at least 1"),
        (("-split", "lost.json"), "is no split"),
        (("-subject", "(x)"), "finds no subject"),
        (("-device", "moon"), "can't be used"),
    ],
)
def test_options_that_make_no_run_are_refused_and_nothing_is_written(
    option, message, folder, tmp_path, capsys
):
    assert train(folder, tmp_path / "run", *option) == 1
    assert message in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_images_of_different_channels_are_refused(tmp_path, capsys):
    folder = write_folder(tmp_path / "folder")
    image, _ = picture(np.random.default_rng(0), channels=3)
    Image.fromarray(image).save(folder / "images" / "c.png")
    split = {"train": list("abcdef"), "test": list("gh")}
    (folder / "split.json").write_text(json.dumps(split), encoding="utf-8")
    assert train(folder, tmp_path / "run") == 1
    assert "in colours, or all in grey" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_weights_without_a_split_need_to_be_told_what_to_score(folder, copied, capsys):
    (copied / "split.json").unlink()
    weights = copied / "weights.safetensors"
    assert run("evaluate", "-i", folder, "-weights", weights, "-v", 0) == 1
    assert "-part all" in one_line(capsys)


def test_a_folder_of_other_subjects_is_not_scored_by_the_split(finished, tmp_path, capsys):
    other = write_folder(tmp_path / "other", names="xyz")
    assert run("evaluate", "-i", other, "-weights", finished / "weights.safetensors", "-v", 0) == 1
    assert "of whom there is no image" in one_line(capsys)


def test_a_stride_without_patches_is_refused(folder, finished, tmp_path, capsys):
    weights = finished / "weights.safetensors"
    words = [
        "predict",
        "-i",
        folder,
        "-weights",
        weights,
        "-ofolder",
        tmp_path / "out",
        "-stride",
        4,
        "-v",
        0,
    ]
    assert run(*words) == 1
    assert "-stride can't be used" in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_mask_never_takes_the_place_of_its_image(finished, tmp_path, capsys):
    folder = write_folder(tmp_path / "folder")
    before = (folder / "images" / "a.png").read_bytes()
    words = ["predict", "-i", folder, "-weights", finished / "weights.safetensors", "-v", 0]
    assert run(*words, "-ofolder", folder / "images") == 1
    assert "would take its place" in one_line(capsys)
    assert (folder / "images" / "a.png").read_bytes() == before


@pytest.mark.parametrize("path", ["lost.png", "text.png", "empty"])
def test_what_is_no_image_is_refused(path, finished, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    words = ["predict", "-i", tmp_path / path, "-weights", finished / "weights.safetensors"]
    assert run(*words, "-ofolder", tmp_path / "out", "-v", 0) == 1
    assert str(tmp_path / path) in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_an_image_of_other_channels_is_named(finished, tmp_path, capsys):
    image, _ = picture(np.random.default_rng(0), channels=3)
    Image.fromarray(image).save(tmp_path / "colours.png")
    words = ["predict", "-i", tmp_path / "colours.png", "-weights", finished / "weights.safetensors"]
    assert run(*words, "-ofolder", tmp_path / "out", "-v", 0) == 1
    assert "colours.png: the image has 3 channels" in one_line(capsys)


def test_the_library_that_is_missing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage", None)
    assert run("prepare", "lung", write_lung(tmp_path / "download"), "-ofolder", tmp_path / "out") == 1
    assert "pip install 'sct_deepspine[masks]'" in one_line(capsys)


def test_training_without_torch_says_what_to_install(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert train(folder, tmp_path / "run") == 1
    assert "needs torch, which is not installed: pip install 'sct_deepspine[masks]'" in one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "line",
    [
        "trains",
        "train -i folder",
        "predict -i image -ofolder out",
        "prepare brain folder -ofolder out",
        "train -i a -ofolder b -network hourglass",
    ],
)
def test_a_usage_error_exits_with_two(line, capsys):
    assert "error: " in refused(capsys, *line.split())


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["predict"], ["prepare"]])
def test_without_arguments_the_help_goes_to_stderr(command, capsys):
    assert "MANDATORY ARGUMENTS" in refused(capsys, *command)


def test_the_help_names_the_command(capsys):
    with pytest.raises(SystemExit) as exit_:
        run("predict", "-h")
    assert exit_.value.code == 0
    assert "sct_deepspine_masks predict" in capsys.readouterr().out
