import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sct_deepspine.errors import WeightsError
from sct_deepspine.models.config import BCDUNetConfig, MCGUNetConfig
from sct_deepspine.models.networks import build_network
from sct_deepspine.models.pretrained import start_from_vgg16

WIDTHS = 64, 64, 128, 128, 256, 256, 256, 512, 512, 512
INDICES = 0, 2, 5, 7, 10, 12, 14, 17, 19, 21


@pytest.fixture(scope="module")
def vgg():
    """The first ten convolutions of a VGG-16, as torchvision names them, and what it sees of an image."""
    torch.manual_seed(0)
    layers, inputs = [], 3
    for index in range(22):
        if index in INDICES:
            outputs = WIDTHS[INDICES.index(index)]
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            inputs = outputs
        else:
            layers.append(nn.MaxPool2d(2) if index in (4, 9, 16) else nn.ReLU())
    return nn.Sequential(*layers, nn.ReLU())


@pytest.fixture(scope="module")
def weights(vgg, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save({f"features.{name}": value for name, value in vgg.state_dict().items()}, path)
    return path


def seen(network, image):
    """Return what the encoder and the first dense block make of an image."""
    x = image
    for stage in network.encoder:
        x = nn.functional.max_pool2d(stage(x), 2)
    return network.dense[0](x)


def test_the_encoder_sees_what_vgg_16_sees(vgg, weights):
    network = build_network(MCGUNetConfig(channels=1, in_channels=3))
    image = torch.randn(1, 3, 16, 24)
    with torch.no_grad():
        assert not torch.allclose(seen(network, image), vgg(image), atol=1e-4)
        start_from_vgg16(network, weights)
        torch.testing.assert_close(seen(network, image), vgg(image))


def test_a_grey_image_is_seen_as_one_in_colours(vgg, weights):
    network = build_network(MCGUNetConfig(channels=1, in_channels=1))
    start_from_vgg16(network, weights)
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(seen(network, image), vgg(image.repeat(1, 3, 1, 1)), atol=1e-5, rtol=1e-4)


def test_safetensors_are_read_too(vgg, tmp_path):
    path = tmp_path / "vgg16.safetensors"
    save_file({f"features.{name}": value for name, value in vgg.state_dict().items()}, path)
    network = build_network(MCGUNetConfig(channels=1, in_channels=3))
    start_from_vgg16(network, path)
    assert torch.equal(network.encoder[1][0].weight, vgg[5].weight)


@pytest.mark.parametrize(
    "config", [MCGUNetConfig(channels=1, in_channels=3, width=32), BCDUNetConfig(channels=1, width=64)]
)
def test_a_network_that_it_does_not_fit_is_refused(config, weights):
    with pytest.raises(WeightsError, match="MCGU-Net of width 64 only"):
        start_from_vgg16(build_network(config), weights)


def test_files_that_hold_something_else_are_refused(tmp_path):
    network = build_network(MCGUNetConfig(channels=1, in_channels=3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match="no such weights file"):
        start_from_vgg16(network, tmp_path / "lost.pth")
    (tmp_path / "text.pth").write_text("no weights", encoding="utf-8")
    with pytest.raises(WeightsError, match="can't be read"):
        start_from_vgg16(network, tmp_path / "text.pth")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="as torchvision names it"):
        start_from_vgg16(network, tmp_path / "other.pth")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="named weights"):
        start_from_vgg16(network, tmp_path / "list.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
