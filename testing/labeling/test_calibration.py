import numpy as np
import pytest

from sct_deepspine.labeling.calibration import (
    KINDS,
    LIMITS,
    Calibration,
    Outcome,
    calibration_error,
    fit_calibration,
    reliability,
    view_kind,
)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (range(2, 10), "landmark"),
        ([1, 2, 3], "landmark"),
        (range(18, 27), "landmark"),
        (range(3, 10), "no_landmark"),
        (range(18, 26), "no_landmark"),
        (range(4, 10), "no_landmark"),
        (range(19, 25), "no_landmark"),
        (range(9, 21), "thoracic"),
        ([12], "thoracic"),
    ],
)
def test_the_kind_of_a_view_is_told_by_what_is_seen(values, kind):
    assert view_kind(values) == kind


def outcomes(kind, confidence, share_right, count=400, part="scan"):
    """Return outcomes of one confidence of which a share was right."""
    right = round(share_right * count)
    return [Outcome(part, kind, confidence, n < right) for n in range(count)]


def test_what_was_too_sure_becomes_as_sure_as_it_was_right():
    own = outcomes("no_landmark", 0.999, 0.65) + outcomes("no_landmark", 0.7, 0.4)
    calibration = fit_calibration(own)
    assert calibration.of_scan(0.999, "no_landmark") == pytest.approx(0.65, abs=0.03)
    assert calibration.of_scan(0.7, "no_landmark") == pytest.approx(0.4, abs=0.05)
    assert calibration_error([j.confidence for j in own], [j.right for j in own]) > 0.2
    corrected = [calibration.of_scan(j.confidence, "no_landmark") for j in own]
    assert calibration_error(corrected, [j.right for j in own]) < 0.05


def test_kinds_and_parts_are_fitted_apart():
    own = outcomes("landmark", 0.99, 0.99) + outcomes("thoracic", 0.99, 0.3)
    calibration = fit_calibration(own + outcomes("landmark", 0.9, 0.5, part="disc"))
    assert calibration.of_scan(0.99, "landmark") > 0.95
    assert calibration.of_scan(0.99, "thoracic") < 0.5
    assert calibration.of_scan(0.7, "no_landmark") == 0.7
    assert calibration.of_discs([0.9, 0.9], "landmark") == pytest.approx([0.5, 0.5], abs=0.05)


def test_without_a_landmark_nobody_is_sure():
    own = outcomes("no_landmark", 0.99, 1.0) + outcomes("landmark", 0.99, 1.0)
    for calibration in (Calibration(), fit_calibration(own)):
        assert calibration.of_scan(0.999, "no_landmark") <= LIMITS["no_landmark"]
        assert calibration.of_discs([0.999, 0.4], "no_landmark").max() <= LIMITS["no_landmark"]
        assert calibration.of_scan(0.999, "landmark") > 0.99
    assert LIMITS["no_landmark"] <= 0.7
    assert LIMITS["thoracic"] <= 0.5


def test_the_thorax_alone_is_no_surer_than_it_was_right_whatever_the_decoding_says():
    own = outcomes("thoracic", 0.99, 0.4) + outcomes("thoracic", 0.3, 0.2)
    calibration = fit_calibration(own)
    for confidence in (0.5, 0.999):
        assert calibration.of_scan(confidence, "thoracic") == pytest.approx(0.3, abs=0.01)
    assert calibration.of_scan(0.1, "thoracic") == 0.1


def test_no_confidence_is_raised():
    calibration = fit_calibration(outcomes("landmark", 0.7, 1.0) + outcomes("landmark", 0.99, 1.0))
    for confidence in (0.2, 0.7, 0.99):
        assert calibration.of_scan(confidence, "landmark") <= confidence


@pytest.mark.parametrize("confidence", [0.0, 0.5, 0.97, 1.0])
def test_a_surer_decoding_stays_surer(confidence):
    calibration = fit_calibration(
        outcomes("no_landmark", 0.99, 0.7) + outcomes("no_landmark", 0.6, 0.9, count=20)
    )
    below, above = (calibration.of_scan(c, "no_landmark") for c in (max(confidence - 0.02, 0), confidence))
    assert 0 <= below <= above <= 1


def test_a_few_judgements_that_are_all_right_do_not_run_away():
    (curve,) = fit_calibration(outcomes("no_landmark", 0.9, 1.0, count=5)).scan.values()
    assert np.abs(curve).max() < 5


def test_a_card_brings_the_same_corrections():
    calibration = fit_calibration(outcomes("no_landmark", 0.99, 0.7))
    again = Calibration.from_card(calibration.as_card())
    assert again.of_scan(0.9, "no_landmark") == pytest.approx(
        calibration.of_scan(0.9, "no_landmark"), abs=1e-3
    )
    assert Calibration.from_card({}).of_scan(0.9, KINDS[0]) == 0.9


def test_reliability_counts_every_judgement_once():
    rows = reliability([0.0, 0.05, 0.95, 1.0], [0, 1, 1, 1], bins=10)
    assert [count for _, _, count in rows] == [2, 2]
    assert rows[0][:2] == (0.025, 0.5)
    assert calibration_error([0.5, 0.5], [1, 0]) == 0
    assert calibration_error([1.0], [0]) == 1
    assert np.isnan(calibration_error([], []))


def weighed(places, share_right, count=200):
    right = round(share_right * count)
    evidence = {"places": places}
    return [Outcome("scan", "landmark", 0.99, n < right, None, evidence) for n in range(count)]


def test_evidence_against_the_levels_lowers_the_confidence_by_what_it_was_worth():
    calibration = fit_calibration(weighed(1.0, 0.99) + weighed(0.4, 0.3))
    assert calibration.of_scan(0.99, "landmark", {"places": 1.0}) == pytest.approx(0.98, abs=0.015)
    assert calibration.of_scan(0.99, "landmark", {"places": 0.4}) == pytest.approx(0.3, abs=0.06)
    # Without evidence nothing is doubted, and what is not weighed changes nothing.
    assert calibration.of_scan(0.99, "landmark") == calibration.of_scan(0.99, "landmark", {"places": 1.0})
    assert "levels" not in calibration.scan_weights["landmark"]


def test_a_signal_never_raises_a_confidence():
    calibration = fit_calibration(weighed(1.0, 0.5) + weighed(0.4, 1.0))
    low, high = (calibration.of_scan(0.9, "landmark", {"places": p}) for p in (0.4, 1.0))
    assert low <= high <= 0.9


def test_weights_come_back_from_a_card_and_strange_ones_are_refused():
    calibration = fit_calibration(weighed(1.0, 0.99) + weighed(0.4, 0.3))
    card = calibration.as_card()
    again = Calibration.from_card(card)
    evidence = {"places": 0.7}
    assert again.of_scan(0.99, "landmark", evidence) == pytest.approx(
        calibration.of_scan(0.99, "landmark", evidence), abs=1e-3
    )
    with pytest.raises(ValueError, match="unknown evidence"):
        Calibration.from_card({"scan_weights": {"landmark": {"luck": 1.0}}})


def test_the_kinds_of_earlier_cards_are_read():
    earlier = Calibration.from_card({"scan": {"open": [0.0, 0.5]}, "disc": {"open": [0.0, 0.5]}})
    assert earlier.of_scan(0.6, "no_landmark") < 0.6
    assert earlier.of_discs([0.6], "no_landmark")[0] < 0.6
