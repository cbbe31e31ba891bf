import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sct_deepspine.errors import DeviceError, WeightsError
from sct_deepspine.labeling.heatmaps import DiscCodec
from sct_deepspine.labeling.levels import DecodingParameters
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.models.backends.onnx import OnnxRuntime
from sct_deepspine.models.backends.torch import TorchRuntime
from sct_deepspine.models.config import HourglassConfig
from sct_deepspine.models.networks import build_network
from sct_deepspine.models.predictor import Predictor
from sct_deepspine.models.weights import SHIPPED, TrainedNetwork, graph_path, load_weights
from sct_deepspine.training.export import save_weights

LOCATE = HourglassConfig(channels=25, stacks=2, width=8, depth=2, stride=2)
REFINE = HourglassConfig(channels=25, stacks=1, width=8, depth=1, stride=4, attention=False)


def predictor(config, **codec):
    torch.manual_seed(0)
    network = build_network(config).train()
    with torch.no_grad():
        network(torch.randn(4, 1, 64, 64))  # so that the batch statistics are not the initial ones
    return Predictor(TorchRuntime(network.eval().half().float()), DiscCodec(config.stride, **codec), 1.5)


@pytest.fixture(scope="module")
def predictors():
    return {"locate": predictor(LOCATE), "refine": predictor(REFINE, sigma_cells=1.5)}


def trained(predictors):
    """Return networks as they are saved."""
    return {
        name: TrainedNetwork(p.runtime, {"kind": "discs"} | asdict(p.codec), p.pixel_mm)
        for name, p in predictors.items()
    }


@pytest.fixture(scope="module")
def saved(predictors, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, trained(predictors), {"name": "tiny", "licence": "MIT"})
    return path


@pytest.fixture
def copied(saved, tmp_path):
    """Weights that a test may corrupt."""
    shutil.copy(saved, tmp_path)
    shutil.copy(saved.with_suffix(".json"), tmp_path)
    return tmp_path / saved.name


def edit_card(path, change):
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    change(card)
    path.with_suffix(".json").write_text(json.dumps(card), encoding="utf-8")


def plane(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# Saving and loading


def test_networks_come_back_as_they_were_saved(predictors, saved):
    weights = load_weights(saved)
    assert weights.name == "tiny"
    assert weights.card["licence"] == "MIT"
    model = LabelingModel.load(weights)
    for name, loaded in (("locate", model.locate), ("refine", model.refine)):
        assert loaded.codec == predictors[name].codec
        assert loaded.pixel_mm == 1.5
        assert loaded.runtime.network.config == predictors[name].runtime.network.config
        assert not loaded.runtime.network.training
        assert not any(p.requires_grad for p in loaded.runtime.network.parameters())
        state = predictors[name].runtime.network.state_dict()
        for key, value in loaded.runtime.network.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                torch.testing.assert_close(value, state[key], rtol=0, atol=0)
        before, after = predictors[name].predict([plane(48, 32)])[0], loaded.predict([plane(48, 32)])[0]
        np.testing.assert_allclose(after.heat, before.heat, atol=1e-5)
        np.testing.assert_allclose(after.canal, before.canal, atol=1e-5)


def test_the_card_bears_the_files_fingerprint(saved):
    import hashlib

    weights = load_weights(saved)
    assert weights.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert weights.identity == {"name": "tiny", "sha256": weights.sha256}


def test_tensors_are_stored_in_half_precision_and_nothing_else(saved):
    assert {value.dtype for value in load_file(saved).values()} == {torch.float16}


def test_weights_may_hold_no_fine_network(predictors, tmp_path):
    path = tmp_path / "coarse.safetensors"
    save_weights(path, trained({"locate": predictors["locate"]}), {"name": "coarse"})
    assert LabelingModel.load(path).refine is None


def test_the_card_sets_the_parameters_and_the_minimum_score(predictors, tmp_path, saved):
    assert LabelingModel.load(saved).parameters == DecodingParameters()
    assert LabelingModel.load(saved).minimum_score == 0
    path = tmp_path / "warm.safetensors"
    card = {"name": "warm", "labeling": {"decoding": {"temperature": 2.5}, "minimum_score": 7}}
    save_weights(path, trained({"locate": predictors["locate"]}), card)
    assert LabelingModel.load(path).parameters == DecodingParameters(temperature=2.5)
    assert LabelingModel.load(path).minimum_score == 7


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("temperature", 0),
        ("temperature", float("nan")),
        ("omission_cost", "x"),
        ("level_weight", -1),
        ("max_step", 0),
        ("level_floor", 0.2),
        ("strange", 1),
    ],
)
def test_constants_that_can_t_be_worked_with_are_refused_by_name(constant, value, predictors, tmp_path):
    path = tmp_path / "odd.safetensors"
    card = {"name": "odd", "labeling": {"decoding": {constant: value}}}
    save_weights(path, trained({"locate": predictors["locate"]}), card)
    with pytest.raises(WeightsError, match=constant.replace("_", ".")):
        LabelingModel.load(path)


