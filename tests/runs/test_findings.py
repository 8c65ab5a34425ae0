"""What a run finds beyond its scores: it agrees with them, costs no draws, and stays small."""

import base64
import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from bbb import runs
from bbb.data import Split
from bbb.distributions import FlowedGaussian, Gaussian, Independent, PlanarFlow
from bbb.inference import GaussianNoise, classification_scores, entropy
from bbb.networks import MLP, BayesianNetwork
from bbb.runs import findings, pictures
from tests import tasks
from tests.tasks import CPU, seeded, settings


def made(num=200, num_classes=10, shape=(1, 8, 8), dtype=torch.uint8):
    """Random log-probabilities and a test set of random images."""
    noise = seeded(3)
    images = torch.randint(0, 256, (num, math.prod(shape)), generator=noise).to(dtype)
    labels = torch.arange(num) % num_classes
    log_probs = torch.randn(num, num_classes, generator=noise).mul(2).log_softmax(1)
    return log_probs, torch.full((num,), 0.01), Split(images, labels, shape)


def test_findings_agree_with_the_scores():
    log_probs, aleatoric, test = made()
    found, scores = findings.of_classes(log_probs, aleatoric, test, None), classification_scores(log_probs, test.labels)
    assert 100 * sum(found["errors"]) / sum(found["totals"]) == pytest.approx(scores["error"])
    bins = found["reliability"]
    gaps = [
        share * abs(accuracy - confidence)
        for share, accuracy, confidence in zip(bins["share"], bins["accuracy"], bins["confidence"], strict=True)
        if share > 0
    ]
    assert 100 * sum(gaps) == pytest.approx(scores["ece"], rel=1e-3)  # they have four digits
    counts = torch.tensor(found["confusion"]["counts"])
    predicted = log_probs.argmax(1)
    for label, guess in ((0, 0), (3, 5), (9, 2)):
        assert counts[label, guess] == ((test.labels == label) & (predicted == guess)).sum()
    assert found["errors"] == (counts.sum(1) - counts.diagonal()).tolist()
    means = [found["entropy"][part]["mean"] for part in ("aleatoric", "epistemic")]
    assert means == pytest.approx([0.01, entropy(log_probs).mean().item() - 0.01], rel=1e-3)
    for part in ("aleatoric", "epistemic"):
        assert sum(found["entropy"][part]["wrong"]) == sum(found["errors"])
        assert sum(found["entropy"][part]["right"]) == len(test) - sum(found["errors"])


def test_the_worst_images_are_those_whose_label_is_least_probable():
    log_probs, aleatoric, test = made(num_classes=3)
    found = findings.of_classes(log_probs, aleatoric, test, [4, 5, 6])
    assert found["classes"] == [4, 5, 6]
    of_label = log_probs.gather(1, test.labels.unsqueeze(1)).squeeze(1)
    for label in range(3):
        members = sorted((test.labels == label).nonzero().squeeze(1).tolist(), key=lambda i: of_label[i].item())
        shown = [picture for picture in found["worst"] if picture["label"] == label]
        assert [picture["index"] for picture in shown] == members[: pictures.NUM_WORST]
        assert shown[0]["prob"] == pytest.approx(of_label[members[0]].exp().item(), rel=1e-3)
        assert shown[0]["predicted"] == log_probs[members[0]].argmax()


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 8, 8)])
def test_pictures_show_the_images(shape):
    log_probs, aleatoric, test = made(shape=shape)
    (picture, *_) = findings.of_classes(log_probs, aleatoric, test, None)["worst"]
    with Image.open(io.BytesIO(base64.b64decode(picture["png"]))) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB")))
    wanted = test.images[picture["index"]].view(-1, 8, 8).permute(1, 2, 0).expand(-1, -1, 3)
    assert torch.equal(pixels, wanted)


def test_large_images_become_small_and_floats_become_grey():
    log_probs, aleatoric, test = made(num=20, shape=(1, 64, 48), dtype=torch.float32)
    picture = findings.of_classes(log_probs, aleatoric, test, None)["worst"][0]
    with Image.open(io.BytesIO(base64.b64decode(picture["png"]))) as image:
        assert image.size == (24, 32)


def test_examples_that_are_no_images_have_no_pictures():
    log_probs, aleatoric, test = made(shape=(64,))
    assert findings.of_classes(log_probs, aleatoric, test, None)["worst"] == []


