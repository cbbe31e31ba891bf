"""Sphinx configuration; the commands' help is written to ``_generated`` before the pages are read."""

import contextlib
import importlib
import io
import sys
from pathlib import Path

from sct_deepspine import __version__
from sct_deepspine.cli.masks import SUBCOMMANDS

project = "sct_deepspine"
author = "sct_deepspine developers"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
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


def _write_help() -> None:
    folder = Path(__file__).parent / "_generated"
    folder.mkdir(exist_ok=True)
    names = "label", "segment", "batch", "bids", "train", "evaluate", "masks"
    parsers = {name: importlib.import_module(f"sct_deepspine.cli.{name}").get_parser for name in names}
    parsers |= {f"masks_{name}": command.parser for name, command in SUBCOMMANDS.items()}
    for name, parser in parsers.items():
        text, argv = io.StringIO(), sys.argv
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            parser().parse(["-h"])
        sys.argv = argv
        (folder / f"{name}.txt").write_text(text.getvalue(), encoding="utf-8")


_write_help()
