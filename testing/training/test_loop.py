from dataclasses import replace

import numpy as np
import pytest
import torch

from sct_deepspine.labeling.heatmaps import DiscCodec
from sct_deepspine.models.config import HourglassConfig
from sct_deepspine.training.dataset import PlaneSettings, RandomPlanes
from sct_deepspine.training.loop import Checkpoint, TrainingConfig, rate_factor, train
from sct_deepspine.training.loss import disc_map_loss
from sct_deepspine.training.roles import ROLES, DiscTask, task_from_dict

CODEC = DiscCodec(stride=2)
TINY = HourglassConfig(channels=CODEC.channels, stacks=2, width=8, depth=2)
PLANES = PlaneSettings(shape=(64, 32), pixel_mm=4.0)
TASK = DiscTask(PLANES, CODEC)


def planes_of(scan, settings=PLANES, **options):
    return RandomPlanes([scan], CODEC, settings, **{"length": 6, "seed": 3} | options)


def config(**changes):
    return replace(
        TrainingConfig(
            TINY, TASK.as_dict(), batch=2, steps=4, evaluate_every=100, workers=0, precision="single"
        ),
        **changes,
    )


def test_every_schedule_warms_up():
    for schedule in ("cosine", "step", "constant"):
        run = config(schedule=schedule, steps=10_000, learning_rate=0.01)
        rates = [0.01 * rate_factor(run, step) for step in range(200)]
        assert (np.diff(rates) > 0).all()
        assert rates[0] == pytest.approx(0.01 / 200, rel=0.02)
        assert rates[-1] == pytest.approx(0.01, rel=0.02)


def test_schedules_fall_as_their_names_say():
    def rates(schedule):
        run = config(schedule=schedule, steps=10_000, learning_rate=0.01)
        return np.array([0.01 * rate_factor(run, step) for step in range(200, 10_000)])

    np.testing.assert_allclose(rates("constant"), 0.01)
    assert (np.diff(rates("cosine")) < 0).all()
    assert rates("cosine")[4800] == pytest.approx(0.005, rel=0.02)
    assert 0 < rates("cosine")[-1] < 1e-4
    step = rates("step")
    np.testing.assert_allclose(step[:4800], 0.01)
    np.testing.assert_allclose(step[4800:7300], 0.001)
    np.testing.assert_allclose(step[7300:], 0.0001)


@pytest.mark.parametrize("role", ROLES)
def test_a_configuration_comes_back_from_its_json(role):
    whole = TrainingConfig(
        replace(TINY, attention=False),
        ROLES[role].as_dict(),
        optimiser="rmsprop",
        schedule="step",
        learning_rate=2.5e-4,
        seed=7,
    )
    back = TrainingConfig.from_json(whole.to_json())
    assert replace(back, task={}) == replace(whole, task={})
    assert task_from_dict(back.task) == ROLES[role]


def test_a_mask_run_from_before_neighbours_were_seen_is_read_as_it_was():
    task = task_from_dict({"sheets": {"shape": [160, 112], "composite_share": 0.0}})
    assert (task.in_channels, task.planes.group_power) == (1, 0.35)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"optimiser": "sgd"}, "adamw, adam, rmsprop, got sgd"), ({"schedule": "linear"}, "got linear")],
)
def test_a_configuration_that_makes_no_run_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config(**change)


def no_evaluation(network, step, folder):
    """Score a network by nothing."""
    return {"score": float(step)}


class PowerCutError(Exception):
    """Stands for a machine that goes down."""


def interrupt(network, step, folder):
    raise PowerCutError


def run_training(scan, run, folder, **options):
    folder.mkdir(exist_ok=True)

    def planes(start, length):
        return planes_of(scan, seed=run.seed, start=start, length=length, batch=run.batch)

    return train(planes, run, folder, loss=disc_map_loss, **options)


