"""Disc values, their names, and how far apart discs lie: what is known of any spine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "CANAL_BEHIND_TIP_MM",
    "DISC_VALUES",
    "EXPECTED_SPACING_MM",
    "FIRST_VALUE",
    "LANDMARK_VALUES",
    "LAST_COMMON_VALUE",
    "LAST_VALUE",
    "PRESACRAL",
    "SACRUM_STEPS_MM",
    "TEMPLATE_LAST_VALUE",
    "THORACIC_VALUES",
    "disc_name",
    "last_template_value",
    "vertebra_name",
]

FIRST_VALUE, LAST_VALUE = 1, 26
"""1 is the top of C1, 2 is C1/C2, 3 is C2/C3, … 25 is L5/S1, 26 is S1/S2: the vertebra just below."""

DISC_VALUES = range(3, 26)
"""Intervertebral discs, C2/C3 to L5/S1."""

LANDMARK_VALUES = 1, 2, 26
"""What is no disc but tells the level: the tip and the base of the dens, and the remnant of S1/S2."""

THORACIC_VALUES = range(9, 21)
"""T1/T2 to T12/L1, where one level looks like the next."""

TEMPLATE_LAST_VALUE = 21
"""L1/L2: the last disc of PAM50's ``PAM50_label_disc``."""

LAST_COMMON_VALUE = 19
"""T11/T12: the last disc above which no vertebra is extra or missing, wherever it is below."""

CANAL_BEHIND_TIP_MM = 9.0
"""How far behind the posterior tip of a disc the middle of the canal lies, about."""

SACRUM_STEPS_MM = (28.0, 24.0, 20.0, 18.0)
"""Distances from L5/S1 to the remnants of the discs of the sacrum, of a body of the template's size."""

PRESACRAL = 24
"""Vertebrae above the sacrum: 7 cervical, 12 thoracic and 5 lumbar ones. Some people have one more or one
less."""

_ABOVE_LUMBAR = 19
"""Cervical and thoracic vertebrae. An extra or a missing one is named as a lumbar one."""


def _vertebrae(presacral: int) -> list[str]:
    above = [*(f"C{n}" for n in range(1, 8)), *(f"T{n}" for n in range(1, 13))]
    return [*above, *(f"L{n}" for n in range(1, presacral - _ABOVE_LUMBAR + 1)), "S1", "S2"]


def disc_name(value: int, presacral: int = PRESACRAL) -> str:
    """Return the anatomical name of a disc value.

    Parameters
    ----------
    value
        SCT's disc value, counted from the top of C1.
    presacral
        Vertebrae that this spine has above the sacrum. Where it is not 24, the extra or missing one is named
        as a lumbar vertebra, though it may be a thoracic one.

    Examples
    --------
    >>> disc_name(3), disc_name(8), disc_name(25)
    ('C2/C3', 'C7/T1', 'L5/S1')
    >>> disc_name(25, presacral=25), disc_name(26, presacral=25), disc_name(24, presacral=23)
    ('L5/L6', 'L6/S1', 'L4/S1')
    """
    last = LAST_VALUE + presacral - PRESACRAL
    if not FIRST_VALUE <= value <= last:
        raise ValueError(f"disc values run from {FIRST_VALUE} to {last}, got {value}")
    if value == FIRST_VALUE:
        return "top of C1"
    vertebrae = _vertebrae(presacral)
    return f"{vertebrae[value - 2]}/{vertebrae[value - 1]}"


def last_template_value(presacral: int = PRESACRAL) -> int:
    """Return the last disc value that means the same in PAM50 and in a spine with so many vertebrae."""
    return TEMPLATE_LAST_VALUE if presacral == PRESACRAL else LAST_COMMON_VALUE


def vertebra_name(number: int, presacral: int = PRESACRAL) -> str:
    """Return the name of a vertebra by its number, which is that of the disc above it.

    Examples
    --------
    >>> vertebra_name(1), vertebra_name(8), vertebra_name(24)
    ('C1', 'T1', 'L5')
    """
    if not 1 <= number < len(vertebrae := _vertebrae(presacral)):
        raise ValueError(f"vertebrae are numbered 1 (C1) to {len(vertebrae) - 1} (S1), got {number}")
    return vertebrae[number - 1]


# fmt: off
_TIP_TO_TIP_MM = (
    23.0, 15.5, 19.0, 18.4, 16.7, 16.1, 17.0, 21.0,              # 1 (top of C1) to 8 (C7/T1)
    22.8, 22.7, 24.0, 25.2, 25.6, 26.4, 26.8, 26.9, 29.2, 30.6,  # 9 (T1/T2) to 18 (T10/T11)
    31.6, 33.7, 34.6, 34.7, 33.7, 29.8, 27.4,                    # 19 (T11/T12) to 25 (L5/S1)
)


# fmt: on
EXPECTED_SPACING_MM: Mapping[int, float] = MappingProxyType(dict(enumerate(_TIP_TO_TIP_MM, start=1)))
"""Distance in mm from the posterior tip of a disc to that of the next, by the upper disc's value.

Least squares on the logarithms of all tip-to-tip distances of the training scans (4 cervical scans, 34
thoraco-lumbar spines) and of the PAM50 disc heights (De Leener et al. 2018, weighted as four subjects and
alone between 13 and 17, and above 3; S1/S2 by the 33 training scans that show it), one size factor per
person, PAM50's being 1. Subjects then differ by 7 % in size and a single distance by 5 % about that. Between
PAM50 and the subjects the table is smoothed.
"""
