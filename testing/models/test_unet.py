"""The encoder-decoder networks are those that were published, to the last parameter."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sct_deepspine.models.backends.torch import TorchRuntime
from sct_deepspine.models.blocks import ConvLSTMCell, SequenceMerge
from sct_deepspine.models.config import (
    BCDUNetConfig,
    HourglassConfig,
    MCGUNetConfig,
    UNetConfig,
    config_as_dict,
    config_from_dict,
)
from sct_deepspine.models.networks import build_network
from sct_deepspine.models.weights import TrainedNetwork, load_weights
from sct_deepspine.training.export import save_weights

SMALL = [
    UNetConfig(channels=2, width=4),
    BCDUNetConfig(channels=1, width=4, dense=1, directions=1),
    BCDUNetConfig(channels=3, in_channels=3, width=4, dense=3),
    MCGUNetConfig(channels=1, width=32, dense=2, directions=1),
    MCGUNetConfig(channels=28, width=32, dense=1),
    HourglassConfig(channels=3, stacks=2, width=8, depth=2),
]


def seeded(config):
    torch.manual_seed(0)
    return build_network(config)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (UNetConfig(1), 9_090_309),
        (UNetConfig(1, 3), 9_091_461),
        (BCDUNetConfig(1, dense=1, directions=1), 8_861_189),
        (BCDUNetConfig(1, 3, dense=1, directions=1), 8_862_341),
        (BCDUNetConfig(1, directions=1), 20_659_717),
        (BCDUNetConfig(1, 3, directions=1), 20_660_869),
        (MCGUNetConfig(1, directions=1), 27_890_749),
        (MCGUNetConfig(1, 3, directions=1), 27_891_901),
        (BCDUNetConfig(1), 22_983_045),
        (BCDUNetConfig(1, 3), 22_984_197),
        (MCGUNetConfig(1), 34_085_693),
        (MCGUNetConfig(1, 3), 34_086_845),
    ],
    ids=str,
)
def test_the_published_networks_have_their_parameters(config, count):
    with torch.device("meta"):
        network = build_network(config)
    # Keras counts the running statistics of batch normalisation, which torch keeps as buffers.
    running = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert sum(p.numel() for p in network.parameters()) + running == count


@pytest.mark.parametrize("config", SMALL, ids=str)
class TestEveryNetwork:
    def test_it_maps_any_input_of_its_multiple_to_its_maps(self, config):
        network = seeded(config).eval()
        for rows, columns in ((2, 1), (3, 5)):
            shape = rows * config.multiple, columns * config.multiple
            *_, maps = network(torch.randn(2, config.in_channels, *shape))
            assert maps.shape == (2, config.channels, shape[0] // config.stride, shape[1] // config.stride)

    def test_other_shapes_are_refused(self, config):
        network = seeded(config).eval()
        m = config.multiple
        for shape in ((1, config.in_channels + 1, m, m), (1, config.in_channels, m, m + 1), (m, m)):
            with pytest.raises(ValueError, match=r"expected \(N|multiples of"):
                network(torch.zeros(shape))

    def test_gradients_reach_every_parameter(self, config):
        if isinstance(
            config, MCGUNetConfig
        ):  # the gate of a narrow one has a single hidden unit, which can be dead
            config = replace(config, width=64)
        network = seeded(config).train()
        m = config.multiple
        maps = network(torch.randn(4, config.in_channels, 2 * m, 2 * m))
        sum((stage**2).mean() for stage in maps).backward()
        silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == []

    def test_its_configuration_comes_back(self, config):
        assert config_from_dict(config_as_dict(config)) == config

    def test_its_graph_predicts_what_its_tensors_predict(self, config, tmp_path):
        network = seeded(config).eval().half().float()
        m = config.multiple
        networks = {"masks": TrainedNetwork(TorchRuntime(network), {"kind": "masks"}, 1.0)}
        save_weights(tmp_path / "w.safetensors", networks, {"name": "w"}, onnx=True)
        planes = np.random.default_rng(0).normal(size=(2, 3 * m, 2 * m)).astype(np.float32)
        by_onnx, by_torch = (
            load_weights(tmp_path / "w.safetensors", **options).networks["masks"].runtime.run(planes)
            for options in ({}, {"device": "cpu"})
        )
        assert np.abs(by_onnx - by_torch).max() < 1e-4 * max(1, np.abs(by_torch).max())


def test_the_two_directions_read_the_two_inputs_in_both_orders():
    torch.manual_seed(1)
    merge = SequenceMerge(3, 2, directions=2)
    skip, below = torch.randn(2, 1, 3, 8, 8)
    first, second = merge.cells
    torch.testing.assert_close(merge(skip, below), first([below, skip]) + second([skip, below]))
    one = SequenceMerge(3, 2, directions=1)
    assert not torch.equal(one(skip, below), one(below, skip))


def test_a_cell_is_that_of_the_equations():
    """One step and two steps by hand, at a single pixel whose neighbours are zero."""
    torch.manual_seed(2)
    cell = ConvLSTMCell(1, 1)
    x1, x2 = torch.zeros(2, 1, 1, 3, 3)
    x1[..., 1, 1], x2[..., 1, 1] = 0.7, -0.4

    def hard(v):
        return np.clip(0.2 * v + 0.5, 0, 1)

    with torch.no_grad():
        w, b = cell.input.weight[:, 0, 1, 1].numpy(), cell.input.bias.numpy()
        enter, _, candidate, leave = 0.7 * w + b
        memory = hard(enter) * np.tanh(candidate)
        np.testing.assert_allclose(cell([x1])[0, 0, 1, 1], hard(leave) * np.tanh(memory), rtol=1e-5)
        recurrent = cell.state(cell([x1]))[0, :, 1, 1].numpy()
        enter, forget, candidate, leave = -0.4 * w + b + recurrent
        memory = hard(forget) * memory + hard(enter) * np.tanh(candidate)
        np.testing.assert_allclose(cell([x1, x2])[0, 0, 1, 1], hard(leave) * np.tanh(memory), rtol=1e-5)


def test_forget_gates_start_open():
    network = seeded(BCDUNetConfig(channels=1, width=4))
    for module in network.modules():
        if isinstance(module, ConvLSTMCell):
            gates = module.input.bias.chunk(4)
            assert [float(g.detach().min()) for g in gates] == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"width": 5}, "width must be even"),
        ({"dense": 0}, "dense must be at least 1"),
        ({"directions": 3}, "directions must be 1 or 2, got 3"),
    ],
)
def test_a_network_that_can_not_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        BCDUNetConfig(**{"channels": 1} | change)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'vnet'; known are hourglass, unet, bcdunet, mcgunet"):
        config_from_dict({"kind": "vnet", "channels": 1})
