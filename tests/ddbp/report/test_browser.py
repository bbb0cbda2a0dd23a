"""The page in a browser: it is drawn, answers to keys and buttons, fits a phone, and is silent."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ddbp.report import page
from ddbp.report.run import Run

from .folders import find, record, run_folder

SOURCE = Path(__file__).parents[3] / "scripts" / "bench" / "lib" / "browser.py"
SPEC = importlib.util.spec_from_file_location("browser", SOURCE)
browser = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(browser)

pytestmark = pytest.mark.skipif(
    browser.found() is None, reason="Chromium is not installed: apt-get install chromium"
)
MARKUP = "<img src=x onerror=\"document.title='harm'\">"
# The number of pixels of the first canvas of a figure that are not empty.
PIXELS = """(title => { const figure = FIGURE(title), canvas = figure.querySelector('canvas');
    const context = canvas.getContext('2d');
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, n) => n % 4 === 3 && value > 0).length; })"""
FIGURE = """[...document.querySelectorAll('figure')].find(
    each => each.querySelector('h3').textContent === title)"""
# Draws what lies below, too, however long that takes.
ALL = """(async () => { for (const each of document.querySelectorAll('figure')) {
    const until = performance.now() + 60_000;
    each.scrollIntoView();
    while (!each.matches('.drawn') && each.querySelector('.plot') && performance.now() < until)
        await new Promise(done => setTimeout(done, 10)); } })()"""


TOKENS = ["a", "\n", MARKUP]


def texts(folder):
    """Write samples of text with a token of each shade."""
    windows = [{"sample": 3, "kind": kind, "first": 0, "of": 9} for kind in ("worst", "usual")]
    facts = {"data": "validation", "samples": 4, "seen": 4, "texts": windows}
    facts |= {"vocabulary": TOKENS, "written": f"{MARKUP}\n{'long' * 200}"}
    arrays = {}
    for n in range(2):
        arrays |= {f"text{n}.tokens": np.arange(10) % 3, f"text{n}.guesses": np.zeros(9, int)}
        arrays |= {f"text{n}.chances": 0.5 ** np.arange(9.0), f"text{n}.sure": np.ones(9)}
    pairs = np.array([[0, 1, 5], [2, 2, 7]])
    np.savez(folder / "samples.npz", facts=np.array(json.dumps(facts)), pairs=pairs, **arrays)


@pytest.fixture(scope="module")
def chromium():
    with browser.page() as opened:
        yield opened


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the page of a run with all that there can be."""
    folder = run_folder(tmp_path_factory.mktemp("browser") / "run")
    record(folder, value=0.25, names=["layers.0", MARKUP, "layers.2"])
    find(folder, rule=MARKUP)
    facts = np.array(json.dumps({"data": "validation", "samples": 4, "seen": 4}))
    images = {f"input{n}": np.random.default_rng(n).random((8, 8, 1)) for n in range(2)}
    labels = dict.fromkeys(("numbers", "losses", "targets", "predictions", "probabilities"))
    labels = {name: np.arange(4) for name in labels}
    images |= {f"input{n}": np.random.default_rng(n).random((20, 2)) for n in (2, 3)}
    pairs = np.array([[label, label % 5, 1234] for label in range(20)])
    np.savez(folder / "samples.npz", facts=facts, pairs=pairs, **labels, **images)
    page.write([Run.read(folder)], folder / page.NAME)
    return folder / page.NAME


def opened(chromium, path, *, width=1200, dark=False):
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.open(path, width=width, height=900, dark=dark)
    chromium.evaluate(ALL)
    return chromium


def figure(title):
    """Return JavaScript for a figure."""
    return FIGURE.replace("title)", f"{json.dumps(title)})")


def plot(title):
    """Return JavaScript for the plot of a figure, as uPlot knows it."""
    return f"{figure(title)}.querySelector('.plot').plot.u"


def readout(chromium, title):
    return chromium.evaluate(f"{figure(title)}.querySelector('.readout').textContent")


