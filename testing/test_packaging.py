"""What is built from the source holds all that the commands need."""

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a wheel and an sdist of the package."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", folder, ROOT]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_the_source_archive_holds_what_a_build_needs(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"README.md", "LICENSE", "setup.cfg", "sct_deepspine/weights/whole_spine.json"} <= names


def test_the_container_recipe_follows_good_practice():
    program = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_container_starts_from_one_exact_image():
    (base,) = re.findall(r"^FROM (.*)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)


def test_the_wheel_labels_without_the_source(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", tmp_path / "site", wheel]
    subprocess.run(install, check=True, capture_output=True)
    script = tmp_path / "first.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import sct_deepspine\n"
        "from sct_deepspine.cli.label import main\n"
        "print(sct_deepspine.__file__)\n"
        "sys.exit(main(['-demo', '-ofolder', sys.argv[1]]))\n",
        encoding="utf-8",
    )
    command = [sys.executable, script, tmp_path / "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(tmp_path / "site") in done.stdout
    assert (tmp_path / "out").is_dir()
    assert {"sct_deepspine_label", "sct_deepspine_batch"} <= {
        p.name for p in (tmp_path / "site" / "bin").iterdir()
    }
