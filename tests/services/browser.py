"""A real Chromium, driven over the DevTools protocol (chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kest_services.processes import Processes
from kest_services.service import wait_until
from websockets.sync.client import ClientConnection, connect

__all__ = ["Page", "browsing", "installed"]

FLAGS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "--window-size=1400,900",
)  # fmt: skip
PATIENCE = 30.0


def installed() -> str | None:
    """The program, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab: commands, and what it reported while they ran."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command; what else comes meanwhile is kept in `events`."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until it is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never true: {expression}"
            self.run("new Promise(requestAnimationFrame)")

    def open(self, url: str) -> None:
        """Load a page, up to its load event."""
        self.events.clear()
        self.send("Page.navigate", url=url)
        end = time.monotonic() + PATIENCE
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < end, "the page never loaded"
            self.events.append(json.loads(self._socket.recv(PATIENCE)))

    def click(self, x: float, y: float) -> None:
        """The mouse, at a point of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int = 0, text: str = "") -> None:
        """One key."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def type(self, text: str) -> None:
        """Text, into what has the focus."""
        self.send("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """A screenshot, as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and violations of the page's policy, so far."""
        self.run("0")
        said = []
        for event in self.events:
            method, what = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                said.append(str(what["exceptionDetails"]))
            elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
                said.append(what["entry"]["text"])
            elif method == "Runtime.consoleAPICalled":
                said.append(str(what["args"]))
        return said

    def requested(self) -> list[str]:
        """The URLs that the page asked for."""
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """A tab of a browser of this test's own, with an empty profile."""
    program = installed()
    assert program is not None
    profile = folder / "profile"
    command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # Chromium's sandbox refuses to be started by root
    with Processes(folder) as processes:
        process = processes.start("chromium", command, talks=False, forks=True)
        port = profile / "DevToolsActivePort"
        wait_until(lambda: port.is_file() and port.read_text().count("\n") >= 1, PATIENCE, process.alive)
        address = f"127.0.0.1:{port.read_text().splitlines()[0]}"
        target = _tab(address)
        with connect(target, max_size=None, open_timeout=PATIENCE) as socket:
            yield Page(socket)


def _tab(address: str) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://{address}/json/list", timeout=PATIENCE) as answer:
        tabs = json.load(answer)
    return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")
