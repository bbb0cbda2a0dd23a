"""A page in headless Chromium, told what to do through its debugging pipe."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def found() -> str | None:
    """Return the path of a Chromium, None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """A page that is open.

    Attributes
    ----------
    requests
        The addresses that it has asked for.
    complaints
        Its errors and warnings.
    """

    def __init__(self, to: int, back: int) -> None:
        self._to = to
        self._back = back
        self._number = 0
        self._pending = b""
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def open(self, path: Path, *, width: int, height: int, dark: bool = False) -> None:
        """Open a file in a window of this size, in CSS pixels."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        phone = width < 600
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=path.absolute().as_uri())
        self.evaluate(
            "new Promise(done => document.readyState === 'complete' ? done()"
            " : addEventListener('load', done))"
        )
        # What is to be drawn is drawn in the frames that follow.
        self.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def evaluate(self, expression: str) -> Any:
        """Return what an expression of JavaScript is, when its promise is kept."""
        answer = self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"browser: {expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def picture(self, path: Path) -> None:
        """Write what the window shows to a file, as PNG."""
        data = self.ask("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def ask(self, method: str, **parameters: Any) -> Any:
        """Return the answer to a command of the DevTools protocol."""
        self._number += 1
        said = {"id": self._number, "method": method, "params": parameters}
        if self._session and not method.startswith("Target."):
            said["sessionId"] = self._session
        os.write(self._to, json.dumps(said).encode() + b"\0")
        while True:
            heard = self._heard()
            if heard.get("id") == self._number:
                if "error" in heard:
                    raise RuntimeError(f"browser: {method}: {heard['error']}")
                return heard["result"]
            self._note(heard.get("method"), heard.get("params", {}))

    def _note(self, event: str | None, facts: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(facts["exceptionDetails"]))
        elif event == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.complaints.append(facts["entry"]["text"])

    def _heard(self) -> Any:
        while b"\0" not in self._pending:
            part = os.read(self._back, 1 << 20)
            if not part:
                raise RuntimeError("browser: Chromium has ended")
            self._pending += part
        message, _, self._pending = self._pending.partition(b"\0")
        return json.loads(message)


@contextmanager
def page() -> Iterator[Page]:
    """Return a context with a page of a Chromium that ends with it."""
    path = found()
    if path is None:
        raise FileNotFoundError(f"browser: one of {', '.join(NAMES)} must be installed")
    theirs, to = os.pipe()
    back, ours = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Chromium reads commands from descriptor 3, and answers on 4.
        shell = f'exec "$0" "$@" 3<&{theirs} 4>&{ours}'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
            "--disable-dev-shm-usage",
        ]
        process = subprocess.Popen(
            ["bash", "-c", shell, path, *options, "about:blank"],
            pass_fds=(theirs, ours),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        try:
            yield Page(to, back)
        finally:
            os.close(to)
            os.close(back)
            process.terminate()
            process.wait()
