"""The page of a report in headless Chromium: sorting, blink compare, dark mode, keys, and no request to anywhere."""

import json
import shutil
import time

import pytest

from report import report
from tests.compose import config
from tests.run_folders import add_pictures, make_run, metric_entries

pytestmark = pytest.mark.browser
selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install -r requirements-browser.txt")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no chromium with chromedriver here: apt-get install chromium chromium-driver", allow_module_level=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two runs whose outputs are apart from the truth (100) by 10, 60, 30 and 50, 20, 40 levels."""
    folder = tmp_path_factory.mktemp("runs")
    for at, shades in enumerate(({"a": 110, "b": 160, "c": 130}, {"a": 150, "b": 120, "c": 140})):
        run = make_run(
            folder / str(at), run=f"run{at}", metrics=metric_entries(fid=1.0 + at), log=30, batch_size=at + 1
        )
        add_pictures(run, shades)
        layer = {
            "name": "relu1", "edges": [-1, 0, 1], "positive": [0.1, 0.9], "negative": [0.6, 0.4], "overlap": 0.5,
            "rank": 0.9, "positive_mean": 0.4, "negative_mean": -0.1,
        }  # fmt: skip
        (run / "analysis" / "100").mkdir(parents=True)
        found = {"step": 100, "query": "fake", "key": "target", "images": 3, "features": "projected", "layers": [layer]}
        (run / "analysis" / "100" / "similarity.json").write_text(json.dumps(found))
    return report(config(f"runs={folder}", name="report"))


@pytest.fixture(scope="module")
def chromium():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(word)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium, page):
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.get(page.as_uri())
    wait(lambda: chromium.find_elements("css selector", "svg path"))
    return chromium


def wait(condition, seconds=10):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def one(driver, selector):
    return driver.find_element("css selector", selector)


def press(driver, selector):
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", one(driver, selector))
    one(driver, selector).click()


def names(driver):
    return [item.get_attribute("data-name") for item in driver.find_elements("css selector", "article")]


def choose(driver, value):
    one(driver, f".sort option[value='{value}']").click()


def test_sorting_by_each_runs_score_by_spread_and_back(opened):
    assert names(opened) == ["a", "b", "c"]
    choose(opened, "l1:0")
    assert names(opened) == ["a", "c", "b"]
    press(opened, ".order")
    assert names(opened) == ["b", "c", "a"] and one(opened, ".order").text == "highest first"
    choose(opened, "l1:1")
    assert names(opened) == ["a", "c", "b"]
    press(opened, ".order")
    choose(opened, "l1:spread")  # 40, 40, 10
    assert names(opened) == ["c", "a", "b"]
    choose(opened, "name")
    assert names(opened) == ["a", "b", "c"]


def test_blink_alternates_by_itself_and_by_key(opened):
    from selenium.webdriver.common.keys import Keys

    press(opened, ".blink")
    stage = one(opened, ".stage")
    assert one(opened, "dialog").get_attribute("open") is not None
    assert one(opened, "dialog .title").text == "a"

    def second():
        return "second" in stage.get_attribute("class").split()

    wait(second)
    wait(lambda: not second())
    body = one(opened, "dialog")
    body.send_keys("b")  # stops it
    before = second()
    time.sleep(1.0)
    assert second() is before
    body.send_keys(" ")
    assert second() is not before
    said = {one(opened, ".shown").text}
    body.send_keys(" ")
    said.add(one(opened, ".shown").text)
    assert (
        len(said) == 2
        and any("run0" in text and "L1 10.0" in text for text in said)
        and any("truth" in t for t in said)
    )
    assert one(opened, ".stage .a").get_attribute("src") != one(opened, ".stage .b").get_attribute("src")
    body.send_keys("d")
    assert "difference" in stage.get_attribute("class") and "|A - B|" in one(opened, ".shown").text
    body.send_keys(Keys.ARROW_RIGHT)
    assert one(opened, "dialog .title").text == "b"
    body.send_keys(Keys.ESCAPE)
    assert one(opened, "dialog").get_attribute("open") is None


def test_a_pressed_picture_opens_as_a_and_a_hidden_run_goes(opened):
    press(opened, "article[data-name='c'] figure[data-role='1'] .view")
    assert "run1" in one(opened, ".shown").text and one(opened, "dialog .title").text == "c"
    press(opened, "[data-do='close']")
    press(opened, "[data-column='1']")
    shown = [figure.is_displayed() for figure in opened.find_elements("css selector", "figure[data-role='1']")]
    assert shown == [False] * 3
    press(opened, "[data-column='1']")


def background(driver):
    return driver.execute_script("return getComputedStyle(document.body).backgroundColor")


def test_dark_mode_by_button_by_key_and_by_system(opened):
    opened.execute_script("localStorage.clear()")
    opened.refresh()
    light = "rgb(251, 251, 250)"
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    dark = background(opened)
    assert dark != light
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    )
    assert background(opened) == light
    button = one(opened, "#theme")
    seen = []
    for _ in range(3):
        button.click()
        seen.append((button.text, background(opened)))
    assert seen == [("Theme: light", light), ("Theme: dark", dark), ("Theme: system", light)]
    for _ in range(2):
        one(opened, "body").send_keys("t")
    opened.refresh()  # remembered
    assert one(opened, "#theme").text == "Theme: dark" and background(opened) == dark
    opened.execute_script("localStorage.clear()")


def test_charts_are_drawn_read_by_keys_and_hide_runs(opened):
    from selenium.webdriver.common.keys import Keys

    assert len(opened.find_elements("css selector", "[data-losses] svg path")) == 2
    assert len(opened.find_elements("css selector", "[data-similarities] svg .area")) == 4
    chart = one(opened, "[data-losses] svg")
    chart.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    tip = one(opened, "[data-losses] .tip")
    assert tip.is_displayed() and "step 2" in tip.text and "run0: 5" in tip.text
    press(opened, "[data-run='0']")
    assert len(opened.find_elements("css selector", "[data-losses] svg path")) == 1
    press(opened, "#byimages")
    wait(lambda: "images" in one(opened, "[data-losses] svg").get_attribute("aria-label"))
    press(opened, "#logy")
    assert len(opened.find_elements("css selector", "[data-losses] svg path")) == 1


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_no_width_scrolls_sideways(opened, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    press(opened, ".view")
    box = one(opened, "dialog").rect
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    press(opened, "[data-do='close']")


def test_no_request_leaves_the_file_and_nothing_is_complained_of(opened, page):
    choose(opened, "l1:0")
    press(opened, ".blink")
    time.sleep(1.0)
    press(opened, "[data-do='close']")
    press(opened, "#theme")
    asked = []
    for line in opened.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            asked.append(message["params"].get("request", message["params"])["url"])
    assert page.as_uri() in asked  # the log does see requests
    assert {url.partition(":")[0] for url in asked if not url.startswith("chrome")} <= {"file", "data"}
    assert {url for url in asked if url.startswith("file:")} == {page.as_uri()}
    assert opened.get_log("browser") == []
