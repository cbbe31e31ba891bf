"""Compare U-Net, BCDU-Net and MCGU-Net on a folder of images and masks, at equal width and equal steps.

Every network is trained on the same split with the same seeds and scored on the test subjects::

    python testing/benchmarks/bench_masks.py FOLDER -ofolder RUNS [-steps N] [-width W] [-patch N]

A finished run is not repeated, so that the command can be interrupted. The table is printed in Markdown. With
several seeds measures are means over the seeds, and intervals those of each image's mean F1. The split is
that of -split-seed whatever the seed, so that all networks see the same subjects.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

NETWORKS = {
    "U-Net": ("unet", {}),
    "BCDU-Net d = 1": ("bcdunet", {"dense": 1}),
    "BCDU-Net d = 3": ("bcdunet", {"dense": 3}),
    "MCGU-Net d = 3": ("mcgunet", {"dense": 3}),
}
MEASURES = "f1", "sensitivity", "specificity", "accuracy", "precision", "jaccard", "auc"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-ofolder", type=Path, required=True)
    parser.add_argument("-steps", type=int, default=600)
    parser.add_argument("-width", type=int, default=8)
    parser.add_argument("-batch", type=int, default=8)
    parser.add_argument("-patch", type=int)
    parser.add_argument("-stride", type=int)
    parser.add_argument("-subject")
    parser.add_argument("-lr", type=float, default=1e-3)
    parser.add_argument("-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("-split-seed", type=int, default=0)
    parser.add_argument("-split", type=Path)
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        for name, kind, options in variants():
            folder = arguments.ofolder / f"{kind}_{'_'.join(map(str, options.values()))}_seed{seed}"
            result = folder / "result.json"
            if not result.is_file():
                result.write_text(
                    json.dumps(measure(folder, name, kind, options, seed, arguments)), encoding="utf-8"
                )
            rows.append(json.loads(result.read_text(encoding="utf-8")))
    print(table(rows))


def variants() -> list[tuple[str, str, dict[str, int]]]:
    found = []
    for name, (kind, options) in NETWORKS.items():
        directions = [{"directions": n} for n in (1, 2)] if kind != "unet" else [{}]
        found += [(name, kind, options | more) for more in directions]
    return found


def measure(folder: Path, name: str, kind: str, options: dict, seed: int, arguments) -> dict:
    """Train and score one network; seconds per step are the median time from one loss to the next."""
    from sct_deepspine.models.config import KINDS
    from sct_deepspine.models.networks import build_network
    from sct_deepspine.recipes.evaluation import score_pairs
    from sct_deepspine.recipes.folders import find_cases
    from sct_deepspine.recipes.loss import mask_loss
    from sct_deepspine.recipes.prediction import MaskModel
    from sct_deepspine.recipes.run import prepare_run, train_masks
    from sct_deepspine.recipes.scores import summarise
    from sct_deepspine.training.loop import TrainingConfig

    run = prepare_run(
        arguments.folder,
        split=arguments.split,
        subject=arguments.subject,
        patch=arguments.patch,
        seed=arguments.split_seed,
    )
    network = KINDS[kind](
        channels=run.task.codec.channels, in_channels=run.task.in_channels, width=arguments.width, **options
    )
    config = TrainingConfig(
        network,
        learning_rate=arguments.lr,
        batch=arguments.batch,
        steps=arguments.steps,
        evaluate_every=max(1, arguments.steps // 4),
        workers=0,
        seed=seed,
    )
    times: list[float] = []

    def timed_loss(stacks, batch):
        times.append(time.perf_counter())
        return mask_loss(stacks, batch)

    weights = train_masks(run, config, folder, loss=timed_loss)
    cases = run.split.cases(find_cases(arguments.folder, subject=arguments.subject), "test")
    model = MaskModel.load(weights)
    scores = [s for found, _ in score_pairs(model, cases, stride=arguments.stride) for s in found]
    return {
        "network": name,
        "directions": options.get("directions"),
        "seed": seed,
        "parameters": sum(p.numel() for p in build_network(network).parameters()),
        "seconds": float(np.median(np.diff(times))),
        "summary": asdict(summarise(scores)[0]),
        "f1": {score.name: float(score.measures["f1"]) for score in scores},
        "subjects": {score.name: score.subject for score in scores},
    }


def table(rows: list[dict]) -> str:
    """Return the comparison in Markdown: F1 of the images, and all measures over all pixels."""
    first = [
        "| network | directions | parameters | seconds per step | F1 of an image | difference to U-Net |"
    ]
    second = [
        "| network | directions | F1 | sensitivity | specificity | accuracy | precision | Jaccard | AUC |"
    ]
    first.append("|---|---|---|---|---|---|")
    second.append("|---|---|---|---|---|---|---|---|---|")
    base: dict[str, float] = {}
    for key in dict.fromkeys((row["network"], row["directions"]) for row in rows):
        own = [row for row in rows if (row["network"], row["directions"]) == key]
        subjects = own[0]["subjects"]
        each = {n: float(np.mean([row["f1"][n] for row in own])) for n in subjects}
        base = base or each
        less = {n: each[n] - base[n] for n in each}
        names = [key[0], str(key[1] or "")]
        cells = [f"{own[0]['parameters']:,}", f"{np.median([row['seconds'] for row in own]):.2f}"]
        cells += [interval(each, subjects), interval(less, subjects, signed=True) if len(first) > 2 else ""]
        first.append("| " + " | ".join([*names, *cells]) + " |")
        pooled = [np.mean([row["summary"]["pooled"][n] for row in own]) for n in MEASURES]
        second.append("| " + " | ".join([*names, *(f"{value:.3f}" for value in pooled)]) + " |")
    return "\n".join([*first, "", *second])


def interval(values: dict[str, float], subjects: dict[str, str], *, signed: bool = False) -> str:
    """Return the mean over images with its bootstrap interval over subjects."""
    from sct_deepspine.evaluation.resampling import mean_interval

    names = list(values)
    each, own = [values[name] for name in names], [subjects[name] for name in names]
    low, high = mean_interval(each, own, generator=np.random.default_rng(0))
    mean, form = np.mean(each), "+.3f" if signed else ".3f"
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


if __name__ == "__main__":
    main()
