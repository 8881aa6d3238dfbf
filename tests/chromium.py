"""Chromium without a window, over the pipe of its DevTools protocol, for tests of pages."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
KEYS = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowDown": 40}
SECONDS = 60.0


class Page:
    """A page in a browser of its own.

    Attributes:
        problems: What the page wrote to the console as a warning or error, and what it raised,
            since it was opened.
    """

    def __init__(self, path: Path):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (theirs, self.writing), (self.reading, answers) = os.pipe(), os.pipe()

        def ends():
            """The protocol's ends are the descriptors 3 and 4; first away from these numbers."""
            to, back = os.dup(theirs), os.dup(answers)
            high = [os.dup(to), os.dup(back)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
        profile = f"--user-data-dir={self.folder.name}"
        self.process = subprocess.Popen(
            [PROGRAM, *options, profile, "--no-first-run", "--hide-scrollbars", "about:blank"],
            preexec_fn=ends,
            close_fds=False,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs)
        os.close(answers)
        self.problems: list[str] = []
        self.rest = b""
        self.number = 0
        self.session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.url = path.resolve().as_uri()

    def ask(self, method, **params):
        """Call a method of the protocol, and return its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            answer = self._next(end)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)
        raise TimeoutError(method)

    def _next(self, end):
        while b"\0" not in self.rest:
            if not select.select([self.reading], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("no answer of the browser")
            self.rest += os.read(self.reading, 2**20)
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def _note(self, event):
        said, params = event.get("method"), event.get("params", {})
        if said == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:500])
        if said == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(json.dumps(params["args"])[:500])
        if said == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])

    def open(self, width, dark, place=""):
        """Load the page anew in a window of a width, px."""
        self.problems.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=self.url + place)
        end = time.monotonic() + SECONDS
        while not self.run("document.documentElement?.hasAttribute('data-ready')"):
            assert time.monotonic() < end, self.problems
            time.sleep(0.05)

    def run(self, script):
        """The value of a script."""
        found = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            code = KEYS[key]
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **text,
            )

    def picture(self, path, whole=True):
        """Write a PNG of the page."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.reading)
        os.close(self.writing)
        self.folder.cleanup()