def test_a_card_of_format_1_is_read_as_it_was(predictors, tmp_path):
    path = tmp_path / "old.safetensors"
    save_weights(
        path, trained(predictors), {"name": "old", "decoding": {"temperature": 2.5}, "least_score": 7}
    )

    def age(card):
        card["format"] = 1
        for entry in card["networks"].values():
            del entry["network"]["kind"], entry["codec"]["kind"]

    edit_card(path, age)
    model = LabelingModel.load(path)
    assert model.parameters == DecodingParameters(temperature=2.5)
    assert model.minimum_score == 7
    assert model.refine is not None


def test_weights_of_another_task_are_refused_by_the_labelling(predictors, tmp_path):
    path = tmp_path / "other.safetensors"
    save_weights(path, trained({"masks": predictors["locate"]}), {"name": "other"})
    with pytest.raises(WeightsError, match=r"can't be used to label discs: they hold masks$"):
        LabelingModel.load(path)
    save_weights(path, trained({"segment": predictors["locate"]}), {"name": "other"})
    with pytest.raises(WeightsError, match="they hold segment: give them with -weights-masks"):
        LabelingModel.load(path)


@pytest.mark.skipif(not SHIPPED.is_file(), reason="no weights are shipped yet")
def test_the_shipped_weights_load():
    model = LabelingModel.load()
    assert model.locate.codec.channels == model.locate.runtime.config.channels
    assert model.parameters.temperature > 0


# ONNX copies


@pytest.fixture(scope="module")
def with_graphs(predictors, tmp_path_factory):
    path = tmp_path_factory.mktemp("graphs") / "tiny.safetensors"
    save_weights(path, trained(predictors), {"name": "tiny"}, onnx=True)
    return path


@pytest.mark.parametrize("shape", [(64, 48), (61, 47), (128, 16)])
@pytest.mark.parametrize("name", ["locate", "refine"])
def test_the_graph_predicts_what_the_tensors_predict(name, shape, with_graphs):
    by_torch = getattr(LabelingModel.load(with_graphs, device="cpu"), name)
    by_onnx = getattr(LabelingModel.load(with_graphs), name)
    assert (type(by_torch.runtime), type(by_onnx.runtime)) == (TorchRuntime, OnnxRuntime)
    planes = [plane(*shape), 2 * plane(*shape)]
    for one, other in zip(by_torch.predict(planes), by_onnx.predict(planes), strict=True):
        np.testing.assert_allclose(other.heat, one.heat, atol=2e-5)
        np.testing.assert_allclose(other.canal, one.canal, atol=2e-5)
    if name == "refine":
        assert by_onnx.attention(planes[0]) is None
    else:
        np.testing.assert_allclose(by_onnx.attention(planes[0]), by_torch.attention(planes[0]), atol=2e-5)


