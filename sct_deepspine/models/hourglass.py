"""Stacked hourglasses, with and without multi-level attention.

The attention is that of Azad, Rouhier and Cohen-Adad 2021 (arXiv 2108.06554): the features of all
stacks are squeezed to one map that gates the last stack's features. The hourglass is that of
Newell et al. 2016 (arXiv 1603.06937).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sct_deepspine.models.config import HourglassConfig

__all__ = ["AttentionHourglass", "StackedHourglass"]


class Residual(nn.Module):
    """Pre-activation bottleneck block."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = outputs // 2
        self.norm1, self.squeeze = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, inner, 1)
        self.norm2, self.convolve = nn.BatchNorm2d(inner), nn.Conv2d(inner, inner, 3, padding=1)
        self.norm3, self.expand = nn.BatchNorm2d(inner), nn.Conv2d(inner, outputs, 1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H, W)``."""
        y = self.squeeze(F.relu(self.norm1(x)))
        y = self.convolve(F.relu(self.norm2(y)))
        y = self.expand(F.relu(self.norm3(y)))
        return self.skip(x) + y


def residuals(width: int, blocks: int) -> nn.Sequential:
    """Chain residual blocks of one width."""
    return nn.Sequential(*(Residual(width, width) for _ in range(blocks)))


class Hourglass(nn.Module):
    """One level of an hourglass, which holds the next smaller one."""

    def __init__(self, width: int, blocks: int, depth: int) -> None:
        super().__init__()
        self.beside = residuals(width, blocks)
        self.down = residuals(width, blocks)
        self.inside = Hourglass(width, blocks, depth - 1) if depth > 1 else residuals(width, blocks)
        self.up = residuals(width, blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, width, H, W)`` to the same shape."""
        y = self.up(self.inside(self.down(F.max_pool2d(x, 2))))
        return self.beside(x) + F.interpolate(y, scale_factor=2.0, mode="nearest")


class Stem(nn.Module):
    """From grey values to features at the stride of the maps."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        quarter = width // 4
        self.convolve = nn.Conv2d(in_channels, quarter, 7, stride=2, padding=3)
        self.norm = nn.BatchNorm2d(quarter)
        self.first = Residual(quarter, width // 2)
        self.pool = nn.MaxPool2d(2) if stride == 4 else nn.Identity()
        self.rest = nn.Sequential(Residual(width // 2, width), Residual(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        return self.rest(self.pool(self.first(F.relu(self.norm(self.convolve(x))))))


class Stack(nn.Module):
    """An hourglass and the features read from it."""

    def __init__(self, width: int, blocks: int, depth: int) -> None:
        super().__init__()
        self.hourglass = Hourglass(width, blocks, depth)
        self.residual = residuals(width, blocks)
        self.mix = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, width, H, W)`` to the same shape."""
        return self.mix(self.residual(self.hourglass(x)))


class MultiLevelAttention(nn.Module):
    """Squeeze the features of all stacks to one map between 0 and 1 (Azad et al. 2021, section 2.2)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (inputs, 128, 16, 8)
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8, 1, 1, bias=False))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the stacks' features, ``(N, width, H, W)`` each, to ``(N, 1, H, W)``."""
        return torch.sigmoid(self.layers(torch.cat(features, dim=1)))


class StackedHourglass(nn.Module):
    """Hourglasses in a row, each of which predicts all maps and hands them to the next.

    Parameters
    ----------
    config
        The network's configuration; its ``attention`` must be false.
    """

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        self.config = config
        width, stacks = config.width, config.stacks
        self.stem = Stem(config.in_channels, width, config.stride)
        self.stacks = nn.ModuleList(Stack(width, config.blocks, config.depth) for _ in range(stacks))
        self.scores = nn.ModuleList(nn.Conv2d(width, config.channels, 1) for _ in range(stacks))
        self.features_back = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(stacks - 1))
        self.scores_back = nn.ModuleList(nn.Conv2d(config.channels, width, 1) for _ in range(stacks - 1))

    def gate(self, features: list[Tensor]) -> Tensor:
        """Return the features from which the last stack's maps are predicted."""
        return features[-1]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Predict the maps of every stack.

        Parameters
        ----------
        image
            ``(N, in_channels, H, W)``; H and W multiples of ``config.multiple``.

        Returns
        -------
        list of Tensor
            One ``(N, channels, H / stride, W / stride)`` per stack, the last one the best.

        Raises
        ------
        ValueError
            If the shape does not fit.
        """
        multiple = self.config.multiple
        if image.ndim != 4 or image.shape[1] != self.config.in_channels:
            raise ValueError(f"expected (N, {self.config.in_channels}, H, W), got {tuple(image.shape)}")
        if image.shape[2] % multiple or image.shape[3] % multiple:
            raise ValueError(
                f"rows and columns must be multiples of {multiple}, got {tuple(image.shape[2:])}"
            )
        x = self.stem(image)
        features: list[Tensor] = []
        maps: list[Tensor] = []
        for index, (stack, score) in enumerate(zip(self.stacks, self.scores, strict=True)):
            features.append(stack(x))
            last = index == len(self.stacks) - 1
            maps.append(score(self.gate(features) if last else features[-1]))
            if not last:
                x = x + self.features_back[index](features[-1]) + self.scores_back[index](maps[-1])
        return maps


class AttentionHourglass(StackedHourglass):
    """Stacked hourglass whose last stack is gated by the multi-level attention.

    Parameters
    ----------
    config
        The network's configuration; its ``attention`` must be true.
    """

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__(config)
        self.attention = MultiLevelAttention(config.width * config.stacks)

    def gate(self, features: list[Tensor]) -> Tensor:
        """Return the last features times the attention map."""
        return features[-1] * self.attention(features)
