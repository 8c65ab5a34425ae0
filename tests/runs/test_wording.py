"""The last lines of a run: every score in words, with its unit."""

import dataclasses

import pytest

from bbb.runs import Result, duration, in_words
from bbb.runs.wording import _LINES, _WORDS

SCORES = Result(test_nll=0.0508, elbo=-25.79, kl=1234567.8, num_epochs=50, seconds=190.4)


def test_scores_have_words_and_units():
    result = dataclasses.replace(SCORES, test_error=1.554, test_ece=0.39, test_brier=0.02, test_error_mean_weights=1.6)
    assert in_words(result.as_dict()) == [
        "test set: error 1.55 %, NLL 0.0508 nats, calibration error (ECE) 0.39 %, Brier score 0.0200",
        "with the centre of the posterior in place of draws: error 1.60 %",
        "evidence: ELBO -25.79 nats per training example, KL from the prior 1,234,568 nats",
        "time: 50 epochs and the test in 3 min 10 s",
    ]


def test_numbers_replicas_and_transfer_have_lines_of_their_own():
    result = dataclasses.replace(SCORES, test_rmse=0.5, test_coverage_90=91.0, noise_std=0.25, num_epochs=1)
    result = dataclasses.replace(result, replicas=[{"test_rmse": 0.6}, {"test_rmse": 0.7}], source_error=2.0)
    lines = in_words({**result.as_dict(), "prior_inflation": 4.0})
    assert lines[0] == "test set: RMSE 0.5, NLL 0.0508 nats, inside the 90 % interval 91.0 %"
    assert lines[2:] == [
        "noise: standard deviation of the noise 0.25",
        "prior: variances of the source's posterior times 4",
        "source: error on the source's test set 2.00 %",
        "the 2 networks alone: RMSE 0.6, 0.7",
        "time: 1 epoch and the test in 3 min 10 s",
    ]


def test_no_score_is_left_out():
    scores = {field.name for field in dataclasses.fields(Result)} - {"num_epochs", "seconds", "replicas"}
    assert scores == _WORDS.keys() == {name for names in _LINES.values() for name in names}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 0 min")],
)
def test_times_are_written_as_people_do(seconds, words):
    assert duration(seconds) == words
