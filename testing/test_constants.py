"""Every public number of the package says what it is: its unit, and where it comes from."""

import ast
from pathlib import Path

import pytest

import sct_deepspine

PACKAGE = Path(sct_deepspine.__file__).parent

"""Constants without a word so far; none may be added."""


def is_number(node):
    """Tell whether an expression is a number, or a tuple or calculation of numbers and other constants."""
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.UnaryOp(operand=operand):
            return is_number(operand)
        case ast.BinOp(left=left, right=right):
            return all(is_number(side) or is_constant(side) for side in (left, right))
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return bool(parts) and all(is_number(part) for part in parts)
        case ast.Dict(values=parts):
            return bool(parts) and all(is_number(part) for part in parts)
        case ast.Call(args=[part]):  # such as MappingProxyType({…}), np.array([…]), frozenset((…))
            return is_number(part)
    return False


def is_constant(node):
    return isinstance(node, ast.Name) and node.id.isupper() and not node.id.startswith("_")


def names_of(statement):
    """Return the public constants that a statement assigns numbers to."""
    match statement:
        case ast.Assign(targets=targets, value=value) if is_number(value):
            names = [name for target in targets for name in getattr(target, "elts", [target])]
        case ast.AnnAssign(target=target, value=value) if value is not None and is_number(value):
            names = [target]
        case _:
            names = []
    return [name.id for name in names if is_constant(name)]


def unexplained(source):
    """Return the numeric constants with neither a docstring below nor a comment beside or above."""
    lines, body = source.splitlines(), ast.parse(source).body
    out = []
    for statement, after in zip(body, [*body[1:], None], strict=True):
        match after:
            case ast.Expr(value=ast.Constant(value=str())):
                continue
        above = lines[statement.lineno - 2].lstrip() if statement.lineno > 1 else ""
        if "#" not in lines[statement.end_lineno - 1] and not above.startswith("#"):
            out += names_of(statement)
    return out


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_every_numeric_constant_is_explained(path):
    missing = unexplained(path.read_text(encoding="utf-8"))
    assert missing == []


def test_the_reading_of_constants_sees_what_is_not_explained():
    source = '''
ONE_MM = 1.0
TWO_MM, THREE = 2 * ONE_MM, -3
"""Two and three."""
FOUR: int = 4
_FIVE = 5
# Six.
SIX = 6
SEVEN = (7,)  # seven
NAME, IS_ON = "name", True
SHARES = dict({"a": 0.5})
'''
    assert unexplained(source) == ["ONE_MM", "FOUR", "SHARES"]
