"""A page in headless Chromium: opened from disk with no network, its complaints kept."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DESKTOP, PHONE = (1280, 900), (390, 844)


def chromium() -> str | None:
    """The program: `CHROMIUM` of the environment, or what is installed; None without any."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in CHROMIUM if (found := shutil.which(name))), None)


@contextmanager
def started() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = chromium()
    if program is None:
        pytest.skip(f"there is no Chromium: none of {', '.join(CHROMIUM)} is on the path")
    with driver.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Tab:
    """An open page; `complaints` are its errors and warnings, `requests` what it asked for but itself."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def choose(self, name: str, value: object) -> None:
        """A value of one of the explorer's lists."""
        self.page.select_option(f"#explorer-{name}", value=str(value))

    def slide(self, place: int) -> None:
        """The step slider to a place, as its keys do."""
        self.page.focus("#explorer-step")
        self.page.keyboard.press("Home")
        for _ in range(place):
            self.page.keyboard.press("ArrowRight")

    def scores(self) -> dict[str, tuple[str, str]]:
        """Series → R² and range, as they stand in the explorer's table; controls have names of their own."""
        lines = self.page.eval_on_selector_all(
            "#explorer tbody tr:not(.group)",
            "all => all.map(one => [...one.querySelectorAll('th, td:not(.track)')].map(cell => cell.textContent))",
        )
        return {name: (value, spread) for name, value, spread in lines}

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(
            self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )


@contextmanager
def opened(
    browser: Any, path: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light", script: bool = True
) -> Iterator[Tab]:
    """The file in a window of its own."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        java_script_enabled=script,
        offline=True,
    )
    tab = Tab(context.new_page())
    tab.page.on(
        "console",
        lambda said: tab.complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.page.on("dialog", lambda dialog: (tab.complaints.append(dialog.message), dialog.dismiss()))
    tab.page.on(
        "request",
        lambda request: None if request.url.startswith("data:") else tab.requests.append(request.url),
    )
    tab.page.goto(path.as_uri())
    yield tab
    context.close()
