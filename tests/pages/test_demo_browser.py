"""The page to draw on, in a real browser: it computes what Python computes, and a drawn seven is a seven."""

import base64
import copy
import itertools

import pytest
import torch

from bbb.data import Normalization, load, rotate_images
from bbb.networks import MLP, BayesianNetwork, initial_network, lenet
from bbb.pages import write_demo
from bbb.pages.halves import rounded_weights
from bbb.runs import load as load_posterior
from tests.pages.test_demo import ON_DIGITS, saved
from tests.tasks import command, seeded

webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed: pip install selenium")
Keys = webdriver.Keys
pytestmark = pytest.mark.slow

QUANTILES = torch.tensor([0.05, 0.95])  # between which the whiskers reach
SEVEN = [[(0.3, 0.2), (0.72, 0.2), (0.6, 0.5), (0.45, 0.85)]]
CROSSED_SEVEN = [[(0.34, 0.15), (0.62, 0.15), (0.56, 0.5), (0.46, 0.87)], [(0.38, 0.5), (0.68, 0.48)]]
FOUR = [[(0.35, 0.13), (0.28, 0.52), (0.75, 0.52)], [(0.66, 0.15), (0.62, 0.88)]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A posterior of the embedded digits, and the page of it beside one that was never trained."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["dataset=digits8x8", "num_epochs=60", "num_hidden=100", "num_test_samples=5", "num_threads=1"]
        command("with", "blundell", "experiment_name=digits", *words)
        saved(folder, initial_network(MLP((64, 8, 10)), 0.05, seeded(0)), "untrained")
        command("demo", "with", "pretrained=[digits,untrained.safetensors]")
    return folder


@pytest.fixture
def page(browser, trained):
    """The page, opened; in the end its console is free of errors, and it has asked for nothing."""
    browser.open(trained / "results" / "demo.html")
    yield browser
    assert browser.errors() == []
    assert browser.requests() == []


def draw(browser, strokes):
    """Draw strokes with the pointer, whose points are in 0..1 of the canvas."""
    board = browser.find("#board")
    side = board.size["width"]
    for stroke in strokes:
        actions = webdriver.ActionChains(browser.driver, duration=20)
        for i, (x, y) in enumerate(stroke):
            actions.move_to_element_with_offset(board, (x - 0.5) * side, (y - 0.5) * side)
            if i == 0:
                actions.click_and_hold()
        actions.release().perform()


def results(browser):
    """What the panels show, once they have come to rest."""
    browser.until(lambda: browser.run("return demo.isReady"), "the newest answer")
    return browser.run("return demo.results")


def pixels_of(browser):
    """What is drawn, as raw pixels ``(P,)``."""
    return torch.tensor(browser.run("return demo.pixels()"), dtype=torch.float32)


def predicted(browser, image, noise, number=0):
    """What the page predicts of raw pixels ``(P,)`` under given noise ``(S, D)``."""
    script = """
        const [pixels, noise, i] = arguments;
        return demo.predict(pixels, noise.map((text) => new Float32Array(network.bytesOf(text).buffer)), i);
    """
    texts = [base64.b64encode(draw.numpy().tobytes()).decode() for draw in noise]
    return browser.run(script, image.tolist(), texts, number)


def noise_of(network, num_samples, seed):
    """The noise that a posterior's draws of a seed are made of, one after another."""
    generator, dim = seeded(seed), network.posterior.dim
    return torch.stack([torch.empty(1, dim).normal_(generator=generator)[0] for _ in range(num_samples)])


def rounded(posterior):
    """The same posterior, with means and standard deviations as the page holds them."""
    posterior = copy.deepcopy(posterior)
    base = posterior.network.posterior
    base.mean.copy_(rounded_weights(posterior.network, base.mean.unsqueeze(0))[0])
    base.log_std.copy_(base.log_std.exp().half().float().log())
    return posterior


def differences(browser, posterior, image, number=0, num_samples=5):
    """How far the page's answer is from a posterior's, for the same draws: the largest of all that it shows."""
    theirs = predicted(browser, image, noise_of(posterior.network, num_samples, 3), number)
    ours = posterior.predict(image, num_samples, seed=3)
    assert theirs["entropy"] == pytest.approx(theirs["aleatoric"] + theirs["epistemic"], abs=1e-9)
    draws = torch.tensor(theirs["draws"])
    assert torch.allclose(torch.tensor([theirs["low"], theirs["high"]]), draws.quantile(QUANTILES, 0), atol=1e-6)
    found = (torch.tensor(theirs["probs"]) - ours.probs[0]).abs().max().item()
    parts = [abs(theirs[name] - getattr(ours, name).item()) for name in ("entropy", "aleatoric", "epistemic")]
    return found, max(parts)


def with_means(network, scale):
    """Spread a new network's probabilities, as training does."""
    with torch.no_grad():
        network.posterior.mean.mul_(scale)
    return network


MEMBERS = {
    "mlp": lambda: with_means(initial_network(MLP((64, 50, 40, 10)), 0.05, seeded(1)), 1.5),
    "no hidden layer": lambda: initial_network(MLP((64, 10)), 0.1, seeded(1)),
    "lenet": lambda: initial_network(lenet((1, 20, 20), 10), 0.05, seeded(1)),
    "standardized": lambda: initial_network(
        MLP((64, 50, 10)),
        0.1,
        seeded(1),
        normalization=Normalization(torch.linspace(0, 200, 64), torch.linspace(0.005, 0.02, 64)),
    ),
    "many classes": lambda: initial_network(MLP((64, 50, 30)), 0.1, seeded(1)),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_the_page_agrees_with_predict_for_the_same_draws(browser, tmp_path, name):
    path = saved(tmp_path, MEMBERS[name](), about={})
    write_demo([path], tmp_path / "demo.html", tmp_path)
    browser.open(tmp_path / "demo.html")
    posterior = load_posterior(path)
    num_inputs = posterior.network.architecture.num_inputs
    image = torch.randint(256, (num_inputs,), dtype=torch.uint8, generator=seeded(5)) * (
        torch.arange(num_inputs) % 3 > 0
    )
    assert max(differences(browser, rounded(posterior), image)) < 2e-5, "float32, summed in another order"
    probs, parts = differences(browser, posterior, image)
    assert probs < 1e-3, "half precision too"
    assert parts < 5e-3
    assert browser.errors() == []


def test_draws_take_turns_among_replicas(browser, tmp_path):
    networks = [initial_network(MLP((64, 20, 10)), 0.1, seeded(seed)) for seed in range(3)]
    path = saved(tmp_path, BayesianNetwork.stacked(networks))
    write_demo([path], tmp_path / "demo.html", tmp_path)
    browser.open(tmp_path / "demo.html")
    posterior, image = load_posterior(path), load("digits8x8")[1].images[0]
    generator = seeded(3)  # predict draws all of a replica's weights before those of the next
    of_replicas = [
        [torch.empty(1, networks[0].posterior.dim).normal_(generator=generator)[0] for _ in range(2)] for _ in range(3)
    ]
    theirs = predicted(browser, image, list(itertools.chain(*zip(*of_replicas, strict=True))))
    ours = posterior.predict(image, 2, seed=3)
    assert torch.tensor(theirs["probs"]).sub(ours.probs[0]).abs().max() < 1e-3


def test_a_drawn_seven_is_a_seven(page):
    draw(page, CROSSED_SEVEN)
    trained, untrained = results(page)
    assert max(range(10), key=trained["probs"].__getitem__) == 7
    assert trained["probs"][7] > 0.7
    assert page.texts(".panel strong")[0] == "7"
    assert untrained["entropy"] > trained["entropy"]
    page.find("#clear").click()
    assert results(page) == [None, None]
    assert page.texts(".panel strong") == ["?", "?"]


def test_what_is_shown_is_what_predict_gives_for_the_drawing(page, trained):
    """With the page's own draws: close to Python's of the same posterior, in standard errors of 50 draws."""
    draw(page, FOUR)
    page.run(
        "const draws = document.getElementById('draws'); draws.value = 50; draws.dispatchEvent(new Event('input'))"
    )
    shown = results(page)[0]
    pixels = pixels_of(page).round().to(torch.uint8)
    ours = load_posterior(trained / "results" / "digits").predict(pixels, 2000)
    spread = torch.tensor(shown["draws"]).std(0) / 50**0.5
    assert (torch.tensor(shown["probs"]) - ours.probs[0]).abs().le(5 * spread + 1e-3).all()


def test_the_slider_sets_the_number_of_draws(page):
    draw(page, FOUR)
    assert [len(result["draws"]) for result in results(page)] == [20, 20]
    page.find("#draws").send_keys(Keys.ARROW_RIGHT)
    assert [len(result["draws"]) for result in results(page)] == [21, 21]
    assert page.texts("#num") == ["21"]
    assert len(page.all(".panel:first-child .draws .draw")) == 21
    page.find("#draws").send_keys(Keys.HOME)
    (alone, _) = results(page)
    assert alone["epistemic"] == 0
    assert alone["probs"] == alone["low"] == alone["high"]


def test_more_draws_begin_with_the_same_ones_and_others_can_be_drawn(page):
    draw(page, FOUR)
    (before, _) = results(page)
    page.find("#draws").send_keys(Keys.ARROW_RIGHT)
    (more, _) = results(page)
    assert more["draws"][:20] == before["draws"]
    page.find("#redraw").click()
    (others, _) = results(page)
    assert not {tuple(one) for one in others["draws"]} & {tuple(one) for one in more["draws"]}


def test_each_example_is_what_its_button_says(page):
    _, test = load("digits8x8")
    page.find("#digit").click()
    (shown, _) = results(page)
    image = pixels_of(page)
    (index,) = (test.images.float() - image).abs().max(1).values.lt(0.01).nonzero().flatten().tolist()[:1]
    label = test.labels[index].item()
    assert page.texts("#what") == [f"A test digit of digits8x8, labelled {label}."]
    assert max(range(10), key=shown["probs"].__getitem__) == label
    page.find("#turned").click()
    results(page)
    label = int(page.texts("#what")[0].split("labelled ")[1][0])
    of_class = test.images[(test.labels == label).nonzero().flatten()[:2]].float()
    turned = rotate_images(of_class, 90.0)
    assert (turned - pixels_of(page)).abs().max(1).values.min() < 0.01
    seen = [page.run("return demo.pixels()")]
    for name in ("letter", "letter", "noise", "noise"):
        page.find(f"#{name}").click()
        results(page)
        seen.append(page.run("return demo.pixels()"))
    assert all(one != other for one, other in itertools.combinations(seen, 2))
    noise = pixels_of(page)
    assert 100 < noise.mean() < 155
    assert noise.std() > 60


def test_a_drawing_can_be_made_and_undone_with_the_keyboard(page):
    page.run("document.getElementById('board').focus()")
    page.press(" ", *[Keys.ARROW_DOWN] * 6, " ", Keys.ARROW_RIGHT)
    first = results(page)[0]["probs"]
    page.press(" ", Keys.ARROW_UP, " ")
    assert results(page)[0]["probs"] != first
    page.press(Keys.BACKSPACE)
    assert results(page)[0]["probs"] == first
    page.press(Keys.DELETE)
    assert results(page) == [None, None]


def test_the_size_and_place_of_a_drawing_do_not_matter(page):
    draw(page, CROSSED_SEVEN)
    results(page)
    image = pixels_of(page)
    page.find("#clear").click()
    draw(page, [[(0.6 * x + 0.05, 0.6 * y + 0.3) for x, y in stroke] for stroke in CROSSED_SEVEN])
    results(page)
    small = pixels_of(page)
    assert (image - small).abs().mean() < 5, "the pointer stops at whole pixels"


@pytest.mark.parametrize("strokes", [SEVEN, FOUR, [[(0.5, 0.2), (0.5, 0.6)]]], ids=["seven", "four", "one"])
def test_a_drawing_fills_the_box_and_has_its_mass_at_the_centre(browser, tmp_path, strokes):
    path = saved(tmp_path, initial_network(MLP((784, 4, 10)), 0.05, seeded(0)), about={})
    write_demo([path], tmp_path / "demo.html", tmp_path)
    browser.open(tmp_path / "demo.html")
    draw(browser, strokes)
    results(browser)
    fit = browser.run("return JSON.parse(document.getElementById('data').textContent).examples")
    image, places = pixels_of(browser).view(28, 28), torch.arange(28) + 0.5
    centre = [((image.sum(axis) * places).sum() / image.sum()).item() for axis in (0, 1)]
    assert centre == pytest.approx(fit["centre"], abs=0.1)
    sides = [(image > 20).any(axis).sum().item() for axis in (0, 1)]
    assert max(sides) == pytest.approx(fit["box"], abs=1)
    assert browser.errors() == []


@pytest.mark.parametrize("width", [1280, 390])
def test_two_posteriors_are_side_by_side_and_fit(page, width):
    page.resize(width, 844)
    draw(page, FOUR)
    results(page)
    first, second = (panel.rect for panel in page.all(".panel"))
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] <= second["x"]
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.texts(".panel h2") == ["digits", "untrained.safetensors"]


def test_the_page_is_dark_where_the_user_wants_it(browser, trained):
    def brightness(is_dark):
        browser.open(trained / "results" / "demo.html", is_dark=is_dark)
        colour = browser.run("return getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour.strip("rgb()").split(",")))

    assert brightness(is_dark=True) < 150 < 600 < brightness(is_dark=False)


def test_what_the_panel_says_is_said_to_those_who_listen(page):
    draw(page, CROSSED_SEVEN)
    results(page)
    spoken = page.until(lambda: page.texts("#spoken")[0], "the announcement")
    assert spoken.startswith("digits: 7, ")
    assert "untrained.safetensors: " in spoken
    label = page.run("return document.querySelector('.columns').getAttribute('aria-label')")
    assert label.startswith("Probabilities. 7: ")
    names = page.run("""
        return [...document.querySelectorAll("button, input, canvas")].map(
            (element) => element.ariaLabel || element.labels?.[0]?.textContent || element.textContent);
    """)
    assert all(names)


def test_a_name_that_is_markup_is_harmless(browser, tmp_path):
    names = ["<img src=x onerror=hacked=1>", "<script>hacked=1<"]
    paths = [saved(tmp_path, initial_network(MLP((64, 8, 10)), 0.05, seeded(0)), name, ON_DIGITS) for name in names]
    write_demo(paths, tmp_path / "demo.html", tmp_path)
    browser.open(tmp_path / "demo.html")
    browser.find("#digit").click()
    results(browser)
    assert browser.texts(".panel h2") == paths
    assert browser.run("return typeof window.hacked") == "undefined"
    assert (browser.errors(), browser.requests()) == ([], [])


def test_a_digit_like_mnists_is_read(browser, tmp_path, mnist_dir, monkeypatch):
    """Three epochs on the real MNIST; and half precision costs less than 1e-3 there."""
    monkeypatch.chdir(tmp_path)
    command("with", "blundell", f"data_dir={mnist_dir}", "num_epochs=3", "num_test_samples=5")
    command("demo", "with", "pretrained=blundell", f"data_dir={mnist_dir}")
    browser.open(tmp_path / "results" / "demo.html")
    for digit, strokes in ((7, SEVEN), (4, FOUR)):
        browser.find("#clear").click()
        draw(browser, strokes)
        (shown,) = results(browser)
        assert shown["probs"][digit] > 0.9
    posterior, (_, test) = load_posterior("blundell"), load("mnist", mnist_dir)
    found = [differences(browser, posterior, image, num_samples=3) for image in test.images[:8]]
    assert max(probs for probs, _ in found) < 1e-3
    assert (browser.errors(), browser.requests()) == ([], [])
