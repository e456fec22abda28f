"""The page of a gallery in headless Chromium: what a reader drags, types and sees.

Needs Chromium and its driver (Debian: chromium, chromium-driver) and the extra `browser`.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derain.evaluation.gallery import GalleryImage, write_gallery

pytestmark = pytest.mark.soak
selenium = pytest.importorskip("selenium", reason="needs the extra `browser`")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

HOSTILE = "</script><img src=x onerror=document.title='broken'>"
MANY = 200
LONG_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => longTasks.push(...list.getEntries().map((e) => e.duration)))
  .observe({ type: "longtask", buffered: true });
"""


def a_page(path: Path, count: int, height: int, width: int) -> str:
    """Writes a page of two datasets and two versions; returns its address.

    PSNR-Y of version a falls with the number of the image, and SSIM-Y rises.
    """

    def images() -> Iterator[GalleryImage]:
        for number in range(count):
            random = np.random.default_rng(number)
            smooth = random.integers(0, 200, (height // 8, width // 8, 3))
            clean = np.kron(smooth, np.ones((8, 8, 1), int)).astype(np.uint8)
            noise = random.integers(0, 50, clean.shape, dtype=np.uint8)
            rain, first, second = clean + noise, clean + noise // 4, clean + noise // 8
            metrics = {
                "rainy": {"psnr_y": 20.0, "ssim_y": 0.5},
                "a": {"psnr_y": 40.0 - number / 10, "ssim_y": 0.6 + number / 1000},
                HOSTILE: {"psnr_y": 30.0 + number % 7, "ssim_y": 0.7},
            }
            outputs = {"a": first, HOSTILE: second}
            name = f"set {number % 2}"
            yield GalleryImage(name, f"{HOSTILE} {number}", rain, clean, outputs, metrics)

    write_gallery(path, HOSTILE, images(), count=count)
    return path.as_uri()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return a_page(tmp_path_factory.mktemp("gallery") / "gallery.html", 12, 96, 128)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    driver, chromium = (shutil.which(name) for name in ("chromedriver", "chromium"))
    if driver is None or chromium is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LONG_TASKS})
        yield chrome


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> Iterator["Page"]:
    opened = Page(browser)
    opened.open(address)
    yield opened
    assert browser.get_log("browser") == []  # neither an error nor a refusal by the policy


