"""The page in headless Chromium: choose, drop and paste an image, move the slider, download.

Needs Chromium and its driver (Debian: chromium, chromium-driver) and the extra `browser`. With
SCREENSHOTS=DIR it writes the page as it looks.
"""

import asyncio
import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image

from derain.data.images.convert import read_odd
from derain.inference.predictor import Predictor
from derain.pipelines.serve.app import Service
from tests.data.images.odd_images import encoded
from tests.processes import wait_for

pytestmark = pytest.mark.soak
selenium = pytest.importorskip("selenium", reason="needs the extra `browser`")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

GIVE = """
const data = new DataTransfer();
const bytes = Uint8Array.from(atob(arguments[0]), (it) => it.charCodeAt(0));
data.items.add(new File([bytes], "a.png", { type: "image/png" }));
const kind = arguments[1] === "drop" ? DragEvent : ClipboardEvent;
const key = arguments[1] === "drop" ? "dataTransfer" : "clipboardData";
document.dispatchEvent(new kind(arguments[1], { [key]: data, bubbles: true, cancelable: true }));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver, chromium = (shutil.which(name) for name in ("chromedriver", "chromium"))
    if driver is None or chromium is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "no-proxy-server"):
        options.add_argument(f"--{argument}")
    folder = str(tmp_path_factory.mktemp("downloads"))
    options.add_experimental_option("prefs", {"download.default_directory": folder})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        chrome.downloads = Path(folder)  # type: ignore[attr-defined]
        yield chrome


@pytest.fixture
def page(browser: webdriver.Chrome, port: int) -> webdriver.Chrome:
    browser.get(f"http://127.0.0.1:{port}/")
    return browser


def text(page: webdriver.Chrome, name: str) -> str:
    return page.find_element(By.ID, name).text


def shot(page: webdriver.Chrome, name: str) -> None:
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.set_window_size(900, 760)
        page.save_screenshot(f"{folder}/{name}.png")


def give(page: webdriver.Chrome, data: bytes, how: str) -> None:
    page.execute_script(GIVE, base64.b64encode(data).decode(), how)


@pytest.mark.parametrize("how", ["drop", "paste", "file"])
def test_an_image_is_derained_compared_and_downloaded(
    page: webdriver.Chrome, predictor: Predictor, png: bytes, tmp_path: Path, how: str
) -> None:
    if how == "file":
        (tmp_path / "a.png").write_bytes(png)
        page.find_element(By.ID, "file").send_keys(str(tmp_path / "a.png"))
    else:
        give(page, png, how)
    wait_for(lambda: text(page, "status") == "Done.", 20)
    slider = page.find_element(By.ID, "slider")
    slider.send_keys(Keys.HOME)
    assert page.execute_script("return compare.style.getPropertyValue('--share')") == "0%"
    slider.send_keys(Keys.ARROW_RIGHT)
    assert page.execute_script("return compare.style.getPropertyValue('--share')") == "1%"
    link = page.find_element(By.ID, "download")
    assert link.get_attribute("download") == "derained-a.png"
    link.click()
    file = page.downloads / "derained-a.png"  # type: ignore[attr-defined]
    wait_for(file.exists, 20)
    found = read_odd(file.read_bytes(), "it").levels
    file.unlink()
    np.testing.assert_array_equal(found, predictor.derain(read_odd(png, "it").srgb))
    assert page.get_log("browser") == []


def test_the_keyboard_reaches_everything(page: webdriver.Chrome, png: bytes) -> None:
    give(page, png, "drop")
    wait_for(lambda: text(page, "status") == "Done.", 20)
    reached = []
    for _ in range(3):
        ActionChains(page).send_keys(Keys.TAB).perform()
        reached.append(page.switch_to.active_element.get_attribute("id"))
    assert reached == ["file", "slider", "download"]
    named = page.find_element(By.ID, "slider").accessible_name
    assert named == "Share of the image that is shown before deraining"
    assert page.find_element(By.ID, "file").accessible_name == "Image"
    assert page.find_element(By.ID, "problem").aria_role == "alert"


def test_what_goes_wrong_is_said(
    page: webdriver.Chrome, server: uvicorn.Server, png: bytes
) -> None:
    def told(data: bytes, part: str) -> None:
        give(page, data, "drop")
        wait_for(lambda: part in text(page, "problem"), 20)
        assert not page.find_element(By.ID, "result").is_displayed()

    told(bytes(2**20 + 1), "at most 1048576 are accepted")
    told(b"hello", "Expected PNG, JPEG, WebP, TIFF or BMP")
    shot(page, "serve_refused")
    told(encoded(Image.new("RGB", (1000, 1000))), "at most 100,000 are accepted")
    server.should_exit = True
    port = server.servers[0].sockets[0].getsockname()[1] if server.servers[0].sockets else 0
    wait_for(lambda: not server.started or not port or not server.servers[0].is_serving(), 20)
    told(png, "The server does not answer")


def test_a_full_queue_is_said(page: webdriver.Chrome, service: Service, png: bytes) -> None:

    async def slow(_: bytes) -> object:
        await asyncio.sleep(2)
        raise AssertionError

    service.models["net"].backend = slow  # type: ignore[assignment]
    for _ in range(3):
        give(page, png, "drop")
    wait_for(lambda: "The server is busy" in text(page, "problem"), 20)


def test_the_page_as_it_looks(page: webdriver.Chrome) -> None:
    y, x = np.mgrid[:240, :360]
    levels = np.stack([80 + x / 4, 90 + y / 4, 150 - x / 8], -1)
    rain = ((x + y // 4) % 23 < 2)[..., None] * 70.0
    give(page, encoded(Image.fromarray((levels + rain).clip(0, 255).astype(np.uint8))), "drop")
    wait_for(lambda: text(page, "status") == "Done.", 20)
    shot(page, "serve")
