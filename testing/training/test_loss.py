import torch

from sct_deepspine.labeling.heatmaps import NO_LEVEL, DiscCodec
from sct_deepspine.training.loss import disc_map_loss

CODEC = DiscCodec(stride=2)


def target(**changes):
    shape = 1, 8, 6
    batch = {
        "any_disc": torch.zeros(shape),
        "any_known": torch.ones(shape),
        "level": torch.zeros(shape, dtype=torch.int64),
        "canal": torch.zeros(shape),
        "canal_known": torch.ones(shape),
    }
    batch["any_disc"][0, 3, 2] = batch["canal"][0, :, 1] = 1.0
    batch["level"][0, 3, 2] = 7
    for name, (index, value) in changes.items():
        batch[name][index] = value
    return batch


def raw_maps(seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, CODEC.channels, 8, 6, generator=generator).requires_grad_(requires_grad)


def test_unknown_cells_have_no_part_in_the_loss():
    unknown = (0, slice(5, 8), slice(3, 6))
    batch = target(any_known=(unknown, 0.0), canal_known=(unknown, 0.0))
    maps = raw_maps(requires_grad=True)
    loss = disc_map_loss([maps], batch)
    loss.backward()
    assert not maps.grad[0, :, 5:8, 3:6].any()
    assert maps.grad[0, CODEC.levels, :5].all()
    changed = maps.detach().clone()
    changed[0, :, 5:8, 3:6] = 100.0
    torch.testing.assert_close(disc_map_loss([changed], batch), loss.detach())


def test_a_disc_in_an_unknown_cell_does_not_teach_its_level():
    maps = raw_maps(requires_grad=True)
    disc_map_loss([maps], target(any_known=((0, 3, 2), 0.0))).backward()
    assert not maps.grad[:, : CODEC.levels].any()


def test_levels_count_only_at_discs():
    maps = raw_maps(requires_grad=True)
    disc_map_loss([maps], target()).backward()
    where = maps.grad[0, : CODEC.levels].abs().sum(0) > 0
    assert where.nonzero().tolist() == [[3, 2]]


def test_nothing_known_is_no_loss():
    everywhere = (slice(None), 0.0)
    batch = target(any_known=everywhere, canal_known=everywhere)
    assert disc_map_loss([raw_maps()], batch).item() == 0


def perfect():
    maps = torch.full((1, CODEC.channels, 8, 6), -12.0)
    maps[0, CODEC.levels, 3, 2] = maps[0, 7, 3, 2] = 12.0
    maps[0, CODEC.levels + 1, :, 1] = 12.0
    return maps


def test_right_maps_cost_least_and_every_stack_counts():
    good, batch = disc_map_loss([perfect()], target()), target()
    for corrupt in (CODEC.levels, CODEC.levels + 1, 7):
        wrong = perfect()
        wrong[0, corrupt, 3, 2] *= -1
        assert disc_map_loss([wrong], batch) > good + 0.05
    assert disc_map_loss([perfect(), raw_maps()], batch) > good + disc_map_loss([raw_maps()], batch) - 1e-5


def test_a_level_that_is_not_known_costs_nothing():
    shape = (1, 4, 4)
    batch = {
        "any_disc": torch.ones(shape),
        "any_known": torch.ones(shape),
        "level": torch.full(shape, NO_LEVEL),
        "canal": torch.zeros(shape),
        "canal_known": torch.zeros(shape),
    }
    maps = torch.zeros(1, 25, 4, 4)
    other = maps.clone()
    other[:, :23] = torch.arange(23.0)[None, :, None, None]
    assert disc_map_loss([maps], batch) == disc_map_loss([other], batch)
    batch["level"] = torch.full(shape, 3)
    assert disc_map_loss([maps], batch) != disc_map_loss([other], batch)
