"""Version, citation, changes and model card are in step."""

import configparser
import re
import runpy
from pathlib import Path

import pytest

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


def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def lines_of(text):
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.fixture
def check_release():
    """Return what the release's workflow calls."""
    return runpy.run_path(str(ROOT / ".github" / "check_release.py"))["problems"]


@pytest.fixture
def released(tmp_path):
    """A project whose version is 1.2.3 everywhere."""
    (tmp_path / "sct_deepspine").mkdir()
    (tmp_path / "sct_deepspine" / "_version.py").write_text('__version__ = "1.2.3"\n', encoding="utf-8")
    (tmp_path / "CHANGES.md").write_text("# Changes\n\n## 1.2.3 (2027-01-31)\n", encoding="utf-8")
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 1.2.3\ndate: x\n", encoding="utf-8")
    return tmp_path


def test_a_tag_of_the_version_may_be_released(check_release, released):
    assert check_release("v1.2.3", released) == []


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("CHANGES.md", "## 1.2.3 (unreleased)\n", "CHANGES.md has no dated entry of 1.2.3"),
        ("CHANGES.md", "## 1x2.3 (2027-01-31)\n", "CHANGES.md has no dated entry of 1.2.3"),
        ("CITATION.cff", "version: 1.2.30\n", "CITATION.cff is not of 1.2.3"),
    ],
)
def test_what_is_not_in_step_stops_a_release(file, text, told, check_release, released):
    (released / file).write_text(f"\n{text}", encoding="utf-8")
    assert check_release("v1.2.3", released) == [told]


def test_another_tag_stops_a_release(check_release, released):
    assert check_release("1.2.3", released) == ["the tag is 1.2.3, the version 1.2.3"]
    assert check_release("v1.2.4", released) == ["the tag is v1.2.4, the version 1.2.3"]


def test_the_conda_recipe_is_of_this_version_and_needs_and_installs_the_same():
    recipe = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    assert f'"SCT_DEEPSPINE_VERSION", "{sct_deepspine.__version__}"' in recipe
    metadata = setup_cfg()
    run = recipe.partition("  run:\n")[2].partition("\n\n")[0]
    needed = {line.removeprefix("- ").replace("matplotlib-base", "matplotlib") for line in lines_of(run)}
    python = f"python {metadata['options']['python_requires']}"
    assert needed == {
        python,
        *(n.replace(">=", " >=") for n in lines_of(metadata["options"]["install_requires"])),
    }
    for script in lines_of(metadata["options.entry_points"]["console_scripts"]):
        assert f"    - {script}\n" in recipe


def test_the_conda_recipe_needs_the_fingerprint_of_the_sdist():
    """Rendered as conda-build does at last: what is not defined is an error."""
    jinja2 = pytest.importorskip("jinja2")
    text = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    recipe = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(text)
    with pytest.raises(jinja2.UndefinedError, match="SDIST_SHA256"):
        recipe.render(environ={"SDIST_URL": "file:///x.tar.gz"}, PYTHON="python")
    rendered = recipe.render(environ={"SDIST_SHA256": "ab" * 32}, PYTHON="python")
    assert f"  sha256: {'ab' * 32}\n" in rendered
    assert f"sct_deepspine-{sct_deepspine.__version__}.tar.gz" in rendered


def test_no_extra_asks_for_less_than_another():
    """A library has one lower bound, wherever it is named."""
    bounds = {}
    options = setup_cfg()
    for text in (options["options"]["install_requires"], *options["options.extras_require"].values()):
        for line in lines_of(text):
            name, _, bound = line.partition(";")[0].partition(">=")
            assert bounds.setdefault(name.strip(), bound.strip()) == bound.strip(), line
