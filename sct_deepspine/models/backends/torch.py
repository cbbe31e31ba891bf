"""Networks run by torch, on any device it knows."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from sct_deepspine.errors import WeightsError
from sct_deepspine.models.config import NetworkConfig
from sct_deepspine.models.images import with_channels
from sct_deepspine.models.networks import Network, build_network, usable_device

__all__ = ["TorchRuntime", "read_networks"]

_LOADED_BY = os.getpid()


@dataclass(frozen=True, eq=False)
class TorchRuntime:
    """A network run by torch.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    """

    network: Network

    @property
    def config(self) -> NetworkConfig:
        """What defines the network."""
        return self.network.config

    def run(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map images, as :func:`~sct_deepspine.models.images.with_channels` takes them, to raw maps."""
        if os.getpid() != _LOADED_BY:
            # A forked child has none of the threads that OpenMP counts on, and would wait for them for ever.
            torch.set_num_threads(1)
        with torch.inference_mode():
            return self.network(self._tensor(planes))[-1].float().cpu().numpy()

    def attention(self, planes: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the attention maps of planes, or None for a network without attention."""
        layer = getattr(self.network, "attention", None)
        if layer is None:
            return None
        seen: list[torch.Tensor] = []
        hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            self.run(planes)
        finally:
            hook.remove()
        return seen[0][:, 0].float().cpu().numpy()

    def _tensor(self, planes: NDArray[np.float32]) -> torch.Tensor:
        device = next(self.network.parameters()).device
        image = torch.from_numpy(np.array(with_channels(planes, self.config.in_channels)))
        return image.to(device, memory_format=torch.channels_last)


def read_networks(
    content: bytes, configs: dict[str, NetworkConfig], *, device: str = "cpu"
) -> dict[str, TorchRuntime]:
    """Build networks with the tensors of a safetensors file.

    Parameters
    ----------
    content
        The file, verified.
    configs
        What each network is, by the prefix of its tensors' names.
    device
        Where they run, as torch names it.

    Raises
    ------
    WeightsError
        If the tensors are not those of the networks.
    DeviceError
        If there is no such device.
    """
    place = usable_device(device)
    try:
        tensors = load_tensors(content)
        return {name: _read(name, config, tensors, place) for name, config in configs.items()}
    except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(" ".join(str(error).split())[:200]) from error


def _read(
    name: str, config: NetworkConfig, tensors: dict[str, torch.Tensor], device: torch.device
) -> TorchRuntime:
    network = build_network(config)
    own = {
        key.removeprefix(f"{name}."): value.float()
        for key, value in tensors.items()
        if key.startswith(f"{name}.")
    }
    network.load_state_dict(own | _counters(network))
    network.eval().requires_grad_(False)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchRuntime(network)


def _counters(network: Network) -> dict[str, torch.Tensor]:
    """Batch normalisation counts its batches; inference does not need the count, and files omit it."""
    return {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