def test_weights_without_graphs_are_run_by_torch(saved):
    assert isinstance(load_weights(saved).networks["locate"].runtime, TorchRuntime)


def test_without_onnxruntime_torch_runs_the_networks(with_graphs):
    weights = load_weights(with_graphs, use_onnx=False)
    assert isinstance(weights.networks["locate"].runtime, TorchRuntime)


def test_the_tensors_are_verified_even_if_onnxruntime_runs_the_networks(with_graphs, tmp_path):
    for file in with_graphs.parent.iterdir():
        shutil.copy(file, tmp_path)
    path = tmp_path / with_graphs.name
    path.write_bytes(path.read_bytes() + b"x")
    refused(path, r"tiny\.safetensors is not the file its card describes")


def test_an_altered_or_missing_graph_is_noticed(with_graphs, tmp_path):
    for file in with_graphs.parent.iterdir():
        shutil.copy(file, tmp_path)
    path = tmp_path / with_graphs.name
    graph = graph_path(path, "locate")
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    refused(path, r"tiny\.locate\.onnx is not the file its card describes")
    graph.unlink()
    refused(path, r"no such weights file.*tiny\.locate\.onnx")


# What is refused


def refused(path, match, *, error=WeightsError, **options):
    with pytest.raises(error, match=match) as caught:
        load_weights(path, **options)
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_card_is_named(copied, tmp_path):
    refused(tmp_path / "lost.safetensors", r"no such weights file.*lost\.safetensors")
    copied.with_suffix(".json").unlink()
    refused(copied, r"no such weights file.*tiny\.json")


@pytest.mark.parametrize("place", [0, 7, 200, -1])
def test_an_altered_byte_is_noticed(place, copied):
    content = bytearray(copied.read_bytes())
    content[place] ^= 1
    copied.write_bytes(content)
    refused(copied, r"tiny\.safetensors is not the file its card describes")


def test_a_truncated_file_is_noticed(copied):
    copied.write_bytes(copied.read_bytes()[:-100])
    refused(copied, "not the file its card describes")


def test_a_file_that_is_no_safetensors_is_refused_even_if_its_card_vouches_for_it(copied):
    import hashlib

    copied.write_bytes(b"\x80\x04not tensors at all")
    sha256 = hashlib.sha256(copied.read_bytes()).hexdigest()
    edit_card(copied, lambda card: card.update(sha256=sha256))
    refused(copied, r"tiny\.safetensors can't be used")


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "3", "{}", '{"format": 1}', b"\xff\xfe\x00"])
def test_a_card_that_is_none_is_refused(text, copied):
    card = copied.with_suffix(".json")
    card.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(copied, r"tiny\.json is not a model card")


@pytest.mark.parametrize("key", ["format", "name", "sha256", "networks"])
def test_a_card_with_something_left_out_is_refused(key, copied):
    edit_card(copied, lambda card: card.pop(key))
    refused(copied, rf"not a model card.*{key}")


def test_a_card_of_another_format_is_refused(copied):
    edit_card(copied, lambda card: card.update(format=99))
    refused(copied, "format 99; this version reads 1 and 2")


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card["networks"]["locate"]["network"].update(width=16),
        lambda card: card["networks"]["locate"]["network"].update(stacks=3),
        lambda card: card["networks"]["locate"]["network"].update(attention=False),
        lambda card: card["networks"]["locate"]["network"].update(width=-8),
        lambda card: card["networks"]["locate"]["network"].update(wheels=4),
        lambda card: card["networks"]["locate"].pop("codec"),
        lambda card: card["networks"]["locate"].pop("pixel_mm"),
        lambda card: card["networks"].update(refine=card["networks"]["locate"]),
        lambda card: card["networks"]["locate"]["codec"].update(levels=11),
        lambda card: card["networks"]["locate"]["codec"].update(stride=4),
    ],
    ids=[
        *("width", "stacks", "attention", "negative width", "unknown setting", "no codec", "no pixel"),
        *("other network", "other number of maps", "other stride"),
    ],
)
def test_networks_that_do_not_fit_their_card_are_refused(change, copied):
    edit_card(copied, change)
    with pytest.raises(WeightsError, match=r"tiny.* can't be used"):
        LabelingModel.load(copied)


