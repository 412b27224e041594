"""Visit every page of the built site in headless Chromium: ``python docs/_site/visit.py build/docs/html``.

At the width of a phone and of a desktop, a page must load without an error on its console, with all its pictures, and must not be
wider than the window. Where no Chromium is found, it says so and ends well: the other checks need none. NINEFOLD_CHROMIUM names
one. ``--shots FOLDER`` and names of pages make pictures of them.
"""

import argparse
import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 120  # seconds for one step of the browser, on a busy machine

LOOK = """(async () => {
  const pictures = [...document.images];
  pictures.forEach(p => { p.loading = "eager"; });
  await Promise.all(pictures.map(p => p.decode().catch(() => null)));
  return {
    missing: pictures.filter(p => !p.naturalWidth).map(p => p.getAttribute("src")),
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    words: document.body.innerText.trim().length,
  };
})()"""


class Quiet(SimpleHTTPRequestHandler):
    """A server that writes no log."""

    def log_message(self, *said: object) -> None:
        """Say nothing."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine, and give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


@contextmanager
def browser(program: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a Chromium that nobody sees, with a profile of its own, and stop it in the end."""
    with tempfile.TemporaryDirectory(prefix="ninefold-docs-", ignore_cleanup_errors=True) as profile:
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
        words += ["--no-first-run", "--hide-scrollbars", "about:blank"]
        running = subprocess.Popen([program, *words], stderr=subprocess.PIPE)  # noqa: S603  a browser of this machine
        try:
            yield running
        finally:
            running.terminate()
            running.wait()


def socket_of(running: subprocess.Popen[bytes]) -> str:
    """Return the address at which a browser takes commands.

    Raises
    ------
    RuntimeError
        If it ended without saying one.
    """
    assert running.stderr is not None
    for line in running.stderr:
        if b"DevTools listening on" in line:
            Thread(target=running.stderr.read, daemon=True).start()  # or it stops when the pipe is full
            return line.split()[-1].decode()
    raise RuntimeError(f"Chromium ended with {running.wait()} before it took commands")


class Tab:
    """One page of the browser, and what it reported."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection, self.number, self.session = connection, 0, ""
        self.errors: list[str] = []
        self.loaded = False

    async def open(self) -> None:
        """Make a page and ask for its reports."""
        made = await self.ask("Target.createTarget", url="about:blank")
        attached = await self.ask("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.ask(f"{domain}.enable")

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its answer.

        Raises
        ------
        RuntimeError
            If the browser refuses it, or has gone.
        """
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        await self.connection.write_message(json.dumps(message))
        while (answer := await self.hear()).get("id") != self.number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def hear(self) -> dict[str, Any]:
        """Return the next message, and keep what it reports."""
        said = await asyncio.wait_for(self.connection.read_message(), PATIENCE)
        if said is None:
            raise RuntimeError("Chromium has gone")
        message: dict[str, Any] = json.loads(said)
        kind, told = message.get("method"), message.get("params", {})
        if kind == "Page.loadEventFired":
            self.loaded = True
        elif kind == "Runtime.exceptionThrown":
            self.errors.append(told["exceptionDetails"]["text"])
        elif kind == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(part.get("value", "")) for part in told["args"]))
        elif kind == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        return message

    async def visit(self, address: str, size: tuple[int, int]) -> list[str]:
        """Load a page in a window of some size, and return what is wrong with it."""
        self.errors, self.loaded = [], False
        width, height = size
        await self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        await self.ask("Page.navigate", url=address)
        while not self.loaded:
            await self.hear()
        answer = await self.ask("Runtime.evaluate", expression=LOOK, awaitPromise=True, returnByValue=True)
        seen = answer["result"]["value"]
        wrong = [f"console: {error}" for error in self.errors] + [f"no picture {name}" for name in seen["missing"]]
        if seen["wide"] > 0:
            wrong.append(f"{seen['wide']} pixels wider than the window")
        if seen["words"] < 40:
            wrong.append("empty")
        return wrong

    async def shoot(self) -> bytes:
        """Return what the window shows as a PNG file."""
        shot = await self.ask("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])


async def visited(site: Path, program: str, names: list[str], shots: dict[str, bytes] | None) -> dict[str, list[str]]:
    """Return what is wrong, by page and size; only pages that have something wrong are in it. Pictures are put into `shots`."""
    found: dict[str, list[str]] = {}
    with served(site) as address, browser(program) as running:
        tab = Tab(await websocket_connect(socket_of(running), max_message_size=2**28))
        await tab.open()
        for name in names:
            for label, size in SIZES.items():
                if wrong := await tab.visit(f"{address}/{name}", size):
                    found[f"{name} ({label})"] = wrong
                if shots is not None:
                    shots[f"{name.removesuffix('.html').replace('/', '-')}-{label}.png"] = await tab.shoot()
    print(f"{len(names)} pages visited at {' and '.join(f'{w}x{h}' for w, h in SIZES.values())}")
    return found


def main() -> int:
    """Print what is wrong, and return 1 if anything is."""
    parser = argparse.ArgumentParser(description="Visit every page of the built site in headless Chromium.")
    parser.add_argument("site", type=Path)
    parser.add_argument("pages", nargs="*", help="pages to visit, all if none is named")
    parser.add_argument("--shots", type=Path, help="folder for pictures of the pages")
    told = parser.parse_intermixed_args()
    program = os.environ.get("NINEFOLD_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        print(
            f"SKIPPED: pages were not visited, as none of {', '.join(NAMES)} is installed; NINEFOLD_CHROMIUM=path names another"
        )
        return 0
    names = told.pages or [str(file.relative_to(told.site)) for file in sorted(told.site.rglob("*.html"))]
    shots: dict[str, bytes] | None = None if told.shots is None else {}
    found = asyncio.run(visited(told.site, program, names, shots))
    for name, shot in (shots or {}).items():
        told.shots.mkdir(parents=True, exist_ok=True)
        (told.shots / name).write_bytes(shot)
    for page, wrong in found.items():
        print(f"{page}: {'; '.join(wrong)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
