"""Chromium without a window, driven over its DevTools protocol: what the tests of the page need."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE_S = 60.0
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required", "--mute-audio",
    "--remote-debugging-port=0",
)  # fmt: skip

KEYS = {"Tab": 9, "Enter": 13, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39,
        "ArrowDown": 40, "ArrowUp": 38}  # fmt: skip


class Tab:
    """One page of a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        """What the console says is wrong; the browser tells breaches of the policy there, too."""
        self.addresses: list[str] = []
        """What was asked for."""
        self.frames: list[tuple[str, int, str]] = []
        """What went through sockets: "sent" or "received", opcode, and data."""
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Ask the browser for something, and wait for its answer."""
        id = next(self._ids)
        self._socket.send(json.dumps({"id": id, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE_S))
            if message.get("id") == id:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._happened(message.get("method"), message.get("params", {}))

    def _happened(self, kind: str | None, params: Any) -> None:
        if kind == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([one.get("value") for one in params["args"]]))
        elif kind == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", details).get("description", "?"))
        elif kind == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
        elif kind == "Network.requestWillBeSent":
            self.addresses.append(params["request"]["url"])
        elif kind == "Network.webSocketCreated":
            self.addresses.append(params["url"])
        elif kind in ("Network.webSocketFrameSent", "Network.webSocketFrameReceived"):
            frame = params["response"]
            way = kind.removeprefix("Network.webSocketFrame").lower()
            self.frames.append((way, frame["opcode"], frame["payloadData"]))

    def forget(self) -> None:
        """Forget what has happened until now."""
        self.call("Network.clearBrowserCache")
        for one in (self.complaints, self.addresses, self.frames):
            one.clear()

    def open(self, address: str, before: str = "null") -> None:
        """Go to a page, run a script `before` its own, and wait until its modules run."""
        script = self.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && document.body.dataset.state")
        self.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])

    def run(self, script: str) -> Any:
        """The value of an expression."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True,
            userGesture=True,
        )  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> Any:
        """Wait until an expression holds, and give its value."""
        ends = time.monotonic() + PATIENCE_S
        while not (found := self.run(script)):
            assert time.monotonic() < ends, (
                f"it never came to {script}; the page says: {self.run('document.body.innerText')}"
            )
            time.sleep(0.03)
        return found

    def click(self, selector: str) -> None:
        """Press what a selector finds."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def key(self, name: str) -> None:
        """Press a key."""
        typed = {"Enter": "\r", " ": " "}.get(name, "")
        same = {"key": name, "code": "Space" if name == " " else name,
                "windowsVirtualKeyCode": KEYS[name]}  # fmt: skip
        self.call("Input.dispatchKeyEvent", type="keyDown", text=typed, **same)
        self.call("Input.dispatchKeyEvent", type="keyUp", **same)

    def choose(self, selector: str, path: Path) -> None:
        """Give a file to an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def drop(self, *paths: Path) -> None:
        """Drop files on the middle of the page."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=100, y=100, data=data)

    def size(self, width: int, height: int, **features: str) -> None:
        """Give the window a size, and the page what its media queries are to find."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        given = [{"name": name.replace("_", "-"), "value": value}
                 for name, value in features.items()]  # fmt: skip
        self.call("Emulation.setEmulatedMedia", features=given)

    def picture(self, path: Path, width: int, height: int, scheme: str) -> None:
        """The page as it looks at a size, in a light or dark scheme."""
        self.size(width, height, prefers_color_scheme=scheme)
        self.run("new Promise((d) => requestAnimationFrame(() => requestAnimationFrame(d)))")
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium(downloads: Path, flags: Sequence[str] = ()) -> Generator[Tab]:
    """A browser with one page; what is downloaded lies in a folder."""
    assert CHROMIUM is not None
    folder = tempfile.mkdtemp(prefix="kiku-chromium-")
    process = subprocess.Popen(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}", *flags, "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder},
    )  # fmt: skip
    try:
        port, path = _debugger_of(Path(folder), process)
        with connect(f"ws://127.0.0.1:{port}{path}", compression=None) as browser:
            request = {"id": 1, "method": "Browser.setDownloadBehavior",
                       "params": {"behavior": "allow", "downloadPath": str(downloads)}}  # fmt: skip
            browser.send(json.dumps(request))
            browser.recv(PATIENCE_S)
            with connect(
                _page_of(port), compression=None, max_size=None, ping_interval=None
            ) as socket:
                yield Tab(socket)
            with suppress(Exception):
                browser.send(json.dumps({"id": 2, "method": "Browser.close"}))
                process.wait(10)
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        shutil.rmtree(folder, ignore_errors=True)


def _debugger_of(folder: Path, process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """Where the browser listens."""
    ends = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < ends, "the browser did not start"
        assert process.poll() is None, f"the browser ended with {process.returncode}"
        with suppress(OSError, ValueError):
            port, path = (folder / "DevToolsActivePort").read_text().split("\n")[:2]
            return int(port), path
        time.sleep(0.03)


def _page_of(port: int) -> str:
    ends = time.monotonic() + PATIENCE_S
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_S) as a:
            pages = [one for one in json.load(a) if one["type"] == "page"]
        if pages:
            return str(pages[0]["webSocketDebuggerUrl"])
        assert time.monotonic() < ends, "the browser has no page"
        time.sleep(0.03)