@pytest.mark.parametrize(
    ("num_classes", "shape"), [(2, (1, 28, 28)), (10, (3, 32, 32)), (30, (28, 28)), (200, (3, 96, 96))]
)
def test_findings_are_small(tmp_path, num_classes, shape):
    """Whatever the data: five hundred runs must fit into a page. Random images are the worst to compress."""
    log_probs, aleatoric, test = made(1000, num_classes, shape)
    found = findings.of_classes(log_probs, aleatoric, test, None)
    findings.write_findings(tmp_path / "findings.json", found)
    assert (tmp_path / "findings.json").stat().st_size < 40_000
    assert 0 < len(found["worst"]) <= pictures.MAX_PICTURES
    if num_classes > findings.MAX_CLASSES:
        label, predicted, num = found["confusion"]["most"][0]
        assert num == ((test.labels == label) & (log_probs.argmax(1) == predicted)).sum()


def test_numbers_that_the_predictive_draws_lie_below_each_quantile_as_often_as_they_should():
    noise = seeded(1)
    means = torch.randn(20, 4000, 1, generator=noise)
    drawn = torch.randint(20, (4000,), generator=noise)
    y = means[drawn, torch.arange(4000), 0] + 0.5 * torch.randn(4000, generator=noise)
    found = findings.of_numbers(means, Split(torch.zeros(4000, 2), y), GaussianNoise(1, 0.5))
    assert found["levels"]["observed"] == pytest.approx(found["levels"]["expected"], abs=5 * 0.5 / math.sqrt(4000))
    assert found["predicted"]["y"][0] == pytest.approx(y[0].item(), rel=1e-3)
    assert found["predicted"]["mean"][-1] == pytest.approx(means[:, -1].mean().item(), rel=1e-3)
    std = math.sqrt(means[:, 0].var(correction=0) + 0.25)
    assert found["predicted"]["std"][0] == pytest.approx(std, rel=1e-3)
    assert sum(found["spread"]["epistemic"]) == 4000
    assert len(json.dumps(found)) < 20_000


def posterior(dim=7):
    return Gaussian(torch.full((dim,), 2.0), torch.full((dim,), math.log(0.2)))


def flowed(dim=7):
    return FlowedGaussian(posterior(dim), [PlanarFlow.identity(dim, 2, 0.2, seeded(0))], [dim])


@pytest.mark.parametrize(
    "q",
    [posterior(), flowed(), Independent([flowed(5), posterior(2)]), Gaussian.stacked([posterior(), posterior()])],
    ids=["Gaussian", "flows", "parts", "replicas"],
)
def test_signal_to_noise_counts_every_weight_by_its_base(q):
    layers = findings.signal_to_noise(BayesianNetwork(MLP((2, 1, 2)), q))
    assert [layer["num"] for layer in layers] == [3, 4]
    num = 2 if q.shape == (2, 7) else 1
    assert [sum(layer["counts"]) for layer in layers] == [3 * num, 4 * num]
    for layer in layers:
        assert layer["median"] == pytest.approx(10.0, rel=1e-3)
        edge = layer["counts"].index(max(layer["counts"])) / findings.SIGNAL_BINS * 5 - 3
        assert edge <= 1.0 <= edge + 0.125 + 1e-6


def test_a_mean_of_zero_counts_in_the_first_bin():
    q = Gaussian(torch.zeros(7), torch.zeros(7))
    assert findings.signal_to_noise(BayesianNetwork(MLP((2, 1, 2)), q))[0]["counts"][0] == 3


def test_findings_cost_no_draws_and_are_those_of_the_result(tmp_path):
    """The numbers of a run with a folder are those of one without; replicas are one ensemble."""
    for changes in ({}, {"num_replicas": 2}):
        folder = tmp_path / str(len(changes))
        folder.mkdir()
        result = runs.run(runs.assemble(settings(**changes), CPU), folder)
        assert dataclasses.replace(result, seconds=0.0) == dataclasses.replace(tasks.run(**changes), seconds=0.0)
        found = json.loads((folder / "findings.json").read_text())
        assert 100 * sum(found["errors"]) / found["num_test"] == pytest.approx(result.test_error)
        assert 0 < found["entropy"]["aleatoric"]["mean"] < math.log(10)
        assert len(found["layers"]) == 2
