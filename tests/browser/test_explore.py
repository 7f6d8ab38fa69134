"""The notebook `explore` in a real browser: JupyterLab on the loopback, Chromium without a window.

Screenshots are written to EVOAE_SCREENSHOTS if that is set, and else beside pytest's other files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import tiny

from evoae import Run, run
from evoae.study.report import notebooks

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NOTEBOOK = notebooks.folder() / "explore.ipynb"
PATIENCE = 90_000  # milliseconds
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


@pytest.fixture
def lab(tmp_path) -> Iterator[str]:
    """The address of a JupyterLab of its own: own home, own settings, a copy of the notebook.

    The notebook lies in a folder `notebooks`, and at its root is what `evoae run` has written.
    """
    home, root = tmp_path, tmp_path / "root"
    (root / "notebooks").mkdir(parents=True)
    shutil.copy(NOTEBOOK, root / "notebooks")
    run(tiny(), out=root / "out/runs", workers=1, progress=False)
    settings = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {
        name: str(home / name.lower())
        for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"),
        *("--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.news_url="),
        *("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",),
        f"--LabApp.user_settings_dir={home / 'settings'}",
    ]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
    try:
        yield answer(f"http://127.0.0.1:{port}", server, home / "log")
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answer(address: str, server: subprocess.Popen, log: Path) -> str:
    """The address, once something answers there."""
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.3)
        else:
            return address
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture
def page(lab) -> Iterator:
    with playwright_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1400, "height": 1500})
        opened.set_default_timeout(PATIENCE)
        accept = opened.locator(".jp-Dialog .jp-mod-accept")
        opened.add_locator_handler(accept, lambda: accept.click())  # which kernel? the default
        yield opened
        browser.close()


def cut_off(page) -> list[str]:
    """What of the widgets does not fit where it is: a text in its box, a box in the notebook."""
    return page.evaluate(
        """() => {
            const edge = document.querySelector(".jp-WindowedPanel-outer, .jp-Notebook")
                .getBoundingClientRect().right;
            const shown = [...document.querySelectorAll(
                ".jp-OutputArea-output :is(button, input, select, textarea, img, label)"
            )].filter(each => each.offsetWidth > 0 && !each.matches(".modebar-btn"));
            return shown.filter(each =>
                each.getBoundingClientRect().right > edge
                || each.matches("label, button") && each.scrollWidth > each.clientWidth + 1
            ).map(each => `${each.tagName} ${each.textContent || each.value}`);
        }"""
    )


def test_explore(page, lab, tmp_path):
    folder = Path(os.environ.get("EVOAE_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    troubles = []  # errors on the console, and requests that leave the machine
    page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            asked.url.startswith(("http", "ws"))
            and "//127.0.0.1:" not in asked.url
            and troubles.append(asked.url)
        ),
    )

    def shoot(name: str) -> None:
        page.screenshot(path=folder / f"explore-{name}.png")

    def image(theme: str = "light"):
        return page.locator(f"img.evoae-{theme}")

    def chart(number: int):
        return page.locator(".js-plotly-plot").nth(number)

    def picture(number: int) -> str:
        """What a widget shows now: the curves of the first three, the pixels of the last."""
        if number < 3:
            drawn = chart(number).evaluate("chart => chart.querySelector('.main-svg').outerHTML")
            return hashlib.sha256(drawn.encode()).hexdigest()
        script = """async image => {
            const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
            let text = ""; for (const byte of bytes) text += String.fromCharCode(byte);
            return btoa(text);
        }"""
        return hashlib.sha256(image().evaluate(script).encode()).hexdigest()

    def changes(number: int, before: str) -> str:
        end = time.monotonic() + PATIENCE / 1000
        while (now := picture(number)) == before:
            assert time.monotonic() < end, f"picture {number} did not change"
            page.wait_for_timeout(100)
        return now

    def click(name: str) -> None:
        page.locator(".jupyter-button", has_text=name).click()

    def disabled(name: str) -> None:
        page.wait_for_function(
            """name => [...document.querySelectorAll("button.widget-button")]
                .some(button => button.textContent.includes(name) && button.disabled)""",
            arg=name,
        )

    page.goto(f"{lab}/lab/tree/notebooks/explore.ipynb?reset")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.locator(".jp-NotebookPanel-toolbar").hover()  # a dialog would be in the way: accept it
    image().wait_for()
    chart(1).wait_for()
    assert page.locator(".jp-OutputArea-output img:not(.widget-image)").count() == 0, "shown twice"

    schedules = picture(0)
    handle = page.locator(".widget-hslider", has_text="Probability").locator(".noUi-handle")
    handle.scroll_into_view_if_needed()
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    schedules = changes(0, schedules)
    shoot("schedules")

    page.locator("select[multiple]").select_option(["exponential", "drawn by hand"])
    point = page.locator("svg.evoae-draw circle").nth(1)
    schedules = changes(0, schedules)
    point.hover()
    page.mouse.down()
    box = point.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 40, steps=5)
    page.mouse.up()
    assert point.get_attribute("aria-label") != "Point 2: 0.4, 0.9"
    schedules = changes(0, schedules)
    page.keyboard.press("ArrowUp")
    schedules = changes(0, schedules)
    drawing = page.locator("svg.evoae-draw")
    size = drawing.bounding_box()  # where it lies may change meanwhile
    drawing.click(position={"x": 0.8 * size["width"], "y": 0.6 * size["height"]})
    schedules = changes(0, schedules)
    assert page.locator("svg.evoae-draw circle").count() == 4
    shoot("drawing")
    page.keyboard.press("Delete")
    schedules = changes(0, schedules)
    assert page.locator("svg.evoae-draw circle").count() == 3
    click("Show command")
    drawn = page.locator(".evoae-lines textarea")
    drawn.wait_for()
    assert re.search(r"'schedule=points:0,0;0\.\d+,0\.\d+;1,0\.9'", drawn.input_value())
    click("Hide command")

    found = page.locator("select", has=page.locator("option", has_text="binary-clusters, none"))
    assert found.count() == 1, "the run at the root is not found"
    epochs = page.locator(".widget-text", has_text="Epochs").nth(1).locator("input")
    epochs.fill("3000")
    epochs.press("Tab")
    training = picture(1)
    click("Train")
    training = changes(1, training)
    page.locator("button.widget-button", has_text="Train").scroll_into_view_if_needed()
    with page.expect_download() as table:
        page.locator("button", has_text="Download CSV").nth(1).click()
    assert table.value.suggested_filename == "LiveTraining.csv"
    chart(1).hover()
    with page.expect_download() as figure:
        page.locator(".modebar-btn[data-title*=PNG]").nth(1).click()
    assert figure.value.suggested_filename.endswith(".png")
    page.locator("select", has=page.locator("option", has_text="cubic")).last.select_option("fixed")
    training = changes(1, training)
    training = changes(1, training)
    shoot("training")

    click("Stop")
    disabled("Stop")
    page.wait_for_timeout(3000)  # the last picture may still be drawn
    training = picture(1)
    page.wait_for_timeout(2000)
    assert picture(1) == training, "training went on after Stop"
    shoot("stopped")

    click("Save")
    saved = page.get_by_text(re.compile("Saved as .*out/runs/"))
    saved.wait_for()
    kept = Run(tmp_path / "root" / saved.text_content().removeprefix("Saved as "))
    names = [name for _, name, _, _ in kept.changes]
    assert {"schedule", "epochs"} <= set(names)
    page.locator("select", has=page.locator("option", has_text="wanda")).select_option("magnitude")
    epochs.fill("40")
    epochs.press("Tab")
    click("Compare")
    click("Train")
    page.get_by_text("40 of 40 epochs", exact=True).wait_for()
    page.wait_for_timeout(1500)
    shoot("compared")

    ticks = page.locator(".widget-gridbox input[type=checkbox]")
    assert ticks.count() == 4, "two trainings, the one that was saved, and the run that was there"
    compared = picture(2)
    ticks.last.check()
    changes(2, compared)
    chart(2).scroll_into_view_if_needed()
    shoot("so-far")

    image().scroll_into_view_if_needed()
    cell = page.locator(".widget-hslider", has_text="Cell").locator(".noUi-handle")
    inside = picture(3)
    cell.focus()
    page.keyboard.press("ArrowRight")
    changes(3, inside)
    shoot("inside")

    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Theme").first.click()
    page.locator(".lm-Menu-item", has_text="JupyterLab Dark").first.click()
    page.locator("body[data-jp-theme-light='false']").wait_for(state="attached")
    for theme in ("dark", "light"):
        if theme == "light":
            page.get_by_role("menuitem", name="Settings", exact=True).click()
            page.locator(".lm-Menu-item", has_text="Theme").first.click()
            page.locator(".lm-Menu-item", has_text="JupyterLab Light").first.click()
            page.locator("body[data-jp-theme-light='true']").wait_for(state="attached")
        for width in (1440, 900):
            page.set_viewport_size({"width": width, "height": 1100})
            page.wait_for_timeout(500)
            assert cut_off(page) == []
            for number, name in enumerate(("schedules", "training", "so-far")):
                chart(number).scroll_into_view_if_needed()
                page.wait_for_function(
                    """number => {
                        const chart = document.querySelectorAll(".js-plotly-plot")[number];
                        const room = chart.clientWidth;
                        return room && room === chart.querySelector(".main-svg").clientWidth;
                    }""",
                    arg=number,
                )
                shoot(f"{name}-{theme}-{width}")
            shown, hidden = image(theme), image("dark" if theme == "light" else "light")
            shown.scroll_into_view_if_needed()
            assert shown.is_visible()
            assert not hidden.is_visible()
            shoot(f"inside-{theme}-{width}")
    assert page.locator(".jp-OutputArea-output[data-mime-type*='stderr']").count() == 0
    # anywidget gives a widget two seconds to load: on a busy machine it may take longer
    assert [each for each in troubles if "Failed to initialize model" not in each] == []
