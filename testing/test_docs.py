import html
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BUILD = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("distributed", "onnx", "safetensors", "skimage", "sklearn", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""
"""As Read the Docs builds the pages: with nothing but the extra ``docs``."""

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="Sphinx reads bool_ as a link")
def test_the_pages_are_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "_generated"))
    script = tmp_path / "build.py"
    script.write_text(BUILD, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, "-W", "-q", tmp_path / "docs", tmp_path / "html"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "MANDATORY ARGUMENTS" in (tmp_path / "html" / "cli.html").read_text(encoding="utf-8")
    options = html.unescape((tmp_path / "html" / "options.html").read_text(encoding="utf-8"))
    for command in ("label", "segment", "batch", "bids", "train", "calibrate", "evaluate"):
        parser = importlib.import_module(f"sct_deepspine.cli.{command}").get_parser().parser
        for word in [word for action in parser._actions for word in action.option_strings]:
            assert f">{word}<" in options, f"{command}: {word}"


def test_the_example_notebook_runs():
    cells = json.loads((DOCS / "example.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["labels"].values.tolist() == list(range(3, 17))
    assert max(names["errors"]) < 6
    assert names["shifted"].values[0] == 4
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    assert any("data:image/png;base64," in "".join(data.get("text/html", "")) for data in shown)


def test_contributing_names_paths_that_exist():
    root = Path(__file__).parents[1]
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w.-]+/[\w./-]*|[\w.-]+\.(?:py|md|cff|cfg|toml))`", text)
    layout = text.split("## Layout\n\n```\n")[1].split("```")[0]
    named += re.findall(r"(?:^| )([a-z_]+(?:/|\.py))(?= )", layout, re.M)
    assert len(named) > 25
    missing = [
        name for name in named if not any((root / folder / name).exists() for folder in ("", "sct_deepspine"))
    ]
    assert not missing
    parts = {path.name for path in (root / "sct_deepspine").iterdir() if (path / "__init__.py").is_file()}
    assert parts <= {name.rstrip("/") for name in named}