class Page:
    """A gallery that is open in the browser."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def open(self, address: str, width: int = 1280, scheme: str = "light") -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        self.browser.get(address)
        self.wait("#left-half img")

    def wait(self, selector: str, count: int = 1) -> None:
        WebDriverWait(self.browser, 60).until(lambda _: len(self.all(selector)) >= count)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> Any:
        return self.all(selector)[0]

    def run(self, expression: str) -> Any:
        return self.browser.execute_script(f"return {expression}")

    def select(self, selector: str, label: str) -> None:
        Select(self.one(selector)).select_by_visible_text(label)

    @property
    def split(self) -> float:
        return float(self.run("getComputedStyle(stage).getPropertyValue('--split')")[:-1])

    @property
    def split_is_seen(self) -> float:
        """Where the divider is, in percent of the frame."""
        return self.run(
            "(([d, f]) => 100 * (d.x + d.width / 2 - f.x) / f.width)("
            "['divider', 'slider'].map(id => document.getElementById(id))"
            ".map((e, at) => (at ? e.firstElementChild : e).getBoundingClientRect()))"
        )

    @property
    def spot(self) -> tuple[float, float, float]:
        """Left, top and size in parts of a frame, which are the same for all images shown."""
        shown = self.run(
            "[...document.querySelectorAll('.frame img')].filter(e => e.offsetParent).map(e => {"
            "const i = e.getBoundingClientRect(), f = e.closest('.frame').getBoundingClientRect();"
            "return [(i.x - f.x) / f.width, (i.y - f.y) / f.height, i.width / f.width]})"
        )
        assert shown
        assert np.ptp(shown, axis=0).max() < 0.002
        left, top, size = shown[0]
        return left, top, size

    @property
    def numbers(self) -> list[int]:
        """The numbers of the images in the order of the list."""
        return [int(item.split()[-1]) for item in self.run(
            "[...document.querySelectorAll('#list b')].map(e => e.textContent)"
        )]  # fmt: skip

    @property
    def chosen(self) -> int:
        return int(self.one("h2").text.split()[-1])


def test_hostile_names_are_shown_as_they_are(page: Page) -> None:
    assert page.run("document.title") == HOSTILE
    assert page.one("h1").text == HOSTILE
    assert page.one("h2").text == f"set 0: {HOSTILE} 0"
    assert page.run("document.querySelectorAll('img[onerror]').length") == 0


def test_the_slider_follows_the_mouse_and_the_keys(page: Page) -> None:
    assert page.split == 50
    frame = page.one("#slider .frame")
    quarter = frame.size["width"] // 4
    divider = page.one("#divider")
    ActionChains(page.browser).drag_and_drop_by_offset(divider, quarter, 5).perform()
    assert page.split == pytest.approx(75, abs=1)
    assert page.split_is_seen == pytest.approx(75, abs=1)
    clip = page.run("getComputedStyle(document.getElementById('left-half')).clipPath")
    assert clip.startswith("inset(0")
    page.one("#split").send_keys(Keys.ARROW_LEFT * 5)
    assert page.split == pytest.approx(70, abs=1)
    assert page.split_is_seen == pytest.approx(70, abs=1)
    assert "rainy, the rest a" in page.one("#split").get_attribute("aria-valuetext")
    page.one("#stage").send_keys(Keys.ARROW_RIGHT)
    assert page.split == pytest.approx(72, abs=1)
    ActionChains(page.browser).move_to_element_with_offset(
        frame, -quarter, 0
    ).click_and_hold().move_by_offset(-quarter // 2, 0).release().perform()
    assert page.split == pytest.approx(12.5, abs=1)  # anywhere, as long as nothing is zoomed


def test_both_sides_show_what_is_selected(page: Page) -> None:
    before = page.one("#right-half img").get_attribute("src")
    page.select("#right", "error of rainy")
    WebDriverWait(page.browser, 20).until(
        lambda _: page.one("#right-half img").get_attribute("src") != before
    )
    assert page.one("#right-half .tag").text == "error of rainy"
    assert page.one("#right-half img").get_attribute("alt").startswith("error of rainy, ")
    assert page.one("#right-half img").get_attribute("src").startswith("data:image/png")


def test_all_images_show_the_same_spot(page: Page) -> None:
    page.one("[value=side]").click()
    page.wait("#side img", 7)  # rainy, two versions, clean; three error maps
    assert page.spot == pytest.approx((0, 0, 1), abs=0.002)
    frames = page.all("#side .frame")
    ActionChains(page.browser).move_to_element_with_offset(
        frames[2], frames[2].size["width"] // 4, 0
    ).double_click().perform()
    assert page.spot == pytest.approx((-0.75, -0.5, 2), abs=0.01)  # the point under the mouse stays
    ActionChains(page.browser).drag_and_drop_by_offset(
        frames[3], frames[3].size["width"] // 4, frames[3].size["height"] // 4
    ).perform()
    assert page.spot == pytest.approx((-0.5, -0.25, 2), abs=0.01)
    page.one("#in").click()
    page.one("#in").click()
    assert page.one("#factor").text == "4.0×"
    before = page.spot
    page.one("#next").click()
    assert page.chosen == 1
    assert page.spot == pytest.approx(before)  # of the next image
    page.one("#fit").click()
    assert page.spot == pytest.approx((0, 0, 1), abs=0.002)


def test_the_wheel_zooms_only_with_ctrl(page: Page) -> None:
    event = "new WheelEvent('wheel', {deltaY: -200, bubbles: true, cancelable: true, ctrlKey: %s})"
    target = "document.querySelector('#divider')"
    assert page.run(f"{target}.dispatchEvent({event % 'false'})")  # the page may scroll
    assert page.one("#factor").text == "1.0×"
    assert not page.run(f"{target}.dispatchEvent({event % 'true'})")
    assert page.one("#factor").text == "2.0×"


def test_two_fingers_zoom(page: Page) -> None:
    box = page.run("document.querySelector('#slider .frame').getBoundingClientRect().toJSON()")
    y = box["y"] + box["height"] / 2
    page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    for kind, apart in (("touchStart", 0.1), ("touchMove", 0.2), ("touchMove", 0.3)):
        xs = (box["x"] + box["width"] * (0.5 + side * apart) for side in (-1, 1))
        points = [{"x": x, "y": y, "id": number} for number, x in enumerate(xs)]
        page.browser.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
        )
    page.browser.execute_cdp_cmd(
        "Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []}
    )
    page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert float(page.one("#factor").text[:-1]) == pytest.approx(3, abs=0.2)


def test_images_are_sorted_by_any_metric_and_difference(page: Page) -> None:
    assert page.numbers == list(range(12))
    page.select("#direction", "lowest first")
    assert page.numbers == list(reversed(range(12)))
    page.select("#criterion", "SSIM-Y: a")
    assert page.numbers == list(range(12))
    page.select("#criterion", f"PSNR-Y (dB): {HOSTILE} minus a")
    gains = [30 + number % 7 - 40 + number / 10 for number in range(12)]
    assert page.numbers == sorted(range(12), key=lambda number: gains[number])
    shown = page.run("document.querySelector('#list li span').textContent")
    assert float(shown) == pytest.approx(min(gains), abs=1e-3)
    page.select("#criterion", "name")
    assert page.numbers == list(range(12))  # 10 after 9
    page.select("#dataset", "set 1")
    assert page.numbers == [1, 3, 5, 7, 9, 11]
    assert page.chosen == 1  # what was chosen is not in the list any more


def test_the_keyboard_reaches_everything(page: Page) -> None:
    body = page.one("body")
    reached = []
    for _ in range(20):
        body.send_keys(Keys.TAB)
        focused = page.browser.switch_to.active_element
        reached.append(focused.get_attribute("id") or focused.get_attribute("value"))
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if reached[-1] == "split":
            break
    assert reached == [
        "dataset", "criterion", "direction", "list", "next", "slider", "in", "left", "right",
        "stage", "split",
    ]  # fmt: skip
    listed = page.one("#list")
    listed.send_keys(Keys.ARROW_DOWN * 2)
    assert page.chosen == 2
    listed.send_keys(Keys.END)
    assert page.chosen == 11
    active = listed.get_attribute("aria-activedescendant")
    assert page.one(f"#{active}").get_attribute("aria-selected") == "true"
    assert len(page.all("[aria-selected=true]")) == 1
    stage = page.one("#stage")
    stage.send_keys("p")
    assert page.chosen == 10
    assert page.one("#status").get_attribute("textContent").startswith("Image 11 of 12: ")
    stage.send_keys("++")
    assert page.one("#factor").text == "2.0×"
    before = page.spot
    stage.send_keys(Keys.ARROW_RIGHT)
    assert page.spot != before
    assert page.split == 50
    stage.send_keys("0")
    assert page.one("#factor").text == "1.0×"


def test_a_screen_reader_finds_names_and_roles(page: Page) -> None:
    tree = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"]
    }
    for wanted in (
        ("listbox", "Images"), ("combobox", "Sort by"), ("combobox", "Order"),
        ("button", "Zoom in"), ("button", "Zoom out"), ("slider", "Divider"),
        ("group", "Image area"), ("group", "View"), ("radio", "Slider"),
        ("combobox", "Left of the divider"), ("option", f"{HOSTILE} 0 40.000"),
        ("image", f"rainy, {HOSTILE} 0"), ("rowheader", "rainy"), ("columnheader", "SSIM-Y"),
    ):  # fmt: skip
        assert wanted in named, sorted(named)
    interactive = {"button", "combobox", "listbox", "radio", "slider", "checkbox"}
    assert not [role for role, name in named if role in interactive and not name]


@pytest.mark.parametrize("view", ["slider", "side"])
def test_a_narrow_screen_needs_no_scrolling_to_the_side(
    page: Page, address: str, view: str
) -> None:
    page.open(address, width=390)
    page.one(f"[value={view}]").click()
    page.wait(f"#{'side' if view == 'side' else 'left-half'} img")
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.one(".frame" if view == "slider" else "#side .frame").size["width"] > 340
    small = page.run(
        "[...document.querySelectorAll('button, select')].filter(e => e.offsetParent)"
        ".map(e => e.getBoundingClientRect()).filter(b => b.height < 24 || b.width < 24).length"
    )
    assert small == 0
    page.run("window.scroll(0, 300)")
    page.run("document.getElementById('next').click()")
    assert page.run("window.scrollY") == 300  # although the list is above


def contrast(first: str, second: str) -> float:
    """The contrast of two colours, `rgb(r, g, b)`, by WCAG 2.2."""

    def luminance(colour: str) -> float:
        channels = np.array([int(part) for part in colour[4:-1].split(",")]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_text_can_be_read_in_light_and_dark(
    page: Page, address: str, scheme: str, is_dark: bool
) -> None:
    page.open(address, scheme=scheme)
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in paper[4:-1].split(",")) < 128 * 3) == is_dark
    for selector in ("h1", ".note", "#list span", "thead th", "select", "#next", "#factor"):
        ink = page.run(f"getComputedStyle(document.querySelector('{selector}')).color")
        assert contrast(ink, paper) >= 4.5, (selector, ink, paper)


def test_nothing_is_requested(page: Page) -> None:
    for selector in ("[value=side]", "#next", "#in"):
        page.one(selector).click()
    urls = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in page.browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert urls
    assert {url.partition(":")[0] for url in urls} <= {"file", "data"}
    assert {url for url in urls if url.startswith("file:")} == {page.browser.current_url}


def test_two_hundred_images_stay_responsive(
    browser: webdriver.Chrome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With two versions; the times are printed, and no action may block the page for long."""
    file = tmp_path / "gallery.html"
    large = a_page(file, MANY, 240, 320)
    page = Page(browser)
    began = time.monotonic()
    page.open(large)
    opened = time.monotonic() - began
    loading = page.run("longTasks.splice(0)")
    actions = {
        "sort": lambda: page.select("#direction", "lowest first"),
        "next": lambda: page.one("#next").click(),
        "end of the list": lambda: page.one("#list").send_keys(Keys.END),
        "50 images": lambda: page.one("#list").send_keys(Keys.ARROW_UP * 50),
        "side by side": lambda: page.one("[value=side]").click(),
        "zoom": lambda: page.one("#in").click(),
    }
    blocked = {}
    for name, action in actions.items():
        action()
        time.sleep(0.5)
        blocked[name] = max(page.run("longTasks.splice(0)"), default=0.0)
    with capsys.disabled():
        print(
            f"\n{MANY} images, {file.stat().st_size / 1e6:.0f} MB: shown after {opened:.1f} s, "
            f"longest task {max(loading, default=0):.0f} ms; then "
            + ", ".join(f"{name} {ms:.0f} ms" for name, ms in blocked.items())
        )
    assert len(page.numbers) == MANY
    assert opened < 30
    assert max(blocked.values()) < 500
