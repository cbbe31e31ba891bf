"""Networks run by onnxruntime, which loads in a fifth of torch's time and memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.errors import WeightsError
from sct_deepspine.models.config import NetworkConfig
from sct_deepspine.models.images import with_channels

__all__ = ["INPUT", "OUTPUTS", "OnnxRuntime", "onnx_is_installed", "read_graph"]

INPUT = "planes"
OUTPUTS = ("maps", "attention")
"""Names in the graph; a network without attention has the first output only."""


@dataclass(frozen=True, eq=False)
class OnnxRuntime:
    """A network run by onnxruntime on the CPU.

    Parameters
    ----------
    session
        The ``InferenceSession``.
    config
        What defines the network.
    threads
        How many planes are run side by side.
    """

    session: Any
    config: NetworkConfig
    threads: int = 1

    def run(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map images, as :func:`~sct_deepspine.models.images.with_channels` takes them, to raw maps."""
        return self._run(OUTPUTS[0], planes)

    def attention(self, planes: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the attention maps of planes, or None for a network without attention."""
        names = [output.name for output in self.session.get_outputs()]
        return self._run(OUTPUTS[1], planes)[:, 0] if OUTPUTS[1] in names else None

    def _run(self, output: str, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        image = np.ascontiguousarray(with_channels(planes, self.config.in_channels), dtype=np.float32)

        def run_one(plane: NDArray[np.float32]) -> NDArray[np.float32]:
            return self.session.run([output], {INPUT: plane[None]})[0]

        # A core does no better with several planes at once, whose features leave its cache. Two cores with a
        # plane each take half of the time, with both on one plane 0.6 to 0.97 of it.
        workers = min(self.threads, len(image))
        if workers < 2:
            return np.concatenate([run_one(plane) for plane in image])
        with ThreadPoolExecutor(workers) as pool:
            return np.concatenate(list(pool.map(run_one, image)))


def onnx_is_installed() -> bool:
    """Return whether onnxruntime can be imported, without importing it."""
    return find_spec("onnxruntime") is not None


def read_graph(content: bytes, config: NetworkConfig) -> OnnxRuntime:
    """Open a network's graph.

    Parameters
    ----------
    content
        The ``.onnx`` file, verified.
    config
        What the network is.

    Raises
    ------
    WeightsError
        If it is no graph that onnxruntime can run.
    """
    # Since 1.29, onnxruntime sends reports of its use unless this is set before it is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no base but this
        raise WeightsError(" ".join(str(error).split())[:200]) from error
    # onnxruntime does not heed the variable that torch and numpy do.
    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count() or 1
    return OnnxRuntime(session, config, threads)
