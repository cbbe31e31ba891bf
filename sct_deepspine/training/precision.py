"""The number format a training run computes in: bfloat16 where the hardware is faster in it, else single."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median

import torch
from torch import Tensor

from sct_deepspine.models.networks import Network

__all__ = ["PRECISIONS", "choose_precision", "computing_in"]

logger = logging.getLogger(__name__)

PRECISIONS = "auto", "bfloat16", "single"
"""What can be asked for; ``auto`` is settled at the start of a run."""

TIMED_IMAGES = 2
"""Of a batch: enough to compare by, and quick where bfloat16 is emulated."""

TIMED_STEPS = 3
"""Steps timed with each number format, after one that is not counted."""

WORTH_IT = 0.9
"""Share of the time of single precision that bfloat16 may take; it has fewer digits, so it must be faster."""


def computing_in(precision: str, device: str) -> AbstractContextManager[object]:
    """Return a context in which networks compute in ``bfloat16`` or ``single`` precision."""
    if precision == "single":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def choose_precision(
    network: Network, image: Tensor, device: str, *, clock: Callable[[], float] = time.perf_counter
) -> str:
    """Return the precision in which a step of training takes less time on this machine.

    CUDA says whether it computes in bfloat16. Processors are timed: many that lack the instructions accept
    bfloat16 and take 8 to 25 times as long. On any other device single precision is used.

    Parameters
    ----------
    network
        What is trained; it is left as it is.
    image
        A batch, ``(N, channels, rows, columns)``, on the device.
    device
        Where it is trained.
    clock
        Tells the seconds.

    Returns
    -------
    str
        ``bfloat16`` or ``single``.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        precision = "bfloat16" if torch.cuda.is_bf16_supported() else "single"
        logger.info("precision: %s, as the graphics processor says", precision)
    elif kind == "cpu":
        single, half = (
            _seconds(network, image[:TIMED_IMAGES], name, clock) for name in ("single", "bfloat16")
        )
        precision = "bfloat16" if half < WORTH_IT * single else "single"
        logger.info("precision: %s, bfloat16 takes %.2f times as long as single", precision, half / single)
    else:
        precision = "single"
        logger.info("precision: single on %s", kind)
    return precision


def _seconds(network: Network, image: Tensor, precision: str, clock: Callable[[], float]) -> float:
    """Return the time of a step on a copy of the network, after one that is not counted."""
    trial, times = copy.deepcopy(network).train(), []
    with torch.random.fork_rng(devices=[]):
        for _ in range(1 + TIMED_STEPS):
            started = clock()
            with computing_in(precision, "cpu"):
                maps = trial(image)
            sum(stage.float().square().mean() for stage in maps).backward()
            times.append(clock() - started)
    return median(times[1:])
