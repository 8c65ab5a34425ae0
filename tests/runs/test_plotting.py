import dataclasses

from bbb.inference import Epoch
from bbb.runs import training_curves

EPOCH = Epoch(1, 0.5, 1000.0, -0.6, 0.9, 0.8, 0.7, 1.0)


def test_training_curves_show_train_and_validation_with_units():
    epochs = [EPOCH, dataclasses.replace(EPOCH, number=2, train_accuracy=0.95)]
    accuracy, nll, kl = training_curves(epochs, "title").axes
    assert list(accuracy.lines[0].get_ydata()) == [90.0, 95.0]
    assert [len(axes.lines) for axes in (accuracy, nll, kl)] == [2, 2, 1]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["train", "validation"]
    assert "nats" in nll.get_ylabel()
    assert "nats" in kl.get_ylabel()


def test_training_curves_without_validation():
    epoch = dataclasses.replace(EPOCH, validation_accuracy=None, validation_nll=None)
    assert [len(axes.lines) for axes in training_curves([epoch], "title").axes] == [1, 1, 1]
