"""What becomes of labels that a person made: one rule, the same through every command and through Python."""

import numpy as np
import pytest

from sct_deepspine.errors import AnchorError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.workflow.given import anchors_in_view

GRID = Grid((31, 61, 241), np.eye(4))


def test_what_lies_out_of_view_is_passed_over_with_a_note():
    points = [(3, np.array([15.0, 30.0, 400.0])), (9, np.array([15.0, 30.0, 100.0]))]
    anchors, notes = anchors_in_view(points, GRID)
    assert list(anchors) == [9]
    assert notes == ("out of view and passed over: C2/C3",)
    with pytest.raises(AnchorError, match="belong together"):
        anchors_in_view(points[:1], GRID)
