"""Blocks of the encoder-decoder networks: convolution pairs, convolutional LSTM, squeeze and excitation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConvLSTMCell", "SequenceMerge", "SqueezeExcitation", "convolutions", "initialise"]


def convolutions(inputs: int, outputs: int, count: int = 2) -> nn.Sequential:
    """Chain 3 × 3 convolutions with ReLU that keep rows and columns."""
    layers: list[nn.Module] = []
    for index in range(count):
        layers += [nn.Conv2d(inputs if index == 0 else outputs, outputs, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def initialise(network: nn.Module) -> None:
    """Start all convolutions as He et al. 2015 do for ReLU, with biases of 0; forget gates stay open."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ConvLSTMCell):
            module.open_forget_gate()


class SqueezeExcitation(nn.Module):
    """Weigh channels by what the whole image holds of them (Hu et al. 2018, arXiv 1709.01507).

    Parameters
    ----------
    channels
        Of the features.
    reduction
        Channels per hidden unit.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to the same shape."""
        weight = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * weight[:, :, None, None]


class ConvLSTMCell(nn.Module):
    """Convolutional LSTM without peepholes (Shi et al. 2015, arXiv 1506.04214), hard sigmoid gates.

    Parameters
    ----------
    inputs
        Channels of each step.
    filters
        Channels of the state.
    """

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.filters = filters
        self.input = nn.Conv2d(inputs, 4 * filters, 3, padding=1)
        self.state = nn.Conv2d(filters, 4 * filters, 3, padding=1, bias=False)

    def open_forget_gate(self) -> None:
        """Let the cell remember at first: the forget gate starts with a bias of 1."""
        with torch.no_grad():
            assert self.input.bias is not None
            self.input.bias[self.filters : 2 * self.filters] = 1.0

    def forward(self, steps: Sequence[Tensor]) -> Tensor:
        """Read steps ``(N, inputs, H, W)`` in turn; return the last output, ``(N, filters, H, W)``."""
        output: Tensor | None = None
        memory: Tensor | None = None
        for step in steps:
            gates = self.input(step) if output is None else self.input(step) + self.state(output)
            enter, forget, candidate, leave = gates.chunk(4, dim=1)
            kept = 0.0 if memory is None else _hard_sigmoid(forget) * memory
            memory = kept + _hard_sigmoid(enter) * torch.tanh(candidate)
            output = _hard_sigmoid(leave) * torch.tanh(memory)
        assert output is not None
        return output


def _hard_sigmoid(x: Tensor) -> Tensor:
    return torch.clamp(0.2 * x + 0.5, 0.0, 1.0)


class SequenceMerge(nn.Module):
    """Merge a skip connection with the features from below by a convolutional LSTM over the two.

    With two directions the outputs of both are added, as published (Azad et al. 2019, arXiv 1909.00166,
    section 2.2). With one, the features from below are read first and the skip connection last, as the
    published code does.

    Parameters
    ----------
    inputs
        Channels of the skip connection and of the features from below.
    filters
        Channels of the result.
    directions
        1 or 2.
    """

    def __init__(self, inputs: int, filters: int, directions: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(ConvLSTMCell(inputs, filters) for _ in range(directions))

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        """Map two ``(N, inputs, H, W)`` to ``(N, filters, H, W)``."""
        merged = self.cells[0]([below, skip])
        return merged + self.cells[1]([skip, below]) if len(self.cells) == 2 else merged
