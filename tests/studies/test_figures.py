from bbb.studies import figures


def test_compare_draws_the_mean_of_seeds_against_epochs_and_seconds():
    curves = {"a": [[90.0, 96.0], [92.0, 98.0]], "b": [[80.0, 85.0]]}
    by_epoch, by_second = figures.compare(curves, {"a": 2.0, "b": 5.0}, "title").axes
    assert list(by_epoch.lines[0].get_ydata()) == [91.0, 97.0]
    assert list(by_second.lines[1].get_xdata()) == [5.0, 10.0]
    assert [text.get_text() for text in by_epoch.get_legend().get_texts()] == ["a", "b"]


def test_transfer_results_show_means_over_seeds():
    finals = {"a": {0.1: [{"test_error": 3.0, "test_nll": 0.1}, {"test_error": 5.0, "test_nll": 0.3}]}}
    by_error, by_nll, by_epoch = figures.transfer_results(finals, {"a": [[90.0], [92.0]]}, "curves", "title").axes
    assert list(by_error.lines[0].get_ydata()) == [4.0]
    assert list(by_nll.lines[0].get_ydata()) == [0.2]
    assert list(by_epoch.lines[0].get_ydata()) == [9.0]


def test_comparing_beta_draws_accuracy_and_negative_elbo():
    accuracies, elbos = {"none": [[90.0, 96.0], [92.0, 98.0]]}, {"none": [[-90.0, -30.0], [-70.0, -20.0]]}
    accuracy, elbo = figures.comparing_beta(accuracies, elbos, "title").axes
    assert list(accuracy.lines[0].get_ydata()) == [91.0, 97.0]
    assert list(elbo.lines[0].get_ydata()) == [80.0, 25.0]
    assert "nats" in elbo.get_ylabel()


def test_calibration_leaves_out_bins_of_few_images_but_counts_them_in_the_error():
    bins = {"share": [0.0005, 0.4995, 0.5], "confidence": [0.1, 0.5, 0.9], "accuracy": [1.0, 0.6, 0.9]}
    entropies = {"model": {"digits": [[100.0, 0.0]], "others": [[50.0, 50.0]]}}
    figure = figures.calibration({"model": [bins]}, entropies, {"model": {"others": [0.75]}}, "about")
    diagram, histogram = figure.axes
    assert list(diagram.lines[1].get_xdata()) == [0.5, 0.9]
    assert diagram.get_legend().get_texts()[1].get_text() == "model, ECE 5.04 %"
    assert [text.get_text() for text in histogram.get_legend().get_texts()] == ["digits", "others, AUROC 0.750"]
    assert list(histogram.lines[0].get_ydata()) == [100.0, figures.LEAST_SHARE]
    assert "nats" in histogram.get_xlabel()


def test_uncertainty_stacks_the_parts_of_the_entropy_under_each_digit():
    probs = [[[0.3, 0.7]], [[0.5, 0.5]]]
    picture, bars, parts = figures.uncertainty([[0, 255, 30, 0]], [1], probs, [[0.5], [0.3]], [[0.1], [0.2]], "t").axes
    assert picture.images[0].get_array().tolist() == [[0, 255], [30, 0]]
    assert [round(bar.get_height(), 6) for bar in bars.patches] == [0.4, 0.6]
    assert [round(bar.get_y() + bar.get_height(), 6) for bar in parts.patches] == [0.4, 0.55]
    assert "nats" in parts.get_ylabel()
