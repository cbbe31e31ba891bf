from dataclasses import replace

import pytest
import torch

from sct_deepspine.errors import DeviceError
from sct_deepspine.models.config import PAPER, HourglassConfig, config_as_dict, config_from_dict
from sct_deepspine.models.hourglass import AttentionHourglass, StackedHourglass
from sct_deepspine.models.networks import build_network, usable_device

TINY = HourglassConfig(channels=5, stacks=2, width=8, depth=2, stride=2)


def seeded(config):
    torch.manual_seed(0)
    return build_network(config)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("stacks", "attention", "count"),
    [
        (1, True, 3_620_931),
        (1, False, 3_585_675),
        (2, True, 6_795_086),
        (2, False, 6_727_062),
        (4, True, 13_143_396),
        (4, False, 13_009_836),
    ],
)
def test_the_published_configuration_has_the_published_number_of_parameters(stacks, attention, count):
    with torch.device("meta"):
        network = build_network(replace(PAPER, stacks=stacks, attention=attention))
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_preset_is_the_paper_with_two_stacks_and_attention():
    assert (PAPER.stacks, PAPER.attention, PAPER.stride, PAPER.width, PAPER.channels) == (2, True, 4, 256, 11)


# The contract of both networks


@pytest.mark.parametrize("attention", [True, False], ids=["attention", "plain"])
@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("stacks", [1, 2, 3])
class TestBothNetworks:
    def test_every_stack_draws_every_map_at_the_stride(self, attention, stride, stacks):
        config = replace(TINY, attention=attention, stride=stride, stacks=stacks, in_channels=3)
        network = seeded(config).eval()
        step = config.multiple
        for rows, columns in ((1, 1), (2, 1), (1, 3), (4, 3)):
            maps = network(noise(2, 3, rows * step, columns * step))
            assert len(maps) == stacks
            assert {tuple(m.shape) for m in maps} == {(2, 5, rows * step // stride, columns * step // stride)}

    def test_the_gradient_reaches_every_parameter(self, attention, stride, stacks):
        network = seeded(replace(TINY, attention=attention, stride=stride, stacks=stacks)).train()
        maps = network(noise(3, 1, 2 * network.config.multiple, 3 * network.config.multiple))
        sum((m * noise(*m.shape)).sum() for m in maps).backward()
        unreached = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        # A bias before a batch normalisation can't matter: it is subtracted again.
        assert [name for name in unreached if not name.endswith(".bias")] == []
        assert all(p.grad is not None for p in network.parameters())

    def test_shapes_that_do_not_fit_are_refused_with_the_multiple(self, attention, stride, stacks):
        network = seeded(replace(TINY, attention=attention, stride=stride, stacks=stacks))
        step = stride * 2**TINY.depth
        assert network.config.multiple == step
        for rows, columns in ((step + stride, step), (step, step + 1), (step // 2, step)):
            with pytest.raises(ValueError, match=rf"multiples of {step}, got \({rows}, {columns}\)"):
                network(noise(1, 1, rows, columns))
        for shape in ((step, step), (1, step, step), (1, 2, step, step)):
            with pytest.raises(ValueError, match=r"expected \(N, 1, H, W\), got"):
                network(noise(*shape))

    def test_planes_of_a_batch_do_not_mix(self, attention, stride, stacks):
        network = seeded(replace(TINY, attention=attention, stride=stride, stacks=stacks)).eval()
        batch = noise(3, 1, 32, 48)
        together, alone = network(batch), network(batch[1:2])
        for all_maps, one in zip(together, alone, strict=True):
            torch.testing.assert_close(all_maps[1:2], one)

    def test_it_is_built_again_from_the_plain_numbers_of_its_configuration(self, attention, stride, stacks):
        config = replace(TINY, attention=attention, stride=stride, stacks=stacks)
        network = build_network(config_from_dict(config_as_dict(config)))
        assert network.config == config
        assert type(network) is (AttentionHourglass if attention else StackedHourglass)
        network.load_state_dict(seeded(config).state_dict())


# Attention


def attention_of(network, image, replacement=None):
    """Run a network and return its maps and its attention map, which may be replaced on the way."""
    seen = []

    def look(_module, _inputs, output):
        seen.append(output)
        return replacement(output) if replacement else None

    hook = network.attention.register_forward_hook(look)
    with torch.no_grad():
        maps = network(image)
    hook.remove()
    return maps, seen[0]


@pytest.mark.parametrize("stacks", [1, 2, 3])
def test_the_attention_is_one_map_between_zero_and_one(stacks):
    network = seeded(replace(TINY, stacks=stacks)).eval()
    _, attention = attention_of(network, 30 * noise(2, 1, 32, 48))
    assert attention.shape == (2, 1, 16, 24)
    assert attention.min() >= 0
    assert attention.max() <= 1
    assert attention.std() > 0


@pytest.mark.parametrize("stacks", [1, 2, 3])
def test_the_attention_gates_the_last_stack_and_no_other(stacks):
    network, image = seeded(replace(TINY, stacks=stacks)).eval(), noise(2, 1, 32, 48)
    before, _ = attention_of(network, image)
    after, _ = attention_of(network, image, lambda attention: 1 - attention)
    for one, other in zip(before[:-1], after[:-1], strict=True):
        torch.testing.assert_close(one, other)
    assert (before[-1] - after[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("stacks", [1, 3])
def test_the_last_maps_are_drawn_from_the_last_features_times_the_attention(stacks):
    network, image = seeded(replace(TINY, stacks=stacks)).eval(), noise(1, 1, 32, 48)
    features = []
    hook = network.stacks[-1].register_forward_hook(lambda _m, _i, output: features.append(output))
    maps, attention = attention_of(network, image)
    hook.remove()
    with torch.no_grad():
        torch.testing.assert_close(maps[-1], network.scores[-1](features[0] * attention))


def test_where_attention_is_zero_nothing_but_the_bias_is_drawn():
    network, image = seeded(TINY).eval(), noise(1, 1, 32, 48)
    maps, _ = attention_of(network, image, torch.zeros_like)
    bias = network.scores[-1].bias.detach()
    torch.testing.assert_close(maps[-1], bias[:, None, None].expand(1, 5, 16, 24))


def test_the_attention_sees_the_features_of_every_stack():
    network, image = seeded(replace(TINY, stacks=3)).eval(), noise(1, 1, 32, 48)
    features = [noise(1, 8, 16, 24) for _ in range(3)]
    whole = network.attention(features)
    for index in range(3):
        changed = [f + (i == index) for i, f in enumerate(features)]
        assert (network.attention(changed) - whole).abs().max() > 1e-6
    assert attention_of(network, image)[1].shape == whole.shape


# Configuration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 3}, "stride must be 2 or 4, got 3"),
        ({"width": 10}, "width must be a multiple of 4, got 10"),
        ({"stacks": 0}, "stacks must be at least 1, got 0"),
        ({"blocks": -1}, "blocks must be at least 1, got -1"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
    ],
)
def test_a_configuration_that_makes_no_network_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize(("blocks", "depth"), [(2, 1), (1, 3), (3, 2)])
def test_more_blocks_and_depth_make_a_larger_network_of_the_same_contract(blocks, depth):
    config = replace(TINY, blocks=blocks, depth=depth)
    network = seeded(config).eval()
    rows, columns = config.multiple, 2 * config.multiple
    assert network(noise(1, 1, rows, columns))[-1].shape == (1, 5, rows // 2, columns // 2)
    smaller = seeded(replace(TINY, blocks=1, depth=1))
    assert sum(p.numel() for p in network.parameters()) > sum(p.numel() for p in smaller.parameters())


def test_a_device_that_does_not_exist_is_refused_in_one_line():
    with pytest.raises(DeviceError, match=r"nowhere.*cpu always can") as caught:
        usable_device("nowhere")
    assert "\n" not in str(caught.value)
    assert usable_device("cpu").type == "cpu"
