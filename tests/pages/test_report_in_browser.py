"""The report in a real browser, opened from disk: what people do with it, and what it must never do."""

import json
import time

import pytest

from bbb.pages import make_report, write_report
from bbb.studies import catalogue, named_configs
from tests.made_runs import found, make_many, make_run
from tests.tasks import CONFIGS

pytestmark = pytest.mark.slow

NAMED = named_configs(CONFIGS)
HTML = "<script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b>&amp;"
CURVES = "return document.querySelectorAll(`[data-panel='${arguments[0]}'] .scatterlayer .trace`).length"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Six runs: a source with two transfers, two others, and one that is damaged."""
    root = tmp_path_factory.mktemp("browser") / "results"
    shown = found(300)
    source = make_run(root, "domain_a", 1, findings=shown, score=0.9, seed=4)
    for i, fraction in enumerate((0.1, 0.02)):
        make_run(root, "transfer", i + 1, minute=i + 1, findings=shown, source=source, score=4.5 + i, fraction=fraction)
    make_run(root, "blundell", 1, minute=4, score=11.0, findings=shown, lr=0.003)
    make_run(root, "plain", 1, minute=5, score=2.0)
    (make_run(root, "zz", 1) / "run.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def page(results):
    path = results / "report.html"
    write_report(catalogue(NAMED, results), path)
    return path


@pytest.fixture
def opened(browser, page):
    """The report, drawn; and after the test: no error in the console, and nothing asked of the network."""
    open_page(browser, page)
    yield browser
    assert browser.errors() == []
    assert browser.requests() == []


def open_page(browser, path, **how):
    seconds = browser.open(path, **how)
    browser.until(lambda: browser.run("return document.documentElement.dataset.ready"), "a page that is drawn")
    return seconds


def names(browser):
    return browser.texts("#table tbody td.name")


def pick(browser, *runs):
    for run in runs:
        browser.find(f"[aria-label='Select {run}']").click()


def test_sorts_by_a_click_up_and_down_and_runs_without_a_score_come_last(opened):
    newest_first = names(opened)
    assert newest_first == ["zz/1", "plain/1", "blundell/1", "transfer/2", "transfer/1", "domain_a/1"]
    button = opened.find("th[data-key=test_error] button")
    button.click()
    assert names(opened) == ["domain_a/1", "plain/1", "transfer/1", "transfer/2", "blundell/1", "zz/1"]
    assert opened.find("th[data-key=test_error]").get_attribute("aria-sort") == "ascending"
    button.click()
    assert names(opened) == ["blundell/1", "transfer/2", "transfer/1", "plain/1", "domain_a/1", "zz/1"]
    opened.find("th[data-key=run] button").click()
    assert names(opened) == sorted(newest_first)


def test_filters_by_words_and_by_status(opened):
    from selenium.webdriver import Keys

    opened.find("#find").send_keys("transfer fraction=0.02")
    assert names(opened) == ["transfer/2"]
    assert opened.texts("#shown") == ["1 of 6 runs, 4 selected"]
    opened.find("#find").send_keys(Keys.CONTROL + "a", Keys.DELETE)
    opened.find("#status").send_keys("damaged")
    opened.until(lambda: names(opened) == ["zz/1"], "the damaged run alone")
    assert "run.json is damaged" in opened.texts("#table tbody")[0]


def test_two_selected_runs_are_two_curves_in_each_panel(opened):
    opened.find("#clear").click()
    opened.until(lambda: opened.run(CURVES, "NLL") == 0)
    pick(opened, "plain/1", "transfer/1")
    for panel in ("Accuracy", "NLL", "ELBO", "KL from the prior"):
        opened.until(lambda panel=panel: opened.run(CURVES, panel) == 2, f"two curves of {panel}")
    assert opened.texts("#legend li") == ["plain/1", "transfer/1"]
    colours = opened.run(
        "const lines = [...document.querySelectorAll(`[data-panel=NLL] .js-line`)];"
        "return lines.map((line) => line.style.stroke + line.style.strokeDasharray)"
    )
    assert len({*colours}) == 2
    opened.find("#with-train").click()
    opened.until(lambda: opened.run(CURVES, "NLL") == 4, "the training too")
    assert opened.run(CURVES, "ELBO") == 2
    shown = "return document.querySelector('[data-panel=NLL]').data.map((trace) => trace.x)"
    assert opened.run(shown)[0] == [1, 2, 3]
    opened.find("#how [value=seconds]").click()
    opened.until(lambda: opened.run(shown)[0] == pytest.approx([6, 10, 13.333], abs=0.01), "seconds")
    pick(opened, "plain/1")
    opened.until(lambda: opened.run(CURVES, "ELBO") == 1, "the other curve alone")


def test_a_quick_hand_is_no_error(opened):
    """Charts that are still being drawn are replaced and redrawn."""
    opened.find("#clear").click()
    opened.run("document.querySelectorAll('#table tbody input').forEach((box) => box.click())")
    opened.run("for (const box of document.querySelectorAll('#how input')) box.click()")
    opened.run("location.hash = '#run=blundell%2F1'; location.hash = '#'; location.hash = '#run=plain%2F1'")
    opened.until(lambda: opened.texts("#run h2") == ["plain/1"])
    time.sleep(1.0)  # what Plotly does later


def test_a_run_shows_all_it_found_and_how_it_is_made_again(opened):
    opened.find("a[href='#run=transfer%2F1']").click()
    opened.until(lambda: opened.texts("#run h2") == ["transfer/1"])
    for card in ("Reliability", "Confusion matrix", "Parts of entropy", "Signal-to-noise of the weights"):
        opened.until(lambda card=card: opened.all(f"[data-card='{card}'] .main-svg"), card)
    assert len(opened.all("#run [data-panel]")) == 4
    assert opened.texts("#command") == ["python experiment.py with experiment_name=transfer fraction=0.1 num_epochs=3"]
    assert len(opened.all(".faces figure img")) == len(found(300)["worst"])
    assert opened.run("return [...document.querySelectorAll('.faces img')].every((image) => image.naturalWidth === 28)")
    assert opened.texts("#run pre.log")[0].startswith("epoch 1/3")
    links = opened.texts("#run .tree a")
    assert links == ["domain_a/1", "transfer/2", "transfer/1"]
    assert opened.texts("#run .tree [aria-current]") == ["transfer/1"]
    opened.find("#run .back").click()
    opened.until(lambda: opened.find("#table").is_displayed(), "the table again")


def test_the_confusion_matrix_and_the_errors_are_those_of_the_run(opened):
    opened.run("location.hash = '#run=blundell%2F1'")
    opened.until(lambda: opened.all("[data-card='Confusion matrix'] .main-svg"))
    counts = found(300)["confusion"]["counts"]
    z = opened.run("return document.querySelector(\"[data-card='Confusion matrix']\").data[0].z")
    assert [[value or 0 for value in row] for row in z] == [
        [0 if i == j else value for j, value in enumerate(row)] for i, row in enumerate(counts)
    ]
    shown = found(300)
    assert opened.texts(".faces h4 span") == [
        f"{wrong} / {total}" for wrong, total in zip(shown["errors"], shown["totals"], strict=True)
    ]


def test_the_keyboard_alone_finds_selects_opens_and_comes_back(opened):
    from selenium.webdriver import Keys

    opened.find("#clear").click()
    opened.press("/")
    opened.press(*"transfer")
    assert names(opened) == ["transfer/2", "transfer/1"]
    opened.run("document.querySelector('#table tbody input').focus()")
    opened.press(Keys.ARROW_DOWN, Keys.SPACE)
    opened.until(lambda: opened.texts("#legend li") == ["transfer/1"], "the run below")
    opened.press(Keys.ARROW_UP, Keys.SPACE)
    opened.until(lambda: opened.texts("#legend li") == ["transfer/1", "transfer/2"], "both")
    opened.press(Keys.ENTER)
    opened.until(lambda: opened.texts("#run h2") == ["transfer/2"], "the run's own view")
    opened.press(Keys.ESCAPE)
    opened.until(lambda: opened.find("#table").is_displayed(), "the table again")
    assert opened.run("return document.activeElement.textContent") == "transfer/2"


def test_the_tab_key_reaches_what_can_be_used_and_its_focus_is_seen(opened):
    from selenium.webdriver import Keys

    opened.run("document.body.focus()")
    reached = []
    for _ in range(9):
        opened.press(Keys.TAB)
        reached.append(opened.run("const e = document.activeElement; return e.id || e.ariaLabel || e.textContent"))
        assert opened.run("return getComputedStyle(document.activeElement).outlineStyle") != "none", reached
    assert reached[:5] == ["Skip to the runs", "Runs", "find", "status", "clear"]
    assert "run" in reached


def test_everything_that_can_be_used_has_a_name(opened):
    for view in ("#", "#run=blundell%2F1"):
        opened.run("location.hash = arguments[0]", view)
        time.sleep(0.2)
        unnamed = opened.run("""
            const named = (e) => e.ariaLabel || e.alt || e.textContent.trim() || e.closest("label")?.textContent.trim();
            const all = [...document.querySelectorAll("button, a, input, select, [role=img], img")];
            return all.filter((e) => !named(e)).map((e) => e.outerHTML)""")
        assert unnamed == []


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen_and_text_can_be_read(browser, page, width, is_dark):
    """On a telephone too. Contrast: WCAG's 4.5 for text."""
    open_page(browser, page, width=width, height=844, is_dark=is_dark)
    for view in ("#", "#run=blundell%2F1"):
        browser.run("location.hash = arguments[0]", view)
        time.sleep(0.3)
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), view
        assert browser.run(CONTRAST) == [], view
    assert browser.errors() == []


CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const paper = (e) => {
  for (; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const holdsText = (e) => e.offsetParent && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
const contrast = (e) => {
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(paper(e))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
};
const all = [...document.querySelectorAll("main *, header *")].filter((e) => !e.closest("svg") && holdsText(e));
return all.filter((e) => contrast(e) < 4.5).map((e) => e.outerHTML.slice(0, 120));
"""


def test_a_run_called_script_is_harmless(browser, tmp_path):
    """In its name, its configuration, its log, its findings, its classes and its source: text stays text."""
    shown = found(60)
    shown["classes"] = [HTML, *range(1, 10)]
    shown["layers"][0]["name"] = HTML
    source = make_run(tmp_path, "<script>alert(1)</script>", 1, findings=shown, dataset=HTML)
    (source / "log.txt").write_text(HTML)
    picture = {"png": '"><script>alert(3)</script>', "label": 0, "predicted": 0, "prob": 0.5, "index": HTML}
    make_run(tmp_path, "b", 2, minute=1, source=source, findings={**shown, "worst": [picture]})
    (make_run(tmp_path, "c", 3, status="FAILED") / "run.json").write_text(
        json.dumps({"status": HTML, "fail_trace": [HTML]})
    )
    make_run(tmp_path, "d", 4, minute=3, source=tmp_path / HTML.replace("/", ""))
    path = tmp_path / "report.html"
    path.write_text(make_report(catalogue(NAMED, tmp_path)))
    num_scripts = path.read_text().count("<script")
    open_page(browser, path)
    browser.find("#table thead input").click()
    for row in browser.run("return RUNS.map((run) => run.run)"):
        browser.run("location.hash = '#run=' + encodeURIComponent(arguments[0])", row)
        browser.until(lambda row=row: browser.texts("#run h2") == [row], row)
        time.sleep(0.3)
        assert browser.run("return document.querySelectorAll('script').length") == num_scripts
        assert browser.run("return document.querySelectorAll('img:not(.faces img)').length") == 0
        assert browser.run("return [...document.querySelectorAll('b')].some((b) => b.textContent === 'bold')") is False
    browser.run("location.hash = '#run=' + encodeURIComponent(arguments[0])", "<script>alert(1)</script>/1")
    layers = "[data-card='Signal-to-noise of the weights'] .legendtext"
    browser.until(lambda: browser.texts(layers), "the legend of the layers")
    assert browser.texts(layers)[0] == f"layer {HTML}"  # Plotly too shows it as it is
    assert browser.errors() == []
    assert browser.requests() == []


ODD = [None, 3, "text", [], [None], {"classes": 3}, {"classes": [1], "errors": None}, {"layers": [{"name": 1}]}]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_damaged_findings_leave_the_rest_of_a_run_to_be_seen(browser, tmp_path, odd):
    shown = found(60)
    broken = dict.fromkeys(shown, odd) if not isinstance(odd, dict) else {**shown, **odd}
    make_run(tmp_path, "a", 1, findings=broken)
    path = tmp_path / "report.html"
    write_report(catalogue(NAMED, tmp_path), path)
    open_page(browser, path)
    browser.run("location.hash = '#run=a%2F1'")
    browser.until(lambda: browser.all("#run [data-panel=NLL] .main-svg"), "its curves")
    assert browser.texts("#run pre.log")[0].startswith("epoch 1/3")
    assert browser.errors() == []


def test_five_hundred_runs_are_written_and_opened_in_time_and_are_not_too_large(browser, tmp_path):
    """The bounds are those that were promised: 20 s, 3 s and 30 MB; a busy machine gets one more try to open."""
    make_many(tmp_path, 500)
    path = tmp_path / "report.html"
    start = time.perf_counter()
    entries = catalogue(NAMED, tmp_path)
    size = write_report(entries, path)
    assert time.perf_counter() - start < 20
    assert size == path.stat().st_size < 30e6
    assert len(entries) == 500
    assert all(entry.scores["test_error"] for entry in entries)
    assert min(open_page(browser, path) for _ in range(2)) < 3
    assert len(names(browser)) == 500
    assert browser.errors() == []
