"""Encoder-decoder networks: U-Net, BCDU-Net and MCGU-Net.

As published by Azad et al.: *Bi-Directional ConvLSTM U-Net with Densley Connected Convolutions*, 2019 (arXiv
1909.00166), and *Multi-level Context Gating of Embedded Collective Knowledge for Medical Image Segmentation*,
2020 (arXiv 2003.05056). Three poolings, no batch normalisation in the encoder, dropout of one half. The head
has no ReLU before its last convolution, where the published code has one: its two channels can die.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, cat, nn
from torch.nn import functional as F

from sct_deepspine.models.blocks import SequenceMerge, SqueezeExcitation, convolutions, initialise

if TYPE_CHECKING:
    from sct_deepspine.models.config import BCDUNetConfig, MCGUNetConfig, UNetConfig

__all__ = ["BCDUNet", "MCGUNet", "UNet"]

DROPOUT = 0.5
"""Share of features dropped in training, as in the published code of BCDU-Net."""


class UNet(nn.Module):
    """The baseline: concatenated skip connections, upsampling by the nearest neighbour.

    Parameters
    ----------
    config
        The network's configuration.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.encoder = nn.ModuleList(
            [convolutions(config.in_channels, w), convolutions(w, 2 * w), convolutions(2 * w, 4 * w)]
        )
        self.bottom = convolutions(4 * w, 8 * w)
        self.up = nn.ModuleList(
            nn.Conv2d(below, above, 2) for below, above in ((8 * w, 8 * w), (4 * w, 4 * w), (2 * w, w))
        )
        self.decoder = nn.ModuleList(
            convolutions(inputs, outputs) for inputs, outputs in ((12 * w, 4 * w), (6 * w, 2 * w), (2 * w, w))
        )
        self.skip_dropout, self.bottom_dropout = nn.Dropout(DROPOUT), nn.Dropout(DROPOUT)
        self.head = _head(w, config.channels)
        initialise(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map ``(N, in_channels, H, W)``, sides multiples of 8, to one ``(N, channels, H, W)`` of raw maps.

        Raises
        ------
        ValueError
            If the shape does not fit.
        """
        skips, x = _encode(self.encoder, image, self.skip_dropout, self.config)
        x = self.bottom_dropout(self.bottom(x))
        for up, decode, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            raised = F.interpolate(x, scale_factor=2.0, mode="nearest")
            # A 2 × 2 convolution keeps the shape with one row and column of zeros at the end.
            x = decode(cat([skip, F.relu(up(F.pad(raised, (0, 1, 0, 1))))], dim=1))
        return [self.head(x)]


class BCDUNet(nn.Module):
    """Skip connections merged by convolutional LSTMs, densely connected blocks at the bottom.

    Parameters
    ----------
    config
        The network's configuration.
    """

    def __init__(self, config: BCDUNetConfig | MCGUNetConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        blocks = (w, 2), (2 * w, 2), (4 * w, self.third_block)
        inputs = config.in_channels, w, 2 * w
        self.encoder = nn.ModuleList(
            convolutions(before, after, count) for before, (after, count) in zip(inputs, blocks, strict=True)
        )
        self.dense = nn.ModuleList(
            convolutions(4 * w if index == 0 else 8 * w * index, 8 * w, self.third_block if index == 0 else 2)
            for index in range(config.dense)
        )
        widths = (8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w)
        self.up = nn.ModuleList(nn.ConvTranspose2d(below, above, 2, stride=2) for below, above in widths)
        self.norm = nn.ModuleList(nn.BatchNorm2d(above) for _, above in widths)
        filters = [above // self.lstm_divisor for _, above in widths]
        self.merge = nn.ModuleList(
            SequenceMerge(above, count, config.directions)
            for (_, above), count in zip(widths, filters, strict=True)
        )
        self.decoder = nn.ModuleList(
            convolutions(count, above) for (_, above), count in zip(widths, filters, strict=True)
        )
        self.skip_dropout = nn.Dropout(DROPOUT)
        self.dense_dropout = nn.ModuleList(
            nn.Identity() if self.third_block == 3 and index == 0 else nn.Dropout(DROPOUT)
            for index in range(config.dense)
        )
        self.head = _head(w, config.channels)
        initialise(self)

    third_block = 2
    """Convolutions at the third stage of the encoder and in the first dense block."""

    lstm_divisor = 2
    """The convolutional LSTMs have as many filters as features, divided by this."""

    def gate_raised(self, index: int, x: Tensor) -> Tensor:
        """Return what is made of the features after the transposed convolution."""
        return x

    def gate_decoded(self, index: int, x: Tensor) -> Tensor:
        """Return what is made of the features after the last convolution of a stage."""
        return x

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map ``(N, in_channels, H, W)``, sides multiples of 8, to one ``(N, channels, H, W)`` of raw maps.

        Raises
        ------
        ValueError
            If the shape does not fit.
        """
        skips, x = _encode(self.encoder, image, self.skip_dropout, self.config)
        blocks: list[Tensor] = []
        for block, dropout in zip(self.dense, self.dense_dropout, strict=True):
            blocks.append(dropout(block(cat(blocks, dim=1) if blocks else x)))
        x = blocks[-1]
        for index, skip in enumerate(reversed(skips)):
            raised = self.gate_raised(index, self.up[index](x))
            merged = self.merge[index](skip, F.relu(self.norm[index](raised)))
            x = self.gate_decoded(index, self.decoder[index](merged))
        return [self.head(x)]


class MCGUNet(BCDUNet):
    """BCDU-Net with the first ten convolutions of VGG-16 as encoder, and squeeze and excitation.

    Parameters
    ----------
    config
        The network's configuration.
    """

    third_block = 3
    lstm_divisor = 1

    def __init__(self, config: MCGUNetConfig) -> None:
        super().__init__(config)
        widths = [4 * config.width, 2 * config.width, config.width]
        self.raised_gates = nn.ModuleList(SqueezeExcitation(width) for width in widths)
        self.decoded_gates = nn.ModuleList(SqueezeExcitation(width) for width in widths)

    def gate_raised(self, index: int, x: Tensor) -> Tensor:
        """Weigh the channels of the features after the transposed convolution."""
        return self.raised_gates[index](x)

    def gate_decoded(self, index: int, x: Tensor) -> Tensor:
        """Weigh the channels of the features after the last convolution of a stage."""
        return self.decoded_gates[index](x)


def _encode(
    encoder: nn.ModuleList,
    image: Tensor,
    skip_dropout: nn.Module,
    config: UNetConfig | BCDUNetConfig | MCGUNetConfig,
) -> tuple[list[Tensor], Tensor]:
    """Return the features of each stage, and those pooled from the last; the deepest skip is dropped out."""
    if image.ndim != 4 or image.shape[1] != config.in_channels:
        raise ValueError(f"expected (N, {config.in_channels}, H, W), got {tuple(image.shape)}")
    if image.shape[2] % config.multiple or image.shape[3] % config.multiple:
        raise ValueError(
            f"rows and columns must be multiples of {config.multiple}, got {tuple(image.shape[2:])}"
        )
    skips, x = [], image
    for stage in encoder:
        features = stage(x)
        skips.append(features)
        x = F.max_pool2d(features, 2)
    skips[-1] = skip_dropout(skips[-1])
    return skips, x


def _head(width: int, channels: int) -> nn.Sequential:
    """Return the last two convolutions; two maps between them for one channel, as published."""
    between = 2 if channels == 1 else max(2, channels)
    return nn.Sequential(nn.Conv2d(width, between, 3, padding=1), nn.Conv2d(between, channels, 1))
