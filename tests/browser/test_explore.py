"""The notebook `explore` in a real browser: JupyterLab on the loopback, Chromium without a window.

With EVOAE_SCREENSHOTS, screenshots are written to that folder.
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

import numpy as np
import pytest
from helpers import tiny

from evoae import Run, run
from evoae.data.datasets import load
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
    settings = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are there
    }
    for name, values in settings.items():
        path = home / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
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
    for _ in range(PATIENCE // 300):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            return address
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture
def page(lab) -> Iterator:
    with playwright_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1440, "height": 1000})
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
                ".jp-OutputArea-output :is(button, input, select, textarea, img, label, svg)"
            )].filter(each => each.getBoundingClientRect().width > 2
                && !each.closest(".modebar, .js-plotly-plot"));
            return shown.filter(each =>
                each.getBoundingClientRect().right > edge
                || each.matches("label, button") && each.scrollWidth > each.clientWidth + 1
            ).map(each => `${each.tagName} ${each.textContent || each.value}`);
        }"""
    )


class Screen:
    """The notebook in the browser: what a user does, and what is seen."""

    def __init__(self, page, lab: str, folder: Path | None) -> None:
        self.page, self.folder = page, folder
        self.troubles: list[str] = []  # errors on the console, and requests that leave the machine
        page.on("console", lambda said: said.type == "error" and self.troubles.append(said.text))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", self.asked)
        page.goto(f"{lab}/lab/tree/notebooks/explore.ipynb?reset")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        self.idle()
        self.menu("Run", "Run All Cells")
        page.locator(".jp-NotebookPanel-toolbar").hover()  # a dialog would be in the way: accept it
        page.locator(".evoae-pictures img:not([hidden])").first.wait_for()

    def asked(self, request) -> None:
        if request.url.startswith(("http", "ws")) and "//127.0.0.1:" not in request.url:
            self.troubles.append(request.url)

    def idle(self) -> None:
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()

    def menu(self, *items: str) -> None:
        self.page.get_by_role("menuitem", name=items[0], exact=True).click()
        for item in items[1:]:
            self.page.locator(".lm-Menu-item", has_text=item).first.click()

    def shoot(self, name: str) -> None:
        if self.folder:
            self.page.screenshot(path=self.folder / f"explore-{name}.png")

    def chart(self, number: int):
        return self.page.locator(".js-plotly-plot").nth(number)

    def knob(self, name: str, number: int = 0):
        return (
            self.page.locator(".jupyter-widgets", has_text=name)
            .locator(".noUi-handle, input, select")
            .nth(number)
        )

    def click(self, name: str) -> None:
        self.page.locator(".jupyter-button", has_text=name).first.click()

    def seen(self, script: str, *values) -> None:
        """Wait until a function of the page, given these values, says yes."""
        self.page.wait_for_function(script, arg=list(values))

    def curves(self, number: int) -> str:
        """What a chart draws now."""
        drawn = self.chart(number).evaluate("c => c.querySelector('.main-svg').outerHTML")
        return hashlib.sha256(drawn.encode()).hexdigest()

    def changes(self, number: int, before: str) -> str:
        """Wait until a chart draws something else."""
        for _ in range(PATIENCE // 100):
            if (now := self.curves(number)) != before:
                return now
            self.page.wait_for_timeout(100)
        pytest.fail(f"chart {number} did not change")

    def heading(self, number: int) -> str:
        """What stands above pictures of pixels: 0, of the data; 1, of the network."""
        return self.page.locator(".evoae-pictures b").nth(number).text_content()


HEADED = """([number, words]) =>
    document.querySelectorAll(".evoae-pictures b")[number]?.textContent.includes(words)"""
MATCHES = """([words]) => document.body.textContent.match(words)"""
SAID = """([words]) => document.body.textContent.includes(words)"""


@pytest.fixture
def screen(page, lab) -> Screen:
    folder = os.environ.get("EVOAE_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    return Screen(page, lab, Path(folder) if folder else None)


def test_explore(screen, tmp_path):
    page, root = screen.page, tmp_path / "root"
    assert page.locator(".jp-OutputArea-output img.jp-RenderedImage").count() == 0, "shown twice"

    schedule_by_hand(screen)
    your_file(screen, tmp_path)
    saved = train_and_save(screen, root)
    compare(screen, root)
    watch(screen)
    every_theme_and_width(screen)
    after_a_restart(screen, saved)
    assert page.locator(".jp-OutputArea-output[data-mime-type*='stderr']").count() == 0
    # anywidget gives a widget two seconds to load: on a busy machine it may take longer
    assert [said for said in screen.troubles if "Failed to initialize model" not in said] == []


def schedule_by_hand(screen: Screen) -> None:
    page = screen.page
    schedules = screen.curves(0)
    handle = page.locator(".widget-hslider", has_text="Probability").locator(".noUi-handle")
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    schedules = screen.changes(0, schedules)
    page.locator("select[multiple]").select_option(["exponential", "drawn by hand"])
    point = page.locator("svg.evoae-draw circle").nth(1)
    schedules = screen.changes(0, schedules)
    point.hover()
    page.mouse.down()
    box = point.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 40, steps=3)
    page.mouse.up()
    assert point.get_attribute("aria-label") != "Point 2: 0.4, 0.9"
    schedules = screen.changes(0, schedules)
    page.keyboard.press("ArrowUp")
    schedules = screen.changes(0, schedules)
    drawing = page.locator("svg.evoae-draw")
    size = drawing.bounding_box()  # where it lies may change meanwhile
    drawing.click(position={"x": 0.8 * size["width"], "y": 0.6 * size["height"]})
    schedules = screen.changes(0, schedules)
    assert page.locator("svg.evoae-draw circle").count() == 4
    screen.shoot("drawing")
    page.keyboard.press("Delete")
    screen.changes(0, schedules)
    assert page.locator("svg.evoae-draw circle").count() == 3


DROP = """async ([name, text]) => {
    const field = document.querySelector(".evoae-drop"), carried = new DataTransfer();
    carried.items.add(new File([text], name));
    for (const kind of ["dragover", "drop"])
        field.dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true,
            cancelable: true}));
}"""


def your_file(screen: Screen, folder: Path) -> None:
    page = screen.page
    page.locator(".evoae-drop").scroll_into_view_if_needed()
    page.evaluate(DROP, ["notes.docx", "no table"])
    screen.seen(SAID, "'notes.docx' has an unknown suffix")
    page.evaluate(DROP, ["mine.csv", "a,b\n" + "1,20\n3,50\n2,10\n" * 10])
    screen.seen(HEADED, 0, "mine.csv: 30 rows of 2 columns, values from 1 to 50")
    screen.shoot("table")
    images = np.random.default_rng(0).integers(0, 256, (600, 60, 60), dtype=np.uint8)
    np.save(folder / "images.npy", images)  # it comes in three pieces
    page.locator(".evoae-drop input").set_input_files(folder / "images.npy")
    screen.seen(HEADED, 0, "images.npy: 600 rows of 3,600 columns")
    screen.shoot("images")
    page.evaluate(DROP, ["digits.csv", digits_text()])
    screen.seen(HEADED, 0, "digits.csv: 400 rows of 64 columns, values from 0 to 16")


def digits_text() -> str:
    """A table as a user may have one: 400 handwritten digits, 0 to 16."""
    rows = load("digits", seed=1, trial=0).train[:400].numpy() * 16
    return "\n".join(",".join(f"{value:.0f}" for value in row) for row in rows)


def train_and_save(screen: Screen, root: Path) -> str:
    page = screen.page
    screen.click("Show command")
    drawn = page.locator(".evoae-lines textarea")
    drawn.wait_for()
    command = drawn.input_value()
    assert re.search(r"'schedule=points:0,0;0\.\d+,0\.\d+;1,0\.9'", command)
    assert re.search(r"dataset=out/uploads/\w{16}/digits\.csv scale=columns", command)
    screen.click("Hide command")
    found = page.locator("select", has=page.locator("option", has_text="binary-clusters, none"))
    assert found.count() == 1, "the run at the root is not found"
    epochs = page.locator(".widget-text", has_text="Epochs").nth(1).locator("input")
    epochs.fill("3000")
    epochs.press("Tab")
    screen.click("Train")
    screen.seen(MATCHES, "training, [1-9][0-9,]* of 3,000 epochs")
    page.locator("select", has=page.locator("option", has_text="cubic")).last.select_option("fixed")
    screen.seen(SAID, "schedule: fixed")  # an epoch began with it
    screen.click("Stop")
    screen.seen(SAID, "stopped, ")
    screen.shoot("stopped")
    with page.expect_download() as table:
        page.locator("button", has_text="Download CSV").nth(1).click()
    assert table.value.suggested_filename == "LiveTraining.csv"
    screen.chart(1).hover()
    with page.expect_download() as figure:
        page.locator(".modebar-btn[data-title*=PNG]").nth(1).click()
    assert figure.value.suggested_filename.endswith(".png")
    screen.click("Save")
    saved = page.get_by_text(re.compile("Saved as .*out/runs/"))
    saved.wait_for()
    kept = Run(root / saved.text_content().removeprefix("Saved as "))
    names = [name for _, name, _, _ in kept.changes]
    assert {"schedule", "epochs"} <= set(names)
    assert kept.data().train.shape == (280, 64)
    return kept.folder.name[:8]


def compare(screen: Screen, root: Path) -> None:
    page = screen.page
    page.locator("select", has=page.locator("option", has_text="wanda")).select_option("magnitude")
    epochs = page.locator(".widget-text", has_text="Epochs").nth(1).locator("input")
    schedule = page.locator("select", has=page.locator("option", has_text="cubic")).last
    schedule.select_option("drawn by hand")
    epochs.fill("30")
    epochs.press("Tab")
    screen.click("Compare")
    screen.click("Train")
    page.get_by_text("30 of 30 epochs", exact=True).wait_for()
    screen.seen(SAID, "finished, 30 of 30 epochs")
    screen.seen(SAID, "pale: ")
    screen.click("Export")
    screen.seen(SAID, "Exported as ")
    assert list(root.glob("out/runs/*/network.onnx"))
    screen.shoot("compared")
    ticks = page.locator(".widget-gridbox input[type=checkbox]")
    screen.seen("() => document.querySelectorAll('.widget-gridbox input').length === 5")
    compared = screen.curves(2)  # two trainings, which were saved, and the run that was there
    ticks.last.check()
    screen.changes(2, compared)
    screen.chart(2).scroll_into_view_if_needed()
    screen.shoot("so-far")


def watch(screen: Screen) -> None:
    page = screen.page
    page.locator(".evoae-network").scroll_into_view_if_needed()
    assert ", code: trial 0, cell 0, epoch 29" in screen.heading(1)
    page.locator(".evoae-network [role=button]", has_text="output").click()
    screen.seen(HEADED, 1, ", output: trial 0, cell 0, epoch 29")
    page.locator(".widget-hslider", has_text="Cell").locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    screen.seen(HEADED, 1, "cell 1, epoch 29")
    page.locator(".widget-hslider", has_text="Epoch").locator(".noUi-handle").focus()
    page.keyboard.press("Home")
    screen.seen(HEADED, 1, "cell 1, epoch 0")
    page.locator(".jupyter-widget-play button, .widget-play button").first.click()
    screen.seen(HEADED, 1, "cell 1, epoch 29")  # it plays to the end
    page.locator(".evoae-network [aria-pressed=true]").focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    screen.seen(HEADED, 1, ", decoder 1: trial 0, cell 1")


def every_theme_and_width(screen: Screen) -> None:
    page = screen.page
    for theme, light in (("Dark", "false"), ("Light", "true")):
        screen.menu("Settings", "Theme", f"JupyterLab {theme}")
        page.locator(f"body[data-jp-theme-light='{light}']").wait_for(state="attached")
        for width in (1440, 900):
            page.set_viewport_size({"width": width, "height": 1000})
            screen.seen(
                """() => [...document.querySelectorAll(".js-plotly-plot")].every(chart =>
                    chart.clientWidth
                    && chart.clientWidth === chart.querySelector(".main-svg").clientWidth)"""
            )
            assert cut_off(page) == []
            places = {f"chart-{number}": screen.chart(number) for number in range(3)}
            places["data"] = page.locator(".evoae-drop")
            places["inside"] = page.locator(".evoae-pictures").nth(1)
            for name, place in places.items() if screen.folder else ():
                place.scroll_into_view_if_needed()
                screen.shoot(f"{name}-{theme.lower()}-{width}")


def after_a_restart(screen: Screen, saved: str) -> None:
    page = screen.page
    screen.menu("Kernel", "Restart Kernel and Run All Cells")
    page.locator(".jp-NotebookPanel-toolbar").hover()
    screen.seen(SAID, "The knobs are as you left them.")
    page.locator(".evoae-pictures img:not([hidden])").nth(1).wait_for()
    epochs = page.locator(".widget-text", has_text="Epochs").nth(1).locator("input")
    assert epochs.input_value() == "30"
    assert "digits.csv: 400 rows" in screen.heading(0)
    runs = page.locator("select", has=page.locator("option", has_text="binary-clusters, none"))
    label = runs.locator("option", has_text=saved).text_content()
    slider = page.locator(".widget-hslider", has_text="Epoch").locator(".noUi-handle")
    for _ in range(PATIENCE // 500):
        if "epoch 0" in screen.heading(1):  # of the run that was saved with its epochs
            break
        runs.select_option(label=label)  # cells that still run may draw the widget anew
        slider.focus()
        page.keyboard.press("Home")
        page.wait_for_timeout(500)
    assert "epoch 0" in screen.heading(1)
    screen.shoot("restarted")
