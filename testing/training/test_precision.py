"""A run computes in the number format that is faster, says which, and keeps to it."""

import json

import pytest
import torch
from torch import nn

from sct_deepspine.models.config import UNetConfig
from sct_deepspine.models.networks import build_network
from sct_deepspine.training.loop import TrainingConfig, train
from sct_deepspine.training.precision import choose_precision, computing_in

SINGLE, HALF = torch.float32, torch.bfloat16


class Worker(nn.Module):
    """A network with a clock of its own, which takes so many seconds in each number format."""

    now = 0.0

    def __init__(self, seconds):
        super().__init__()
        self.layer, self.seconds = nn.Conv2d(1, 1, 3, padding=1), seconds

    def forward(self, image):
        maps = self.layer(image)
        Worker.now += self.seconds[maps.dtype]  # the network is copied
        return [maps]


def chosen_for(single, half, device="cpu"):
    image = torch.zeros(4, 1, 8, 8, device=device)
    return choose_precision(Worker({SINGLE: single, HALF: half}), image, device, clock=lambda: Worker.now)


class Items(torch.utils.data.Dataset):
    """Images that are all alike."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index >= self.length:
            raise IndexError(index)
        return {"image": torch.linspace(0, 1, 64).reshape(1, 8, 8)}


def run(folder, *, steps=2, resume=False, **options):
    folder.mkdir(exist_ok=True)
    network = UNetConfig(channels=1, width=4)
    config = TrainingConfig(network, batch=2, steps=steps, workers=0, evaluate_every=99, **options)
    state = train(
        lambda start, length: Items(length),
        config,
        folder,
        loss=lambda maps, batch: (maps[0].float() - 1).square().mean(),
        evaluate=lambda network, step, folder: {"score": 0.0},
        resume=resume,
    )
    return state, json.loads((folder / "config.json").read_text(encoding="utf-8"))["precision"]


@pytest.mark.parametrize(
    ("single", "half", "expected"),
    [(1.0, 8.0, "single"), (1.0, 0.5, "bfloat16"), (1.0, 1.0, "single"), (1.0, 0.95, "single")],
)
def test_the_faster_precision_is_chosen_and_of_equals_the_one_with_more_digits(single, half, expected):
    assert chosen_for(single, half) == expected


def test_a_device_that_is_neither_is_left_in_single_precision():
    assert chosen_for(1.0, 0.1, "meta") == "single"


def test_choosing_changes_neither_the_network_nor_what_is_drawn_next():
    network = build_network(UNetConfig(channels=1, width=4)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    choose_precision(network, torch.zeros(2, 1, 8, 8), "cpu")
    assert torch.equal(torch.rand(3), expected)
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_networks_compute_as_they_are_told():
    layer = nn.Conv2d(1, 1, 3)
    for precision, expected in (("single", SINGLE), ("bfloat16", HALF)):
        with computing_in(precision, "cpu"):
            assert layer(torch.zeros(1, 1, 8, 8)).dtype == expected


def test_a_run_is_trained_as_it_is_told_and_says_so(tmp_path):
    states = {}
    for precision in ("single", "bfloat16"):
        states[precision], told = run(tmp_path / precision, precision=precision)
        assert told == precision
    one, other = (state.network.state_dict() for state in states.values())
    assert not all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_that_chooses_says_what_it_chose_and_is_the_same_as_one_that_was_told(tmp_path):
    chosen, precision = run(tmp_path / "chosen")
    told, _ = run(tmp_path / "told", precision=precision)
    assert precision in ("single", "bfloat16")
    one, other = chosen.network.state_dict(), told.network.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("precision", ["single", "bfloat16"])
def test_a_resumed_run_keeps_its_precision(precision, tmp_path):
    run(tmp_path / "run", precision=precision)
    state, told = run(tmp_path / "run", steps=4, resume=True)
    assert (state.step, told) == (4, precision)
    assert run(tmp_path / "run", steps=4, resume=True)[1] == precision


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="auto, bfloat16, single, got half"):
        TrainingConfig(UNetConfig(channels=1), precision="half")
