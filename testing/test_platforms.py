"""What other systems do, simulated: consoles of few characters, spawned processes, files that are in use.

On Windows a file that is open or mapped can't be replaced, and a console may have the characters of code page
437 or 1252. Windows and macOS start worker processes anew, so that what they work on must be picklable.
"""

import importlib
import os
import pickle
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path, PureWindowsPath

import nibabel as nib
import numpy as np
import pytest
import torch
from fakes import fake_model
from mask_folders import picture
from platforms import Console
from torch.utils.data import DataLoader

from sct_deepspine.cli.label import main as label
from sct_deepspine.cli.masks import SUBCOMMANDS
from sct_deepspine.io.bids import image_stem
from sct_deepspine.models.config import UNetConfig
from sct_deepspine.models.weights import SHIPPED, load_weights
from sct_deepspine.recipes.dataset import MaskSlices, slices_of
from sct_deepspine.recipes.folders import Sample
from sct_deepspine.recipes.task import MaskCodec, MaskTask, Standardisation
from sct_deepspine.training.loop import Checkpoint, TrainingConfig
from sct_deepspine.training.roles import ROLES

ENCODINGS = "cp437", "cp1252", "ascii", "utf-8"
COMMANDS = "batch", "bids", "evaluate", "label", "masks", "segment", "train"


@contextmanager
def console_of(encoding):
    """Put a console of few characters in the place of standard output and standard error."""
    console = Console(encoding)
    with redirect_stdout(console), redirect_stderr(console):
        yield console


# Consoles


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_can_be_printed_on_any_console(command, encoding):
    with console_of(encoding) as console, pytest.raises(SystemExit) as exit_:
        importlib.import_module(f"sct_deepspine.cli.{command}").main(["-h"])
    assert exit_.value.code == 0
    assert "usage: sct_deepspine" in console.text
    assert "\\u" not in console.text


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_the_help_of_a_subcommand_too(subcommand, encoding):
    with console_of(encoding) as console, pytest.raises(SystemExit):
        SUBCOMMANDS[subcommand].parser().parse(["-h"])
    assert f"sct_deepspine_masks {subcommand}" in console.text
    assert "\\u" not in console.text


def test_a_sign_that_the_console_lacks_is_spelt():
    for encoding, shown in (("cp437", "cuda:1, ..."), ("cp1252", "cuda:1, …"), ("utf-8", "cuda:1, …")):
        with console_of(encoding) as console, pytest.raises(SystemExit):
            label(["-h"])
        assert shown in console.text


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_scan_is_labelled_and_its_name_told_on_any_console(encoding, painted, tmp_path):
    name = "ü 中 t2.nii.gz"
    nib.save(nib.Nifti1Image(painted.data, painted.grid.affine), tmp_path / name)
    with console_of(encoding) as console:
        assert label(["-i", str(tmp_path / name), "-ofolder", str(tmp_path)], model=fake_model()) == 0
        assert "C2/C3" in console.text
        assert "t2_discs.nii.gz" in console.text
        assert ("\\u4e2d" in console.text) == (encoding != "utf-8")
        assert label(["-i", str(tmp_path / "中")], model=fake_model()) == 1
        assert "ERROR: " in console.text


# Paths


@pytest.mark.parametrize("name", [r"C:\data\sub-01_T2w.nii.gz", r"\\server\share\sub-01_T2w.nii"])
def test_a_windows_path_has_the_stem_of_its_file(name):
    assert image_stem(PureWindowsPath(name)) == "sub-01_T2w"


# Processes that are started anew


def slices():
    image, mask = picture(np.random.default_rng(0))
    sample = Sample("one", "one", image[None, None], 255 * mask[None])
    task = MaskTask(MaskCodec((0, 255)), Standardisation.fit("training", [sample]), augment=True)
    return MaskSlices(slices_of([sample], task), task, seed=3, length=4)


def planes(scan, role):
    return ROLES[role].training_set([scan], start=0, length=2, seed=3, batch=1)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("role", ROLES)
def test_training_data_can_be_sent_to_a_process(role, phantom):
    items = planes(phantom, role)
    sent = pickle.loads(pickle.dumps(items))
    assert same(sent[1], items[1])


def test_a_spawned_process_makes_the_same_data():
    items = slices()
    loader = DataLoader(items, batch_size=2, num_workers=1, multiprocessing_context="spawn")
    for number, batch in enumerate(loader):
        own = [items[2 * number + index] for index in range(2)]
        assert same(batch, {name: torch.stack([item[name] for item in own]) for name in own[0]})


# Files that are in use


def in_use(path):
    """Tell whether this process has a file open or mapped."""
    name = str(Path(path).resolve())
    handles = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return name in handles or name in Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.fixture
def windows_rename(monkeypatch):
    """Let no file be replaced that is in use, as on Windows; gives the names of those that were."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("what is open can't be seen on this system")
    real, replaced = Path.replace, []

    def replace(self, target):
        assert not in_use(self), f"{self} is open"
        assert not os.path.exists(target) or not in_use(target), f"{target} is open"
        replaced.append(Path(target).name)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)  # no other system can be asked for
    return replaced


def test_the_simulation_sees_an_open_and_a_mapped_file(windows_rename, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(8))
    other.write_bytes(bytes(8))
    with other.open("rb"), pytest.raises(AssertionError, match="is open"):
        one.replace(other)
    mapped = np.memmap(other, dtype=np.uint8, mode="r")
    with pytest.raises(AssertionError, match="is open"):
        one.replace(other)
    del mapped
    one.replace(other)
    assert windows_rename == ["other"]


def test_no_file_that_is_open_is_replaced_when_a_scan_is_labelled_again(windows_rename, painted, tmp_path):
    scan = tmp_path / "t2.nii"  # is mapped when it is read
    nib.save(nib.Nifti1Image(painted.data, painted.grid.affine), scan)
    words = ["-i", str(scan), "-ofolder", str(tmp_path), "-csv", "1", "-heatmaps", "1", "-qc", str(tmp_path)]
    for _ in range(2):
        assert label([*words, "-v", "0"], model=fake_model()) == 0
    assert {"t2_discs.nii.gz", "t2_discs.json", "t2_discs.csv"} <= set(windows_rename)


def test_a_checkpoint_that_was_read_can_be_replaced(windows_rename, tmp_path):
    config = TrainingConfig(UNetConfig(channels=1, width=4), precision="single")
    state = Checkpoint.start(config)
    sum(p.sum() for p in state.network.parameters()).backward()
    state.optimiser.step()
    state.save(tmp_path / "last.safetensors")
    state.load(tmp_path / "last.safetensors")
    state.save(tmp_path / "last.safetensors")
    assert windows_rename == ["last.safetensors", "last.safetensors"]


@pytest.mark.parametrize("device", [None, "cpu"])
def test_weights_that_are_in_use_leave_their_files_free(device, tmp_path):
    for path in SHIPPED.parent.glob(f"{SHIPPED.stem}*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_weights(tmp_path / SHIPPED.name, device=device)
    assert weights.networks
    if os.path.isdir("/proc/self/fd"):
        assert not any(in_use(path) for path in tmp_path.iterdir())
