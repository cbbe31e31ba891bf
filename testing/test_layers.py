import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import sct_deepspine

PACKAGE = Path(sct_deepspine.__file__).parent

LAYERS = (
    {"_version", "errors", "anatomy"},
    {"geometry"},
    {"spacing"},
    {"io", "models"},
    {"labels"},
    {"labeling"},
    {"segmentation"},
    {"simulation", "reporting", "sct"},
    {"evaluation", "workflow"},
    {"batch"},
    {"training"},
    {"recipes"},
    {"cli"},
)
"""Every part of the package; each imports from its own layer and from those above it in this list only."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py"))


@cache
def imported(path):
    """Return the parts of the package that a file imports, type checking aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "sct_deepspine"
        for alias in node.names
    ]
    parts = {name.split(".")[1] for name in names if name.startswith("sct_deepspine.")}
    return parts & RANK.keys()


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_imports_point_one_way(module):
    if module != ("__init__",):  # exports by name, on demand
        for other in imported(PACKAGE.joinpath(*module).with_suffix(".py")) - {module[0]}:
            assert RANK[other] < RANK[module[0]], f"{'.'.join(module)} imports {other}"


def test_only_recipes_and_commands_import_training():
    users = {m[0] for m in MODULES if "training" in imported(PACKAGE.joinpath(*m).with_suffix(".py"))}
    assert users == {"cli", "recipes", "training"}


def test_the_reading_of_imports_sees_what_is_imported():
    assert "geometry" in imported(PACKAGE / "labeling" / "pipeline.py")
    assert "labeling" not in imported(PACKAGE / "labels.py")  # for type checking only
    assert "training" in imported(PACKAGE / "cli" / "train.py")  # inside a function


def test_every_part_of_the_package_has_a_layer():
    assert {module[0] for module in MODULES} - {"__init__"} == RANK.keys()


HEAVY = "skimage", "sklearn", "torch", "nibabel", "matplotlib", "scipy", "pandas", "numpy"


def test_importing_the_package_or_a_command_is_light():
    script = f"""
import sys
import sct_deepspine
sct_deepspine.__version__, sct_deepspine.ImageError
import sct_deepspine.cli.batch, sct_deepspine.cli.label, sct_deepspine.cli.train, sct_deepspine.cli.evaluate
import sct_deepspine.cli.masks, sct_deepspine.cli.calibrate, sct_deepspine.cli.segment, sct_deepspine.cli.bids
for command in ("batch", "label", "train", "evaluate", "calibrate", "segment", "bids"):
    sys.modules["sct_deepspine.cli." + command].get_parser()
for subcommand in sct_deepspine.cli.masks.SUBCOMMANDS.values():
    subcommand.parser()
loaded = [name for name in {HEAVY} if name in sys.modules]
sys.exit(", ".join(loaded) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_an_image_is_labelled_without_torch(phantom_file, tmp_path):
    script = """
import sys
sys.modules["torch"] = sys.modules["safetensors"] = None
from sct_deepspine.cli.label import main
sys.exit(main(sys.argv[1:]))
"""
    words = ["-i", str(phantom_file), "-ofolder", str(tmp_path), "-v", "0"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "phantom_discs.nii.gz").is_file()
    done = subprocess.run(
        [sys.executable, "-c", script, *words, "-device", "cpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "needs torch, which is not installed" in done.stderr


def test_every_public_name_can_be_had_from_the_package():
    for name in sct_deepspine.__all__:
        assert getattr(sct_deepspine, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'label_disks'"):
        _ = sct_deepspine.label_disks
