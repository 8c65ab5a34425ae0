import dataclasses

from bbb import figures
from bbb.training import Epoch

EPOCH = Epoch(1, 0.5, 1000.0, -0.6, 0.9, 0.8, 0.7, 1.0)


def test_training_curves_show_train_and_validation_with_units():
    epochs = [EPOCH, dataclasses.replace(EPOCH, number=2, train_accuracy=0.95)]
    accuracy, nll, kl = figures.training_curves(epochs, "title").axes
    assert list(accuracy.lines[0].get_ydata()) == [90.0, 95.0]
    assert [len(axes.lines) for axes in (accuracy, nll, kl)] == [2, 2, 1]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["train", "validation"]
    assert "nats" in nll.get_ylabel()
    assert "nats" in kl.get_ylabel()


def test_training_curves_without_validation():
    epoch = dataclasses.replace(EPOCH, validation_accuracy=None, validation_nll=None)
    assert [len(axes.lines) for axes in figures.training_curves([epoch], "title").axes] == [1, 1, 1]


def test_compare_draws_the_mean_of_seeds_against_epochs_and_seconds():
    curves = {"a": [[90.0, 96.0], [92.0, 98.0]], "b": [[80.0, 85.0]]}
    by_epoch, by_second = figures.compare(curves, {"a": 2.0, "b": 5.0}, "title").axes
    assert list(by_epoch.lines[0].get_ydata()) == [91.0, 97.0]
    assert list(by_second.lines[1].get_xdata()) == [5.0, 10.0]
    assert [text.get_text() for text in by_epoch.get_legend().get_texts()] == ["a", "b"]


def test_transfer_results_show_means_over_seeds():
    finals = {"a": {0.1: [{"test_error": 3.0, "test_nll": 0.1}, {"test_error": 5.0, "test_nll": 0.3}]}}
    by_error, by_nll, by_epoch = figures.transfer_results(finals, {"a": [[90.0], [92.0]]}, "title").axes
    assert list(by_error.lines[0].get_ydata()) == [4.0]
    assert list(by_nll.lines[0].get_ydata()) == [0.2]
    assert list(by_epoch.lines[0].get_ydata()) == [91.0]
