"""CORP: parts of the Brier and the log score by isotonic regression, against scikit-learn."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss

from ntkbayes.evaluation import metrics

SCORES = {
    "brier": lambda o, p, w: brier_score_loss(o, p, sample_weight=w),
    "log": lambda o, p, w: log_loss(o, p, sample_weight=w),
}


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    q = np.round(rng.beta(3, 1.5, size=120), 2).clip(0.01, 0.99)  # with ties
    outcome = rng.uniform(size=120) < q**1.5
    weights = np.stack([metrics.uniform_weights(120), rng.dirichlet(np.ones(120))])
    return q, outcome, weights


@pytest.mark.parametrize("score", SCORES)
def test_parts_are_scores_of_the_isotonic_fit_and_of_the_rate_by_scikit_learn(case, score):
    q, outcome, weights = case
    found = metrics.corp_decomposition(q, outcome, weights)
    for i, row in enumerate(weights):
        fit = IsotonicRegression(y_min=0, y_max=1).fit(q, outcome, sample_weight=row)
        given, best, none = (
            SCORES[score](outcome, p, row) for p in (q, fit.predict(q), np.full(120, row @ outcome))
        )
        parts = {"miscalibration": given - best, "discrimination": none - best, "uncertainty": none}
        for name, expected in parts.items():
            value = getattr(found, f"{score}_{name}")[i]
            assert value == pytest.approx(expected, rel=1e-6, abs=1e-9), name  # scikit-learn: 1e-7


@pytest.mark.parametrize("score", SCORES)
def test_no_part_is_negative_and_they_add_up_to_the_score(case, score):
    q, outcome, weights = case
    found = metrics.corp_decomposition(q, outcome, weights)
    mcb, dsc, unc = (
        getattr(found, f"{score}_{name}")
        for name in ("miscalibration", "discrimination", "uncertainty")
    )
    assert np.all(mcb > 0)
    assert np.all(dsc > 0)
    expected = [SCORES[score](outcome, q, row) for row in weights]
    np.testing.assert_allclose(mcb - dsc + unc, expected, rtol=1e-10)


def test_a_wrong_certainty_is_an_infinite_miscalibration():
    found = metrics.corp_decomposition(
        np.array([1.0, 0.5]), np.array([False, True]), metrics.uniform_weights(2)
    )
    assert found.log_miscalibration == np.inf
    assert found.brier_miscalibration == pytest.approx(0.625 - 0.25)  # both pooled at rate ½
