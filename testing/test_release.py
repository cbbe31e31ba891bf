"""Version, citation, changes and model card are in step."""

import re
from pathlib import Path

import sct_deepspine
from sct_deepspine.models.weights import load_weights
from sct_deepspine.segmentation.model import SHIPPED_MASKS

ROOT = Path(__file__).parents[1]


def test_the_citation_has_the_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, re.M).group(1) == sct_deepspine.__version__


def test_the_newest_changes_are_of_this_version_and_dated_as_the_citation():
    newest = re.search(
        r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGES.md").read_text(encoding="utf-8"), re.M
    )
    assert newest.group(1) == sct_deepspine.__version__
    released = re.search(r"^date-released: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert newest.group(2) == released.group(1)


def test_the_model_card_tells_the_parameters_of_the_shipped_networks():
    text = (ROOT / "docs" / "model_card.md").read_text(encoding="utf-8")
    shipped = load_weights(device="cpu"), load_weights(SHIPPED_MASKS, device="cpu")
    for network in (network for weights in shipped for network in weights.networks.values()):
        count = sum(p.numel() for p in network.runtime.network.parameters())
        assert f"{count:,}" in text


def test_the_project_speaks_of_its_own_folders_only():
    for path in [*ROOT.glob("sct_deepspine/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]:
        assert not re.search(r"/(work|tmp|root|home)/", path.read_text(encoding="utf-8")), path
