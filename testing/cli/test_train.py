import csv
import json
import shutil
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import write_scan
from safetensors.torch import load_file

from sct_deepspine import label_discs
from sct_deepspine.cli.train import main
from sct_deepspine.errors import NoDiscsError, WeightsError
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.models.weights import load_weights
from sct_deepspine.segmentation.model import SegmentationModel
from sct_deepspine.simulation.phantom import make_phantom
from sct_deepspine.training.loop import TrainingConfig

TINY = [
    *("-features", "8", "-depth", "1", "-stacks", "1", "-precision", "single"),
    *("-composites", "0", "-batch", "2", "-workers", "0", "-steps", "6", "-evaluate-every", "3"),
]
WRITTEN = [
    *("best.safetensors", "config.json", "convergence.gif", "last.safetensors", "log.csv"),
    *("validation_000003.png", "validation_000006.png", "weights.json", "weights.locate.onnx"),
    "weights.safetensors",
]


OPTIONS = ["-optimiser", "adam", "-schedule", "constant", "-lr", "0.002", "-seed", "5"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory, phantom):
    """A folder of two people who share a phantom's spine."""
    folder = tmp_path_factory.mktemp("scans")
    write_scan(replace(phantom, name="one"), phantom.volume, folder, subject="one")
    write_scan(replace(phantom, name="two"), phantom.volume, folder, subject="two")
    return folder


@pytest.fixture(scope="module")
def finished(scans, tmp_path_factory):
    """The folder of a run that is over; for reading only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert run(*words(scans), "-ofolder", folder) == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """The same, to go on with."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def small_phantom(rng, *, spineless_share=0):
    """Make a small synthetic spine."""
    return make_phantom(rng, first=3, last=6, voxel_mm=(6.0, 3.0, 3.0))


def run(*arguments, make=small_phantom):
    return main([str(argument) for argument in arguments], make_phantom=make)


def words(scans):
    """Return the arguments of every run here but its folder."""
    return ["-i", scans, "-val", scans, "-phantoms", 0, "-v", 0, *TINY, *OPTIONS]


