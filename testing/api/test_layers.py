import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sct_deepspine

PACKAGE = Path(sct_deepspine.__file__).parent

ORDER = (
    *("_version", "errors", "bids", "frames", "files", "volume"),
    *("spacing", "sequence", "centerline", "straighten", "warps", "sagittal", "heatmaps"),
    *("architecture", "network", "artist", "runtime_torch", "runtime_onnx"),
    *("discs", "confidence", "weights"),
    *("locate", "refine", "anchors", "cards", "template", "sct"),
    "labeling",
    *("outputs", "qc", "report", "batch", "metrics", "stress", "evaluation"),
    "training",
    "cli",
)
"""Every part of the package; each may import what stands before it."""

INNER_ORDER = {
    "training": ("augment", "dataset", "phantom", "synthesis", "loss", "loop", "validation", "export"),
    "cli": ("_common", "_products"),
}
"""The same within the parts that are folders; what is not named here stands after what is."""

MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py"))
TOP = {module[0] for module in MODULES}


def imported(path):
    """Return the modules of the package that a file imports, as tuples, type checking aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports by a relative name"
            names = [node.module]
            if node.module in ("sct_deepspine", "sct_deepspine.cli", "sct_deepspine.training"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "sct_deepspine"}
    # Names that the package exports, such as __version__, are no modules.
    return {parts for parts in found if parts and parts[0] in TOP}


def rank(parts):
    """Return where a module stands, as something that can be compared."""
    inner = INNER_ORDER.get(parts[0], ())
    within = len(inner) if len(parts) < 2 or parts[1] not in inner else inner.index(parts[1])
    return ORDER.index(parts[0]), within


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_imports_point_one_way(module):
    if module == ("__init__",):
        return  # exports by name, on demand
    assert module[0] in ORDER, f"{'.'.join(module)} has no place in the order of the package"
    if module[-1] == "__init__":
        assert not imported(PACKAGE.joinpath(*module).with_suffix(".py"))
        return
    for other in imported(PACKAGE.joinpath(*module).with_suffix(".py")):
        assert rank(other) < rank(module), f"{'.'.join(module)} imports {'.'.join(other)}"


def test_only_the_commands_import_training():
    users = {
        module[0]
        for module in MODULES
        if any(other[0] == "training" for other in imported(PACKAGE.joinpath(*module).with_suffix(".py")))
    }
    assert users == {"cli", "training"}


def test_the_reading_of_imports_sees_what_is_imported():
    assert ("volume",) in imported(PACKAGE / "labeling.py")
    assert ("heatmaps",) not in imported(PACKAGE / "discs.py")  # for type checking only
    assert ("training", "loop") in imported(PACKAGE / "cli" / "train.py")  # inside a function
    assert ("cli", "_common") in imported(PACKAGE / "cli" / "label.py")


def test_every_part_of_the_package_has_a_place_in_the_order():
    assert TOP - {"__init__"} <= set(ORDER)


HEAVY = "torch", "nibabel", "matplotlib", "scipy", "pandas", "numpy"


def test_importing_the_package_or_a_command_is_light():
    script = f"""
import sys
import sct_deepspine
sct_deepspine.__version__, sct_deepspine.ImageError
import sct_deepspine.cli.batch, sct_deepspine.cli.label, sct_deepspine.cli.train, sct_deepspine.cli.evaluate
for command in ("batch", "label", "train", "evaluate"):
    sys.modules["sct_deepspine.cli." + command].get_parser()
loaded = [name for name in {HEAVY} if name in sys.modules]
sys.exit(", ".join(loaded) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_every_public_name_can_be_had_from_the_package():
    for name in sct_deepspine.__all__:
        assert getattr(sct_deepspine, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'label_disks'"):
        _ = sct_deepspine.label_disks
