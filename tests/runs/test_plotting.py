import dataclasses

import pytest

from bbb.inference import Epoch
from bbb.runs import training_curves

EPOCH = Epoch(1, 0.5, 1000.0, -0.6, 0.9, 0.8, 0.7, 1.0)


RESULT = {"test_error": 12.5, "test_nll": 0.75}


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_training_curves_show_error_nll_and_kl_with_units():
    epochs = [EPOCH, dataclasses.replace(EPOCH, number=2, train_accuracy=0.95)]
    error, nll, kl = training_curves(epochs, "title").axes
    assert list(error.lines[0].get_ydata()) == pytest.approx([10.0, 5.0])
    assert [len(axes.lines) for axes in (error, nll, kl)] == [3, 3, 1]
    assert labels(error)[:2] == ["train", "validation"]
    assert "%" in error.get_ylabel()
    assert "nats" in nll.get_ylabel()
    assert "nats" in kl.get_ylabel()


def test_the_best_epoch_is_that_of_the_lowest_validation_nll_and_the_test_is_a_line():
    nlls = (0.7, 0.6, 0.65)
    epochs = [dataclasses.replace(EPOCH, number=i + 1, validation_nll=value) for i, value in enumerate(nlls)]
    error, nll, _ = training_curves(epochs, "title", RESULT).axes
    assert labels(nll) == ["train", "validation", "best epoch (2): 0.6", "test: 0.75"]
    assert labels(error) == ["train", "validation", "best epoch (2): 20 %", "test: 12.5 %"]
    assert list(nll.lines[2].get_xdata()) == [2]
    assert list(nll.lines[3].get_ydata()) == [0.75, 0.75]


def test_training_curves_without_validation():
    epoch = dataclasses.replace(EPOCH, validation_accuracy=None, validation_nll=None)
    assert [len(axes.lines) for axes in training_curves([epoch], "title").axes] == [1, 1, 1]
    assert [len(axes.lines) for axes in training_curves([epoch], "title", RESULT).axes] == [2, 2, 1]


def test_an_error_of_zero_has_a_linear_axis():
    epochs = [dataclasses.replace(EPOCH, train_accuracy=accuracy) for accuracy in (0.9, 1.0)]
    error, nll, _ = training_curves(epochs, "title").axes
    assert (error.get_yscale(), nll.get_yscale()) == ("linear", "log")


def test_numbers_have_their_rmse():
    epoch = Epoch(1, 0.5, 1000.0, -0.6, None, None, 0.7, 1.0, train_rmse=0.3, validation_rmse=0.4)
    rmse, *_ = training_curves([epoch], "title", {"test_rmse": 0.5, "test_nll": 1.0}).axes
    assert rmse.get_ylabel() == "RMSE"
    assert labels(rmse)[-1] == "test: 0.5"