def steps_logged(folder):
    with (folder / "log.csv").open(encoding="utf-8") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_short_run_writes_all_it_promises(finished):
    assert names(finished) == WRITTEN
    assert steps_logged(finished) == [3, 6]
    with (finished / "log.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert np.isfinite([float(value) for value in row.values()]).all()
            assert {"loss", "score", "right", "missed", "mean_mm"} <= row.keys()
    assert (finished / "convergence.gif").read_bytes().startswith(b"GIF8")
    assert (finished / "validation_000003.png").read_bytes().startswith(b"\x89PNG")
    config = TrainingConfig.from_json((finished / "config.json").read_text(encoding="utf-8"))
    assert (config.steps, config.batch, config.workers, config.seed) == (6, 2, 0, 5)
    assert (config.optimiser, config.schedule, config.learning_rate) == ("adam", "constant", 0.002)
    assert (config.network.width, config.network.depth, config.network.stacks) == (
        8,
        1,
        1,
    )
    assert config.network.attention


def test_the_weights_of_a_run_can_be_used_at_once(finished, phantom):
    weights = load_weights(finished / "weights.safetensors")
    assert weights.name == "run"
    assert set(weights.networks) == {"locate"}
    assert weights.card["locate"]["training"] == 2
    assert weights.card["locate"]["step"] in (3, 6)
    with suppress(NoDiscsError):  # after six steps nothing has to be found
        label_discs(phantom.volume, weights=finished / "weights.safetensors")


def test_a_network_of_masks_is_trained_and_can_be_used_at_once(tmp_path, phantom):
    words = ["-role", "segment", "-features", "4", "-phantoms", "2", "-steps", "4", "-batch", "2"]
    folder = tmp_path / "run"
    assert run(*words, "-evaluate-every", "2", "-workers", "0", "-v", "0", "-ofolder", folder) == 0
    log = (folder / "log.csv").read_text(encoding="utf-8").splitlines()
    assert log[0].startswith("step,loss,score,")
    assert len(list(folder.glob("validation_*.png"))) == 2
    model = SegmentationModel.load(folder / "weights.safetensors")
    assert model.predictor.codec.channels == 5
    maps = model.predictor.predict([np.zeros((61, 43), np.float32)])[0]
    np.testing.assert_allclose(maps.sum(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-network", "hourglass"), "full resolution"),
        (("-composites", "4"), "-composites does nothing with -role segment"),
    ],
)
def test_what_a_network_of_masks_has_no_use_for_is_refused(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("-role", "segment", *words, "-ofolder", tmp_path / "run")
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_scans_without_masks_are_nothing_to_segment_from(scans, tmp_path, capsys):
    assert run("-i", scans, "-role", "segment", "-phantoms", "0", "-ofolder", tmp_path / "run") == 1
    assert "has a mask to learn from" in capsys.readouterr().err


def test_a_run_goes_on_where_it_stopped(scans, copied, capsys):
    first = (copied / "last.safetensors").read_bytes()
    longer = [*words(scans), "-ofolder", copied, "-steps", 8, "-resume", 1, "-v", 1]
    assert run(*longer) == 0
    assert steps_logged(copied) == [3, 6, 8]
    assert "validation_000008.png" in names(copied)
    assert (copied / "last.safetensors").read_bytes() != first
    assert "sct_deepspine_label -i IMAGE -weights" in capsys.readouterr().out
    assert run(*longer) == 0
    assert steps_logged(copied) == [3, 6, 8]


def test_a_run_begun_anew_does_not_carry_on_an_older_log(scans, copied):
    assert run(*words(scans), "-ofolder", copied, "-steps", 2, "-evaluate-every", 2) == 0
    assert steps_logged(copied) == [2]
    assert "validation_000006.png" not in names(copied)


def test_phantoms_alone_are_enough_to_train_on(tmp_path):
    folder, made = tmp_path / "run", []

    def make(rng, **options):
        made.append(small_phantom(rng))
        return made[-1]

    assert run("-ofolder", folder, "-phantoms", 2, *TINY, make=make) == 0
    assert names(folder) == WRITTEN
    assert len(made) == 2 + 4  # four more for validation
    tips = [tuple(next(iter(scan.discs.values()))) for scan in made]
    assert len(set(tips)) == 6


def test_without_a_validation_folder_a_fifth_of_the_subjects_is_held_back(tmp_path, phantom):
    for name in ("one", "two", "three", "four", "five"):
        write_scan(replace(phantom, name=name), phantom.volume, tmp_path / "scans", subject=name)
    folder = tmp_path / "run"
    assert run("-i", tmp_path / "scans", "-ofolder", folder, "-phantoms", 1, *TINY) == 0
    card = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
    assert (card["locate"]["training"], card["locate"]["validation"]) == (5, 1)


def test_the_fine_network_joins_the_coarse_one(scans, finished, tmp_path):
    both = ["-role", "refine", "-with", finished / "weights.safetensors", "-attention", 0]
    assert run(*words(scans), "-ofolder", tmp_path / "fine", *both) == 0
    weights = load_weights(tmp_path / "fine" / "weights.safetensors")
    networks = weights.networks
    assert (networks["locate"].pixel_mm, networks["refine"].pixel_mm) == (2.0, 1.0)
    assert networks["locate"].runtime.config.attention
    assert not networks["refine"].runtime.config.attention
    assert weights.name == "fine"
    assert {"locate", "refine"} <= weights.card.keys()


def test_the_network_that_finds_the_canal_joins_the_others_and_is_used(scans, finished, tmp_path, capsys):
    plain = ["-i", scans, "-val", scans, "-phantoms", 0, "-composites", 0, "-role", "canal"]
    short = ["-steps", 3, "-batch", 2, "-evaluate-every", 3, "-workers", 0, "-features", 8, "-depth", 1]
    assert run(*plain, *short, "-ofolder", tmp_path / "canal") == 0
    assert "holds no network to locate discs: add one with -with FILE -resume 1" in capsys.readouterr().out
    with pytest.raises(WeightsError, match="can't be used to label discs: they hold "):
        LabelingModel.load(tmp_path / "canal" / "weights.safetensors")
    joined = ["-with", finished / "weights.safetensors", "-resume", 1]
    assert run(*plain, *short, "-ofolder", tmp_path / "canal", *joined) == 0
    assert "To use it" in capsys.readouterr().out
    model = LabelingModel.load(tmp_path / "canal" / "weights.safetensors", device="cpu")
    assert (model.canal.pixel_mm, model.locate.pixel_mm) == (4.0, 2.0)
    assert model.canal.runtime.config.stacks == 1


def test_a_configuration_file_stands_for_the_options(scans, finished, tmp_path):
    plain = ["-i", scans, "-val", scans, "-phantoms", 0, "-v", 0]
    assert run(*plain, "-ofolder", tmp_path / "again", "-config", finished / "config.json") == 0
    assert (tmp_path / "again" / "config.json").read_text(encoding="utf-8") == (
        finished / "config.json"
    ).read_text(encoding="utf-8")
    one, other = (load_file(folder / "last.safetensors") for folder in (finished, tmp_path / "again"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


# What is refused


@pytest.mark.parametrize("option", [("-steps", "9"), ("-network", "unet"), ("-evaluate-every", "2")])
def test_a_configuration_file_and_an_option_that_it_holds_exclude_each_other(
    option, finished, tmp_path, capsys
):
    with pytest.raises(SystemExit):
        run("-ofolder", tmp_path / "run", "-config", finished / "config.json", *option)
    assert f"{option[0]} and -config exclude each other" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", [("-depth", "3"), ("-attention", "0"), ("-stacks", "1")])
def test_an_option_of_the_hourglass_is_refused_for_another_network(option, scans, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("-i", scans, "-ofolder", tmp_path / "run", "-network", "bcdunet", *option)
    assert f"{option[0]} does nothing with -network bcdunet" in capsys.readouterr().err


def one_line(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ERROR: ")
    return line


def test_the_library_that_is_missing_is_named(scans, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert run(*words(scans), "-ofolder", tmp_path / "run") == 1
    assert "pip install 'sct_deepspine[train]'" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_scans_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "lost"):
        assert run("-i", tmp_path / folder, "-ofolder", tmp_path / "run", "-v", 0, *TINY) == 1
        assert "no labelled scan" in one_line(capsys)


@pytest.mark.parametrize("text", ["not JSON", "{}", '{"network": {"channels": 25, "wheels": 4}}', None])
def test_a_configuration_that_cant_be_used_is_refused(text, scans, tmp_path, capsys):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert run("-i", scans, "-ofolder", tmp_path / "run", "-config", path) == 1
    assert "configuration can't be used" in one_line(capsys)


@pytest.mark.parametrize("option", ["-features 10", "-stacks -1", "-depth 0", "-steps 0", "-batch 0"])
def test_numbers_that_make_no_network_or_run_are_refused(option, scans, tmp_path, capsys):
    assert run(*words(scans), "-ofolder", tmp_path / "run", *option.split()) == 1
    one_line(capsys)


def test_a_checkpoint_of_another_network_is_refused(scans, copied, capsys):
    assert run(*words(scans), "-ofolder", copied, "-features", 16, "-resume", 1) == 1
    assert "last.safetensors" in one_line(capsys)


def test_an_output_folder_that_cant_be_made_is_refused(scans, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    assert run("-i", scans, "-ofolder", tmp_path / "file" / "run", *TINY) == 1
    assert "can't make the folder" in one_line(capsys)


@pytest.mark.parametrize(
    "line",
    [
        "-i scans",
        "-ofolder run -phantoms 0",
        "-ofolder run -optimiser sgd",
        "-ofolder run -role both",
        "-ofolder run -steps many",
    ],
)
def test_a_usage_error_exits_with_two(line, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(line.split())
    assert exit_.value.code == 2
    assert "sct_deepspine_train: error: " in capsys.readouterr().err


def test_without_arguments_the_help_goes_to_stderr(capsys):
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
    assert "MANDATORY ARGUMENTS" in capsys.readouterr().err