@pytest.mark.parametrize("width", [320, 390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_page_is_drawn_within_its_width_without_a_complaint(chromium, written, width, dark):
    shown = opened(chromium, written, width=width, dark=dark)
    assert shown.complaints == []
    assert shown.requests == [written.as_uri()]
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    theme = shown.evaluate("document.documentElement.dataset.theme")
    assert theme == ("dark" if dark else "light")
    count = "document.querySelectorAll('figure:not(.drawn) .plot').length"
    assert shown.evaluate(count) == 0
    pixels = PIXELS.replace("FIGURE(title)", FIGURE)
    for title in ("Loss", "Gradients at the layers", "Distribution of activations over time"):
        assert shown.evaluate(f"{pixels}({json.dumps(title)})") > 2000


def test_names_with_markup_are_shown_and_do_nothing(chromium, written):
    shown = opened(chromium, written)
    assert shown.evaluate("document.title") == "run - ddbp"
    assert shown.evaluate("document.querySelectorAll('img').length") == 0
    options = f"[...{figure('Distribution of activations over time')}.querySelectorAll('option')]"
    assert shown.evaluate(f"{options}.map(each => each.textContent)[1]") == MARKUP


def test_keys_move_the_cursor_and_zoom(chromium, written):
    shown = opened(chromium, written)
    shown.evaluate(f"{figure('Loss')}.querySelector('.plot').focus()")
    shown.press("Home")
    shown.press("ArrowRight")
    assert readout(shown, "Loss") == "step 2: training 1"
    shown.press("End")
    assert readout(shown, "Loss") == "step 40: training 0.05, validation 0.5"
    limits = f"(u => [u.scales.x.min, u.scales.x.max])({plot('Loss')})"
    assert shown.evaluate(limits) == [1, 40]
    shown.press("+")
    low, high = shown.evaluate(limits)
    assert high - low == pytest.approx(19.5)
    shown.press("0")
    assert shown.evaluate(limits) == [1, 40]


def test_keys_choose_the_row_of_a_map(chromium, written):
    shown = opened(chromium, written)
    shown.evaluate(f"{figure('Gradients at the layers')}.querySelector('.plot').focus()")
    shown.press("Home")
    assert readout(shown, "Gradients at the layers") == "layers.0: 0.25, step 0"
    shown.press("ArrowDown")
    shown.press("ArrowDown")
    shown.press("ArrowRight")
    assert readout(shown, "Gradients at the layers") == "layers.2: 0.25, step 5"


def test_cursor_at_a_finding_names_it(chromium, written):
    shown = opened(chromium, written)
    shown.evaluate(f"{figure('Learning rate')}.querySelector('.plot').focus()")
    shown.press("Home")
    for _ in range(19):
        shown.press("ArrowRight")
    assert readout(shown, "Learning rate").endswith(f"; finding: {MARKUP}")


def test_buttons_hide_a_curve_and_choose_the_scale(chromium, written):
    shown = opened(chromium, written)
    state = f"(u => [u.series[1].show, u.series.at(-1).show, u.scales.y.distr])({plot('Loss')})"
    assert shown.evaluate(state) == [True, True, 1]
    buttons = f"[...{figure('Loss')}.querySelectorAll('button')]"
    for name in ("logarithmic", "training"):
        shown.evaluate(f"{buttons}.find(each => each.textContent === '{name}').click()")
    assert shown.evaluate(state) == [False, True, 3]
    assert shown.complaints == []


def test_all_points_of_a_cloud_are_drawn(chromium, tmp_path):
    folder = run_folder(tmp_path / "run")
    expected = np.repeat(np.arange(5.0), 100)[:, np.newaxis]
    outputs = expected + np.random.default_rng(0).standard_normal(expected.shape)
    facts = np.array(json.dumps({"data": "validation", "samples": 500, "seen": 500}))
    none = {"numbers": np.zeros(0, int), "losses": np.zeros(0)}
    np.savez(folder / "samples.npz", facts=facts, outputs=outputs, expected=expected, **none)
    page.write([Run.read(folder)], folder / page.NAME)
    shown = opened(chromium, folder / page.NAME)
    drawn = shown.evaluate(f"{plot('Residuals')}.data")
    assert [len(each) for each in drawn] == [500, 500]
    np.testing.assert_allclose(drawn[0], expected[:, 0])
    np.testing.assert_allclose(drawn[1], (outputs - expected)[:, 0], rtol=1e-4)
    assert shown.evaluate(f"{plot('Residuals')}.series[1].idxs") == [0, 499]
    assert shown.complaints == []


def test_a_run_is_told_from_the_axis_whatever_its_name(chromium, tmp_path):
    runs = [Run.read(run_folder(tmp_path / name)) for name in ("step", "other")]
    page.write(runs, tmp_path / page.NAME)
    shown = opened(chromium, tmp_path / page.NAME)
    shown.evaluate(f"{figure('Loss')}.querySelector('.plot').focus()")
    shown.press("End")
    assert readout(shown, "Loss") == "step 40: step 0.05, other 0.05"


def test_theme_is_chosen_by_the_button(chromium, written):
    shown = opened(chromium, written)
    colour = "getComputedStyle(document.body).backgroundColor"
    assert shown.evaluate(colour) == "rgb(255, 255, 255)"
    shown.evaluate("document.getElementById('theme').click()")
    assert shown.evaluate(colour) == "rgb(16, 20, 24)"


@pytest.mark.parametrize("width", [320, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_texts_are_shown_with_contrast_and_do_nothing(chromium, tmp_path, width, dark):
    folder = run_folder(tmp_path / "run")
    texts(folder)
    page.write([Run.read(folder)], folder / page.NAME)
    shown = opened(chromium, folder / page.NAME, width=width, dark=dark)
    assert shown.complaints == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate("document.title") == "run - ddbp"
    tokens = "[...document.querySelectorAll('.window .text i')]"
    assert shown.evaluate(f"{tokens}.map(each => each.textContent).slice(0, 2)") == ["⏎\n", MARKUP]
    assert shown.evaluate(f"{tokens}.map(each => each.title).slice(0, 3)") == ["1", "0.5", "0.25"]
    lined = f"{tokens}.map(each => getComputedStyle(each).textDecorationLine)"
    assert shown.evaluate(lined)[:9] == ["none"] * 6 + ["underline"] * 3
    shades = f"{tokens}.map(each => getComputedStyle(each).backgroundColor)"
    assert len({*shown.evaluate(shades)[:7]}) == 7
    for n in range(8):
        assert shown.evaluate(SHADED.replace("N", str(n))) >= 4.5, n


# The contrast of a token of shade N with its ground, which is seen through.
SHADED = """(() => {
    const token = document.querySelector('.window .qN'), place = token.closest('.window');
    const context = document.createElement('canvas').getContext('2d');
    const light = (...layers) => {
        for (const each of layers) { context.fillStyle = each; context.fillRect(0, 0, 1, 1); }
        const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const style = getComputedStyle(token);
    const ground = light(getComputedStyle(place).backgroundColor, style.backgroundColor);
    const ink = light(style.color);
    return Math.max(ink, ground) / Math.min(ink, ground); })()"""


# The contrast of two colours, by WCAG 2.1.
CONTRAST = """((a, b) => {
    const light = name => {
        const context = document.createElement('canvas').getContext('2d');
        const style = getComputedStyle(document.documentElement);
        context.fillStyle = style.getPropertyValue(name).trim();
        context.fillRect(0, 0, 1, 1);
        const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const [x, y] = [light(a), light(b)];
    return Math.max(x, y) / Math.min(x, y); })"""


@pytest.mark.parametrize("dark", [False, True])
def test_texts_and_curves_have_contrast(chromium, written, dark):
    shown = opened(chromium, written, dark=dark)
    for text in ("--ink", "--soft", "--accent", "--bad"):
        for ground in ("--paper", "--panel"):
            assert shown.evaluate(f"{CONTRAST}('{text}', '{ground}')") >= 4.5, (text, ground)
    for n in range(8):
        assert shown.evaluate(f"{CONTRAST}('--c{n}', '--panel')") >= 4.5, n


def test_everything_that_acts_has_a_name_and_is_reached_by_keys(chromium, written):
    shown = opened(chromium, written)
    nameless = """[...document.querySelectorAll('button, select, a, [role], [tabindex]')].filter(
        each => !(each.textContent.trim() || each.getAttribute('aria-label'))).length"""
    assert shown.evaluate(nameless) == 0
    plots = "[...document.querySelectorAll('figure.drawn .plot')].every(p => p.tabIndex === 0)"
    assert shown.evaluate(plots)
