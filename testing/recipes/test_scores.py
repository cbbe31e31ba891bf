import csv
import io

import numpy as np
import pytest
from sklearn import metrics

from sct_deepspine.recipes.evaluation import report, scores_csv
from sct_deepspine.recipes.folders import Sample
from sct_deepspine.recipes.scores import MEASURES, counts_of, measures, score_case, summarise
from sct_deepspine.recipes.task import MaskCodec

CODEC = MaskCodec((0, 255))


def case(rng, name="one", subject="one", *, noise=1.5, known=None, rows=23, columns=31):
    """Return a sample and probabilities that are somewhat right."""
    truth = rng.random((1, rows, columns)) < 0.2
    probability = 1 / (1 + np.exp(-(2.0 * truth - 1.5 + rng.normal(0, noise, truth.shape))))
    maps = np.stack([1 - probability, probability]).astype(np.float32)
    image = np.zeros((1, 1, rows, columns))
    return Sample(name, subject, image, np.where(truth, 255, 0), known), maps


def test_measures_are_those_of_scikit_learn(rng):
    sample, maps = case(rng)
    (score,) = score_case(sample, maps, CODEC)
    truth, predicted = (sample.mask > 0).ravel(), (maps[1] >= 0.5).ravel()
    expected = {
        "f1": metrics.f1_score(truth, predicted),
        "sensitivity": metrics.recall_score(truth, predicted),
        "specificity": metrics.recall_score(~truth, ~predicted),
        "accuracy": metrics.accuracy_score(truth, predicted),
        "precision": metrics.precision_score(truth, predicted),
        "jaccard": metrics.jaccard_score(truth, predicted),
        "auc": metrics.roc_auc_score(truth, maps[1].ravel()),
    }
    assert score.measures.keys() == set(MEASURES)
    for name, value in expected.items():
        assert score.measures[name] == pytest.approx(value, abs=1e-12), name


def test_the_jaccard_index_is_not_the_accuracy(rng):
    """Published tables called accuracy by that name."""
    sample, maps = case(rng)
    found = score_case(sample, maps, CODEC)[0].measures
    assert found["jaccard"] == pytest.approx(found["f1"] / (2 - found["f1"]))
    assert abs(found["jaccard"] - found["accuracy"]) > 0.1


def test_the_area_under_the_curve_is_taken_from_probabilities(rng):
    """Published code took it from masks that were cut at 0.5."""
    sample, maps = case(rng)
    found = score_case(sample, maps, CODEC)[0].measures
    cut = metrics.roc_auc_score((sample.mask > 0).ravel(), (maps[1] >= 0.5).ravel())
    assert found["auc"] > cut + 0.02


def test_pixels_outside_the_field_of_view_do_not_count(rng):
    known = np.zeros((1, 23, 31), dtype=bool)
    known[:, 5:, :20] = True
    sample, maps = case(rng, known=known)
    inside = score_case(sample, maps, CODEC)[0]
    spoiled = maps.copy()
    spoiled[:, ~known] = [[0.0], [1.0]]
    again = score_case(sample, spoiled, CODEC)[0]
    assert inside.measures == again.measures
    assert inside.counts.sum() == known.sum()
    everywhere = Sample("one", "one", sample.image, sample.mask)
    assert score_case(everywhere, spoiled, CODEC)[0].measures["f1"] < inside.measures["f1"]


def test_what_has_no_denominator_is_not_defined():
    nothing = measures(np.array([0.0, 0.0, 0.0, 9.0]))
    assert np.isnan([nothing[n] for n in ("f1", "sensitivity", "precision", "jaccard")]).all()
    assert (nothing["specificity"], nothing["accuracy"]) == (1, 1)
    assert measures(np.array([0.0, 3.0, 0.0, 6.0]))["f1"] == 0


def test_counts():
    truth = np.array([True, True, True, False, False, False, False])
    found = np.array([True, True, False, True, False, False, False])
    assert counts_of(truth, found).tolist() == [2, 1, 1, 3]


def test_several_classes_are_scored_one_by_one(rng):
    codec = MaskCodec((0, 4, 9))
    indices = rng.integers(0, 3, (1, 17, 19))
    maps = (np.eye(3)[indices].transpose(3, 0, 1, 2)).astype(np.float32)
    maps[:, 0, :5] = np.array([1, 0, 0])[:, None, None]
    sample = Sample("one", "one", np.zeros((1, 1, 17, 19)), np.array(codec.values)[indices])
    scores = score_case(sample, maps, codec)
    assert [score.value for score in scores] == [4, 9]
    for index, score in enumerate(scores, start=1):
        assert score.counts[2] == (indices[0, :5] == index).sum()  # missed
        assert score.measures["precision"] == 1


def many(rng, subjects=12, each=2, **options):
    names = [(f"s{s}_{n}", f"s{s}") for s in range(subjects) for n in range(each)]
    return [score_case(*case(rng, *name, **options), CODEC)[0] for name in names]


def test_pooled_and_averaged_scores_with_intervals(rng):
    scores = many(rng)
    (summary,) = summarise(scores)
    assert (summary.images, summary.subjects) == (24, 12)
    pooled = measures(np.sum([score.counts for score in scores], axis=0))
    for name, value in pooled.items():
        assert summary.pooled[name] == pytest.approx(value)
        low, high = summary.pooled_interval[name]
        assert low < value < high
    mean = np.mean([score.measures["auc"] for score in scores])
    assert summary.per_image["auc"] == pytest.approx(mean)
    assert summary.per_image_interval["auc"][0] < mean < summary.per_image_interval["auc"][1]


def test_images_of_one_subject_are_resampled_together(rng):
    """The same images, told to be of many subjects, or copied within a few: the second knows less."""
    scores = many(rng, subjects=6, each=1, noise=2.5)
    copies = [score for score in scores for _ in range(8)]
    (few,) = summarise(copies)
    assert few.subjects == 6
    apart = [
        type(s)(s.name, f"{s.subject}_{n}", s.value, s.counts, s.truth, s.probability)
        for n, s in enumerate(copies)
    ]
    (many_subjects,) = summarise(apart)
    width = np.diff(few.per_image_interval["f1"]), np.diff(many_subjects.per_image_interval["f1"])
    assert width[0] > 2 * width[1]


def test_one_subject_has_no_interval_and_an_undefined_image_leaves_the_mean_alone(rng):
    sample, maps = case(rng)
    scores = score_case(sample, maps, CODEC)
    empty = Sample("two", "one", sample.image, np.zeros_like(sample.mask))
    none = np.stack([np.ones_like(maps[0]), np.zeros_like(maps[1])])
    scores += score_case(empty, none, CODEC)
    (summary,) = summarise(scores)
    assert summary.per_image["f1"] == pytest.approx(scores[0].measures["f1"])
    assert np.isnan(summary.pooled_interval["f1"]).all()
    assert "[" not in report([summary])


def test_the_table_and_the_file_of_scores(rng):
    scores = many(rng, subjects=3)
    text = report(summarise(scores))
    assert text.startswith("class 255, 6 images of 3 subjects")
    (line,) = (line for line in text.splitlines() if line.startswith("jaccard"))
    assert line.count("[") == 2
    rows = list(csv.DictReader(io.StringIO(scores_csv(scores))))
    assert [row["name"] for row in rows] == [score.name for score in scores]
    assert float(rows[2]["f1"]) == pytest.approx(scores[2].measures["f1"], abs=1e-6)