def weights_of(state):
    average = {f"average {name}": value for name, value in state.averaged.state_dict().items()}
    return state.network.state_dict() | average


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "rmsprop"])
def test_a_run_that_was_interrupted_goes_on_exactly(optimiser, phantom, tmp_path):
    run = config(optimiser=optimiser, checkpoint_minutes=0.0, learning_rate=0.05)
    whole = run_training(phantom, run, tmp_path / "whole", evaluate=no_evaluation)
    with pytest.raises(PowerCutError):
        run_training(phantom, replace(run, evaluate_every=3), tmp_path / "part", evaluate=interrupt)
    resumed = Checkpoint.start(run)
    resumed.load(tmp_path / "part" / "last.safetensors")
    assert resumed.step == 2
    resumed = run_training(phantom, run, tmp_path / "part", evaluate=no_evaluation, resume=True)
    assert resumed.step == whole.step == 4
    for (name, one), other in zip(weights_of(whole).items(), weights_of(resumed).values(), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0, msg=name)
    begun = Checkpoint.start(run)
    assert not torch.equal(begun.network.scores[0].weight, whole.network.scores[0].weight)


def test_the_same_seed_gives_the_same_network_and_another_another(phantom, tmp_path):
    one, same, other = (
        run_training(phantom, config(seed=s, steps=2), tmp_path / str(n), evaluate=no_evaluation)
        for n, s in enumerate((1, 1, 2))
    )
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(same.network.state_dict()[name], value, rtol=0, atol=0)
    assert not torch.equal(one.network.scores[0].weight, other.network.scores[0].weight)


def test_a_checkpoint_comes_back_whole(phantom, tmp_path):
    run = config(steps=2)
    state = run_training(phantom, run, tmp_path, evaluate=no_evaluation)
    state.save(tmp_path / "copy.safetensors")
    back = Checkpoint.start(replace(run, seed=99))
    back.load(tmp_path / "copy.safetensors")
    assert (back.step, back.best) == (2, 2.0)
    for (name, one), other in zip(weights_of(state).items(), weights_of(back).values(), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0, msg=name)
    ours, theirs = state.optimiser.state_dict()["state"], back.optimiser.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for index, values in ours.items():
        for name, value in values.items():
            torch.testing.assert_close(theirs[index][name], value, rtol=0, atol=0)
    assert not list(tmp_path.glob("*.partial"))


def test_the_best_state_is_kept_and_every_evaluation_logged(phantom, tmp_path):
    scores = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.2}

    def evaluation(network, step, folder):
        assert not network.training
        return {"score": scores[step]}

    run = config(evaluate_every=1)
    state = run_training(phantom, run, tmp_path, evaluate=evaluation)
    best = Checkpoint.start(run)
    best.load(tmp_path / "best.safetensors")
    assert (best.step, best.best, state.best) == (2, 0.9, 0.9)
    lines = (tmp_path / "log.csv").read_text(encoding="utf-8").split()
    assert lines[0] == "step,loss,score"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert (
        TrainingConfig.from_json((tmp_path / "config.json").read_text(encoding="utf-8")).network
        == run.network
    )


def test_the_average_follows_the_network():
    state = Checkpoint.start(config())
    torch.testing.assert_close(state.averaged.state_dict(), state.network.state_dict())
    before = state.averaged.scores[0].bias.clone()
    state.average.n_averaged.fill_(10)
    with torch.no_grad():
        state.network.scores[0].bias += 1
    state.average.update_parameters(state.network)
    moved = state.averaged.scores[0].bias - before
    np.testing.assert_allclose(moved.detach(), 1 - 11 / 20, rtol=1e-5)


def test_a_few_steps_lower_the_loss(phantom, tmp_path):
    run = config(steps=30, evaluate_every=10, learning_rate=0.3, batch=4)
    run_training(phantom, run, tmp_path, evaluate=no_evaluation)
    losses = [
        float(line.split(",")[1]) for line in (tmp_path / "log.csv").read_text(encoding="utf-8").split()[1:]
    ]
    assert losses[-1] < 0.8 * losses[0]
