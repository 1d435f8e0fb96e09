"""A headless Chromium for tests, driven over its own pipe (the DevTools protocol): nothing to install for Python."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_S = 60.0  # for one answer: on a busy machine the first takes long
# Key -> what DevTools wants to be told of it.
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27, "Enter": 13, "Tab": 9, "f": 70}


def find_chromium() -> str | None:
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """One tab. `complaints`: what the console and the page's scripts said that is worse than a note."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.complaints: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def open(self, path: Path, width: int, height: int = 900, *, dark: bool = False) -> None:
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.call("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + WAIT_S
        while self.run("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end, f"{path} never finished loading"
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression. Raises AssertionError with the page's own words where it throws."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        thrown = answer.get("exceptionDetails")
        assert thrown is None, f"{script}: {thrown.get('exception', thrown).get('description', thrown)}"
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=KEYS[key])

    def click(self, selector: str, at: tuple[float, float] = (0.5, 0.5)) -> None:
        """With the mouse, as a person does: what covers the element gets the click."""
        x, y = self._place(selector, at)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, selector: str, at: tuple[float, float] = (0.5, 0.5)) -> None:
        x, y = self._place(selector, at)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _place(self, selector: str, at: tuple[float, float]) -> tuple[float, float]:
        box = self.run(
            # What the last act set off may move the page, and the mouse meets what was drawn last.
            "(async () => { const drawn = async () => {"
            "for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame); }; await drawn();"
            f"const it = document.querySelector({json.dumps(selector)});"
            "it.scrollIntoView({block: 'center', behavior: 'instant'}); await drawn();"
            "const b = it.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        assert box[2] > 0, f"{selector} is not shown"
        assert box[3] > 0, f"{selector} is not shown"
        return box[0] + at[0] * box[2], box[1] + at[1] * box[3]


class Browser:
    """Speaks JSON, each message ended by a zero byte, with a Chromium that has the other ends of both pipes."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing, self._rest, self._number = reading, writing, b"", 0
        self._pages: dict[str, Page] = {}

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer's result; what the browser says in between goes to the pages it is about."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._writing, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (said := self._next()).get("id") != self._number:
            self._heard(said)
        assert "error" not in said, f"{method}: {said['error']}"
        return said["result"]

    def new_page(self) -> Page:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        return page

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], WAIT_S)
            found = os.read(self._reading, 1 << 20) if ready else b""
            assert found, "Chromium does not answer"
            self._rest += found
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _heard(self, said: dict[str, Any]) -> None:
        page = self._pages.get(said.get("sessionId", ""))
        if page is None:
            return
        about, method = said.get("params", {}), said.get("method")
        if method == "Runtime.exceptionThrown":
            page.complaints.append(str(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            page.complaints.append(str(about["args"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            page.complaints.append(about["entry"]["text"])


@contextmanager
def chromium(program: str, folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`, gone at the end."""
    there, writing = os.pipe()
    reading, back = os.pipe()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
    options += ["--hide-scrollbars", "--disable-dev-shm-usage", f"--user-data-dir={folder}"]
    # It reads its orders from descriptor 3 and answers on 4.
    shell = f'exec "$0" "$@" 3<&{there} 4>&{back}'
    process = subprocess.Popen(
        ["bash", "-c", shell, program, *options, "about:blank"],
        pass_fds=(there, back),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(there)
    os.close(back)
    try:
        browser = Browser(reading, writing)
        yield browser
        browser.call("Browser.close")
    finally:
        os.close(writing)  # without orders it ends
        os.close(reading)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
