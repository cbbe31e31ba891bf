"""Where a step of training goes, and what precision, memory layout and threads change of it, in one run.

    python testing/benchmarks/bench_training.py [-width 16] [-side 64] [-batch 12] [-steps 8]

With ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 in the environment, torch computes as on a processor
without instructions for bfloat16. "last images" is what the loop does: images with channels last, weights as
they were built. Variants take turns, so that other work strikes all of them alike; medians are printed.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import defaultdict
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import nn

from sct_deepspine.models.config import UNetConfig
from sct_deepspine.recipes.dataset import MaskSlices, slices_of
from sct_deepspine.recipes.folders import Sample
from sct_deepspine.recipes.loss import mask_loss
from sct_deepspine.recipes.task import MaskCodec, MaskTask, Standardisation
from sct_deepspine.training.loop import MAX_GRADIENT, Checkpoint, TrainingConfig
from sct_deepspine.training.precision import computing_in

STAGES = "data", "forward", "loss", "backward", "clip", "optimiser", "average"


@dataclass(frozen=True)
class Variant:
    """What is compared."""

    precision: str
    layout: str
    threads: int

    def __str__(self) -> str:
        return f"{self.precision:9} {self.layout:13} {self.threads} threads"


def stack_batch(items: MaskSlices, number: int, batch: int) -> dict[str, torch.Tensor]:
    """Make a batch as the loop does without worker processes."""
    drawn = [items[number * batch + index] for index in range(batch)]
    return {name: torch.stack([item[name] for item in drawn]) for name in drawn[0]}


def timed_step(state: Checkpoint, items: MaskSlices, number: int, batch_size: int, variant: Variant):
    """Train one step; return the milliseconds of each stage."""
    torch.set_num_threads(variant.threads)
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    batch = stack_batch(items, number, batch_size)
    mark()
    form = torch.contiguous_format if variant.layout == "contiguous" else torch.channels_last
    with computing_in(variant.precision, "cpu"):
        maps = state.network(batch["image"].to(memory_format=form))
    mark()
    value = mask_loss(maps, batch)
    mark()
    state.optimiser.zero_grad(set_to_none=True)
    value.backward()
    mark()
    nn.utils.clip_grad_norm_(state.network.parameters(), MAX_GRADIENT)
    mark()
    state.optimiser.step()
    mark()
    state.average.update_parameters(state.network)
    mark()
    return dict(zip(STAGES, 1000 * np.diff(marks), strict=True))


def main() -> None:
    """Print a table of milliseconds per step."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("-width", 16), ("-side", 64), ("-batch", 12), ("-steps", 8)):
        parser.add_argument(name, type=int, default=default)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    image = rng.normal(100, 20, (1, 1, arguments.side, arguments.side))
    sample = Sample("one", "one", image, 255 * (image[:, 0] > 110))
    task = MaskTask(MaskCodec((0, 255)), Standardisation.fit("training", [sample]))
    items = MaskSlices(
        slices_of([sample], task), task, seed=0, length=arguments.batch * (arguments.steps + 1)
    )
    config = TrainingConfig(UNetConfig(channels=1, width=arguments.width), batch=arguments.batch)
    layouts = "contiguous", "last images", "channels last"
    variants = [Variant(*v) for v in itertools.product(("single", "bfloat16"), layouts, (1, 2))]
    states = {variant: Checkpoint.start(config) for variant in variants}
    for variant, state in states.items():
        form = torch.channels_last if variant.layout == "channels last" else torch.contiguous_format
        state.network.to(memory_format=form).train()
    times: dict[Variant, list[dict[str, float]]] = defaultdict(list)
    for number in range(arguments.steps + 1):
        for variant in variants:
            times[variant].append(timed_step(states[variant], items, number, arguments.batch, variant))
    print(f"{'ms a step':33} {'all':>7}", *(f"{stage:>9}" for stage in STAGES))
    for variant, each in times.items():
        counted = each[1:]
        total = median(sum(step.values()) for step in counted)
        print(
            f"{variant!s:33} {total:7.0f}", *(f"{median(s[stage] for s in counted):9.1f}" for stage in STAGES)
        )


if __name__ == "__main__":
    main()
