"""Sphinx configuration; the commands' help is written to ``_generated`` before the pages are read."""

import contextlib
import importlib
import io
import json
import re
import sys
import urllib.request
from pathlib import Path

from sct_deepspine import __version__
from sct_deepspine.cli.masks import SUBCOMMANDS

project = "sct_deepspine"
author = "sct_deepspine developers"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx.ext.napoleon"]
autodoc_mock_imports = ["torch", "safetensors"]  # the pages are built without them
nitpicky = True
nitpick_ignore = [
    ("py:class", "sct_deepspine.models.predictor.CodecT"),  # a type variable
    ("py:class", "ImageLike"),  # an alias, spelt out where functions take it
]
exclude_patterns = ["_build", "_generated", "*.ipynb"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["wrap.css"]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "dollarmath"]
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository, right on its own pages

INVENTORIES = {
    "python": ("https://docs.python.org/3/", r"(collections|os|pathlib|subprocess|typing)\..*"),
    "numpy": ("https://numpy.org/doc/stable/", r"numpy\..*"),
    "nibabel": ("https://nipy.org/nibabel/", r"nibabel\..*"),
    "torch": ("https://docs.pytorch.org/docs/stable/", r"torch\..*"),
    "matplotlib": ("https://matplotlib.org/stable/", r"matplotlib\..*"),
    "pandas": ("https://pandas.pydata.org/docs/", r"pandas\..*"),
}
"""Whose pages are linked to, and how their names begin."""

PUBLIC = {
    "numpy._typing._array_like.NDArray": "numpy.typing.NDArray",
    "numpy._typing._array_like.ArrayLike": "numpy.typing.ArrayLike",
    "numpy.random._generator.Generator": "numpy.random.Generator",
    "numpy.bool": "numpy.bool_",
    "Path": "pathlib.Path",
    "FloatArray": "numpy.typing.NDArray",
    "NDArray": "numpy.typing.NDArray",
    "np.int_": "numpy.int_",
    "np.bool_": "numpy.bool_",
    "Tensor": "torch.Tensor",
    "Figure": "matplotlib.figure.Figure",
    "DataFrame": "pandas.DataFrame",
}
"""Names by which their own pages call what autodoc calls otherwise."""


def _reachable(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}objects.inv", timeout=5):
        return True
    return False


# A project that can't be reached is not linked to, and that is no warning.
intersphinx_mapping = {name: (url, None) for name, (url, _) in INVENTORIES.items() if _reachable(url)}


def _write_help() -> None:
    folder = Path(__file__).parent / "_generated"
    folder.mkdir(exist_ok=True)
    names = "label", "segment", "batch", "bids", "train", "calibrate", "evaluate", "masks"
    parsers = {name: importlib.import_module(f"sct_deepspine.cli.{name}").get_parser for name in names}
    parsers |= {f"masks_{name}": command.parser for name, command in SUBCOMMANDS.items()}
    for name, parser in parsers.items():
        text, argv = io.StringIO(), sys.argv
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            parser().parse(["-h"])
        sys.argv = argv
        (folder / f"{name}.txt").write_text(text.getvalue(), encoding="utf-8")
    (folder / "options.md").write_text(_options_table(parsers), encoding="utf-8")


def _options_table(parsers: dict) -> str:
    """Return a table of every option of every command: one line a meaning."""
    lines: dict[tuple[str, str], list[str]] = {}
    for name, make in parsers.items():
        for action in make().parser._actions:
            text = (action.help or "").replace("%(prog)s", "").replace("|", "\\|").strip()
            spelling = ", ".join(f"`{word}`" for word in action.option_strings) or f"`{action.dest}`"
            lines.setdefault((spelling, text), []).append(name.replace("_", " "))
    rows = [
        f"| {spelling} | {', '.join(names)} | {text} |" for (spelling, text), names in sorted(lines.items())
    ]
    return "\n".join(["| option | commands | meaning |", "|---|---|---|", *rows]) + "\n"


def _write_fields() -> None:
    """Write a table of the fields of each kind of file, made of its schema."""
    here = Path(__file__).parent
    for path in sorted((here / "schemas").glob("*.schema.json")):
        lines = [
            "| field | type | meaning |",
            "|---|---|---|",
            *_fields(json.loads(path.read_text(encoding="utf-8")), ""),
        ]
        name = path.name.removesuffix(".schema.json")
        (here / "_generated" / f"{name}_fields.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _fields(part: dict, path: str):
    """Yield a row for each field of a schema, and of what it holds."""
    for key, value in part.get("properties", {}).items():
        yield from _field(value, f"{path}{key}", optional=key not in part.get("required", ()))
    if isinstance(value := part.get("additionalProperties"), dict):
        yield from _fields(value, f"{path}*.")


def _field(value: dict, name: str, *, optional: bool):
    choices = value.get("anyOf", [value])
    types = [_type_of(choice) for choice in choices]
    text = value.get("description", "").replace("|", "\\|")
    yield f"| `{name}`{' (not always)' if optional else ''} | {' or '.join(types)} | {text} |"
    for choice in choices:
        inside = choice.get("items", choice)
        yield from _fields(inside, f"{name}[]." if "items" in choice else f"{name}.")


def _type_of(value: dict) -> str:
    if "enum" in value or "const" in value:
        return ", ".join(f"`{json.dumps(word)}`" for word in value.get("enum", [value.get("const")]))
    kind = value.get("type", "object")
    if kind == "array" and value.get("minItems") == 3:
        return "3 numbers"
    return " or ".join(kind) if isinstance(kind, list) else kind


_write_help()
_write_fields()


def _resolve(app, env, node, text):
    """Link a name that docstrings use to where it is documented."""
    target = node["reftarget"] = PUBLIC.get(node["reftarget"], node["reftarget"])
    short = target.rsplit(".", 1)[-1] if target.startswith(f"{project}.") else target
    own = [name for name in env.get_domain("py").objects if name.endswith(f".{short}")]
    if len(own) == 1:
        place = node["refdoc"], app.builder, node["reftype"], own[0]
        return env.get_domain("py").resolve_xref(env, *place, node, text)
    return None


def _leave_unlinked(app, env, node, text):
    """Accept a name of another project that intersphinx does not know, or could not ask for."""
    known = any(re.fullmatch(pattern, node["reftarget"]) for _, pattern in INVENTORIES.values())
    return text if known else None


def setup(app):
    """Let names be resolved before intersphinx is asked, and after it those that it does not know."""
    app.connect("missing-reference", _resolve, priority=400)
    app.connect("missing-reference", _leave_unlinked, priority=900)
