"""Trained networks as files: tensors with their model card, and ONNX graphs."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from sct_deepspine.io.files import make_folder, write_text, written_whole
from sct_deepspine.models.backends.onnx import INPUT, OUTPUTS
from sct_deepspine.models.backends.torch import TorchRuntime
from sct_deepspine.models.config import config_as_dict
from sct_deepspine.models.networks import Network, build_network
from sct_deepspine.models.weights import FORMAT, TrainedNetwork, graph_path

__all__ = ["save_weights"]

OPSET = 17
"""Version of the ONNX operators."""


def save_weights(
    path: Path, networks: Mapping[str, TrainedNetwork], card: Mapping[str, Any], *, onnx: bool = False
) -> None:
    """Write networks in half precision, and their model card with the file's SHA-256.

    Parameters
    ----------
    path
        The ``.safetensors`` file; the card gets the suffix ``.json``.
    networks
        By name, run by torch; for the labelling ``locate`` and, if there is one, ``refine``.
    card
        ``name`` and whatever else is worth telling: training data, licence, metrics, calibration.
    onnx
        Whether to write an ONNX copy of each network, too.

    Raises
    ------
    OutputError
        If they can't be written there.
    """
    modules = {name: _module(network) for name, network in networks.items()}
    tensors = {
        f"{name}.{key}": value.detach().cpu().half().contiguous()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    files = {path: dump_tensors(tensors)}
    entries: dict[str, dict[str, Any]] = {
        name: {
            "network": config_as_dict(modules[name].config),
            "codec": dict(network.codec),
            "pixel_mm": network.pixel_mm,
        }
        for name, network in networks.items()
    }
    if onnx:
        for name, module in modules.items():
            graph = _graph(module)
            files[graph_path(path, name)] = graph
            entries[name]["onnx_sha256"] = hashlib.sha256(graph).hexdigest()
    sha256 = hashlib.sha256(files[path]).hexdigest()
    whole = {"format": FORMAT, "sha256": sha256, "networks": entries} | dict(card)
    make_folder(path.parent)
    for file, content in files.items():
        with written_whole(file) as partial:
            partial.write_bytes(content)
    write_text(path.with_suffix(".json"), json.dumps(whole, indent=2) + "\n")


def _module(network: TrainedNetwork) -> Network:
    if not isinstance(network.runtime, TorchRuntime):
        raise TypeError("only networks run by torch can be written; load them with device='cpu'")
    return network.runtime.network


class _Outputs(nn.Module):
    """The outputs a graph has: the last stack's maps, and the attention map if there is one."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        """Map ``(N, in_channels, H, W)`` to the graph's outputs."""
        seen: list[Tensor] = []
        layer = getattr(self.network, "attention", None)
        hook = layer and layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        maps = self.network(planes)[-1]
        if hook:
            hook.remove()
        return (maps, *seen)


def _graph(network: Network) -> bytes:
    """Trace a network to an ONNX graph whose batch, rows and columns are free.

    The weights are those of the half-precision tensors, so that both copies draw the same.
    """
    config = network.config
    rounded = build_network(config)
    rounded.load_state_dict(
        {k: v.half().to(v.dtype) if v.is_floating_point() else v for k, v in network.state_dict().items()}
    )
    rounded.eval()
    example = torch.zeros(1, config.in_channels, 2 * config.multiple, config.multiple)
    names = OUTPUTS if hasattr(network, "attention") else OUTPUTS[:1]
    free = {0: "planes", 2: "rows", 3: "columns"}
    # Newer releases of torch have another exporter beside the tracing one, and make it the default.
    traced: dict[str, Any] = {"dynamo": False} if "dynamo" in signature(torch.onnx.export).parameters else {}
    with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.inference_mode():
        target = Path(folder) / "graph.onnx"
        warnings.simplefilter("ignore")  # the tracer warns of the shape checks, which the graph does not need
        torch.onnx.export(
            _Outputs(rounded),
            (example,),
            target,
            input_names=[INPUT],
            output_names=list(names),
            dynamic_axes=dict.fromkeys((INPUT, *names), free),
            opset_version=OPSET,
            **traced,
        )
        return target.read_bytes()
