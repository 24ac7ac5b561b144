"""The page in headless Chromium: what it does, at several widths and in the dark."""

import shutil

import pytest
from made_results import examples
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from test_page_of_strangers import MARKUP, hostile_folder

from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.report import load_results, write_page

_CHROMIUM = shutil.which("google-chrome") or shutil.which("chromium") or shutil.which("chromium-browser")
_DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (_CHROMIUM and _DRIVER), reason="needs Chromium and chromedriver, as apt-get install chromium chromium-driver"
)


@pytest.fixture
def browser():
    options = Options()
    options.binary_location = str(_CHROMIUM)
    # A container's user may be root, its shared memory small.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_DRIVER))
    yield driver
    driver.quit()


def resize(browser, width):
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def draw_all(browser):
    """Scroll past every plot, and wait until it is drawn."""
    plots = browser.find_elements(By.CSS_SELECTOR, ".plot")
    for plot in plots:
        browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plot)
        WebDriverWait(browser, 30).until(lambda _, plot=plot: plot.get_attribute("data-drawn") is not None)
    return plots


def overflow(browser):
    return browser.execute_script("return document.documentElement.scrollWidth - innerWidth")


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def column(browser, section, name):
    """Cells of a column of a table, from top to bottom, and its header."""
    table = browser.find_element(By.CSS_SELECTOR, f"#{section} table")
    headers = table.find_elements(By.CSS_SELECTOR, "thead th")
    (place,) = [i for i, header in enumerate(headers) if header.text.split(" ↕")[0] == name]
    rows = table.find_elements(By.CSS_SELECTOR, "tbody tr")
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[place].text for row in rows], headers[place]


def test_a_study_at_every_width(browser, study_folder):
    write_json(study_folder / "wide/seed0/eval/plain/examples/run5.json", examples("run5"))
    page = write_page(load_results(study_folder), study_folder)
    resize(browser, 1920)
    browser.get(page.as_uri())
    plots = draw_all(browser)
    assert len(plots) > 20
    for plot in plots:
        assert browser.execute_script("return arguments[0]._fullData.length", plot) > 0
        assert plot.find_elements(By.CSS_SELECTOR, ".plot path, .plot text")
    for width in (1920, 768, 360):
        resize(browser, width)
        WebDriverWait(browser, 10).until(lambda _: overflow(browser) <= 0)
        assert all(plot.size["width"] <= width for plot in plots)
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert complaints(browser) == []


def test_a_table_sorts_by_click_and_by_keyboard(browser, study_folder):
    page = write_page(load_results(study_folder), study_folder)
    resize(browser, 1440)
    browser.get(page.as_uri())
    before, header = column(browser, "results", "score")
    assert before == ["0.000 ± 0.000", "0.550 ± 0.635"] * 2
    header.find_element(By.TAG_NAME, "button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert column(browser, "results", "score")[0] == sorted(before)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert header.get_attribute("aria-sort") == "descending"
    assert column(browser, "results", "score")[0] == sorted(before, reverse=True)
    ActionChains(browser).send_keys(Keys.TAB, Keys.SPACE).perform()
    assert header.get_attribute("aria-sort") is None
    assert column(browser, "results", "forgetting")[1].get_attribute("aria-sort") == "ascending"
    assert complaints(browser) == []


def test_the_keyboard_reaches_the_content_and_the_legend_hides_a_variant(browser, study_folder):
    page = write_page(load_results(study_folder), study_folder)
    resize(browser, 1440)
    browser.get(page.as_uri())
    ActionChains(browser).send_keys(Keys.TAB, Keys.ENTER).perform()
    assert browser.switch_to.active_element.get_attribute("id") == "content"
    draw_all(browser)
    entry = browser.find_element(By.CSS_SELECTOR, "#frontier .legend button")
    plot = browser.find_element(By.CSS_SELECTOR, "#frontier .plot")
    visible = "return arguments[0]._fullData.filter((trace) => trace.visible === true).map((trace) => trace.name)"
    assert set(browser.execute_script(visible, plot)) == {"run0", "run5"}
    entry.send_keys(Keys.ENTER)
    assert entry.get_attribute("aria-pressed") == "false"
    WebDriverWait(browser, 10).until(lambda _: set(browser.execute_script(visible, plot)) == {"run5"})


def test_the_colours_follow_the_system(browser, run_folder):
    page = write_page(load_results(run_folder), run_folder)
    browser.get(page.as_uri())
    draw_all(browser)
    ink = "return getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light = browser.execute_script(ink)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    WebDriverWait(browser, 10).until(lambda _: browser.execute_script(ink) != light)
    body = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert body == "rgb(20, 23, 26)"
    assert browser.execute_script(ink) == "rgb(232, 234, 237)"
    assert complaints(browser) == []


def test_what_strangers_wrote_is_only_text(browser, tmp_path):
    for number, text in enumerate((" ".join(MARKUP[:4]), " ".join(MARKUP[4:]))):
        folder = hostile_folder(tmp_path / str(number), text)
        browser.get(write_page(load_results(folder), folder).as_uri())
        draw_all(browser)
        resize(browser, 360)
        WebDriverWait(browser, 10).until(lambda _: overflow(browser) <= 0)
        assert browser.execute_script("return typeof planted") == "undefined"
        for markup in ("a:not([href^='#'])", "img", "iframe", "[onclick]", "main b"):
            assert browser.find_elements(By.CSS_SELECTOR, markup) == []
        # In one go: after a change of width a plot may be drawn anew between two requests.
        first_tick = browser.execute_script("return document.querySelector('#scores .ytick text').textContent")
        shown = "".join(first_tick.split())
        assert shown.rstrip("…") == "".join(text.split())[: len(shown.rstrip("…"))]
        assert complaints(browser) == []