def test_a_missing_tensor_is_noticed(copied):
    import hashlib

    tensors = load_file(copied)
    tensors.pop("locate.scores.0.bias")
    save_file(tensors, copied)
    sha256 = hashlib.sha256(copied.read_bytes()).hexdigest()
    edit_card(copied, lambda card: card.update(sha256=sha256))
    refused(copied, r"can't be used.*scores\.0\.bias")


def test_a_device_that_does_not_exist_is_refused(copied):
    refused(copied, "can't be used", error=DeviceError, device="abacus")


# Rendering


@pytest.mark.parametrize("shape", [(64, 48), (61, 47), (1, 1), (3, 65)])
@pytest.mark.parametrize("name", ["locate", "refine"])
def test_planes_of_any_size_are_predicted_in_cells(name, shape, predictors):
    network = predictors[name]
    planes = [plane(*shape), 2 * plane(*shape)]
    maps = network.predict(planes)
    cells = tuple(-(-n // network.codec.stride) for n in shape)
    assert len(maps) == 2
    for each in maps:
        assert each.any_disc.shape == each.canal.shape == cells
        assert each.level.shape == (23, *cells)
        assert 0 <= each.any_disc.min() <= each.any_disc.max() <= 1
        np.testing.assert_allclose(each.level.sum(axis=0), 1, atol=1e-4)


def test_a_plane_is_read_as_if_nothing_but_the_outside_were_beyond_it(predictors):
    small = plane(29, 37)
    padded = np.pad(small, [(0, 3), (0, 3)])
    one, other = predictors["locate"].predict([small])[0], predictors["locate"].predict([padded])[0]
    np.testing.assert_allclose(one.heat, other.heat[:, :15, :19], atol=1e-6)


def test_the_last_stack_counts(predictors):
    network = predictors["locate"]
    image = torch.from_numpy(plane(32, 32))[None, None]
    with torch.no_grad():
        raw = network.runtime.network(image)[-1][0].numpy()
    np.testing.assert_allclose(
        network.predict([plane(32, 32)])[0].heat, network.codec.split(raw).heat, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(64, 48), (61, 47)])
def test_the_attention_map_is_on_the_same_cells(shape, predictors):
    attention = predictors["locate"].attention(plane(*shape))
    assert attention.shape == predictors["locate"].predict([plane(*shape)])[0].any_disc.shape
    assert 0 <= attention.min() < attention.max() <= 1


def test_a_network_without_attention_has_no_attention_map(predictors):
    assert predictors["refine"].attention(plane(64, 48)) is None


def test_looking_at_the_attention_leaves_no_hook_behind(predictors):
    network = predictors["locate"]
    network.attention(plane(32, 32))
    assert not network.runtime.network.attention._forward_hooks


def test_a_network_that_takes_three_channels_gets_the_plane_three_times():
    network = artist_of_three_channels()
    assert network.predict([plane(32, 32)])[0].any_disc.shape == (16, 16)


def artist_of_three_channels():
    torch.manual_seed(0)
    config = HourglassConfig(**asdict(LOCATE) | {"in_channels": 3})
    return Predictor(TorchRuntime(build_network(config).eval()), DiscCodec(2), 1.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_forked_child_labels_too(device, tmp_path):
    code = f"""
import os, sys, numpy as np
from sct_deepspine.models.weights import load_weights
networks = load_weights(device={device!r}).networks
planes = np.zeros((1, 64, 64), np.float32)
run = lambda: [network.runtime.run(planes).shape for network in networks.values()]
before = run()
child = os.fork()
if not child:
    os._exit(0 if run() == before else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False)
    assert done.returncode == 0
