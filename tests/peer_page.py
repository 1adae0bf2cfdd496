"""The server's page in headless Chromium, with a microphone that plays a recording. Runs where there is playwright:
`python peer_page.py CHROMIUM URL FILE.wav DIR` prints JSON and leaves pictures in DIR. Imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from typing import Any

from playwright.sync_api import Page, sync_playwright

WIDE, NARROW = {"width": 1100, "height": 720}, {"width": 390, "height": 780}


def said(page: Page) -> str:
    """The text of all sentences, without their times."""
    return "".join(page.locator("#text p:not(.live) span").all_text_contents())


def until(page: Page, condition: str) -> None:
    """Wait for it; the page itself may not evaluate texts, and so cannot be asked to wait."""
    end = time.monotonic() + 60
    while not page.evaluate(condition):
        if time.monotonic() > end:
            raise TimeoutError(f"{condition}: {page.locator('#status').inner_text()}")
        page.wait_for_timeout(100)


def record(page: Page, url: str, path: str, cut: bool) -> dict[str, Any]:
    """Speak until the recording is heard, stop, and wait for the last word; cut: lose the connection on the way."""
    page.goto(url)
    page.click("#record")
    until(page, "document.querySelector('#text').textContent.length > 3")
    page.screenshot(path=path)
    live = page.locator("#text").inner_text()
    if cut:
        page.evaluate("sockets.at(-1).close(4000)")
        until(page, "sockets.length > 1 && sockets.at(-1).readyState === 1")
    page.wait_for_timeout(12_000)  # the whole recording
    delay = page.locator("#times").inner_text()
    page.click("#record")
    until(page, "document.querySelector('#times').value === '' && sockets.at(-1).readyState > 1")
    return {"live": live, "text": said(page), "delay": delay, "connections": page.evaluate("sockets.length")}


def file(page: Page, url: str, recording: str, folder: str) -> dict[str, Any]:
    """Choose a file; then what can be downloaded, in the other language."""
    page.goto(url)
    page.set_input_files("#file", recording)
    page.wait_for_selector("#save-srt:not([disabled])", timeout=60_000)
    before = page.locator("#record").inner_text()
    page.click("#language")
    with page.expect_download() as download:
        page.click("#save-srt")
    page.screenshot(path=f"{folder}/file.png")
    return {
        "text": said(page),
        "srt": download.value.path().read_text(encoding="utf-8"),
        "buttons": [before, page.locator("#record").inner_text()],
        "shades": page.locator("#text span[title]").count(),
    }


def crowded(page: Page) -> bool:
    """Whether the button is in sight after an hour of talk."""
    sentence = "document.querySelector('#text p').cloneNode(true)"
    page.evaluate(f"for (let n = 0; n < 60; n++) document.querySelector('#text').append({sentence})")
    return bool(page.evaluate("document.querySelector('#record').getBoundingClientRect().bottom <= innerHeight"))


def accessible(page: Page) -> list[str]:
    """Controls without a name, which a screen reader could not read out."""
    script = """() => [...document.querySelectorAll('button, input, select, textarea, meter')].filter((one) =>
      !(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length)).map((one) => one.id)"""
    found: list[str] = page.evaluate(script)
    return found


def main(chromium: str, url: str, recording: str, folder: str) -> dict[str, Any]:
    """All of it."""
    microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--no-sandbox"]
    microphone.append(f"--use-file-for-fake-audio-capture={recording}%noloop")
    found: dict[str, Any] = {"errors": []}
    with sync_playwright() as play:
        for name, size, locale in (("wide", WIDE, "zh-CN"), ("narrow", NARROW, "en-GB")):
            browser = play.chromium.launch(executable_path=chromium, args=microphone)  # its microphone begins anew
            page = browser.new_page(viewport=size, locale=locale, color_scheme="light")
            page.on(
                "console", lambda message: found["errors"].append(message.text) if message.type == "error" else None
            )
            page.on("pageerror", lambda error: found["errors"].append(str(error)))
            page.add_init_script(
                "window.sockets = []; const Real = WebSocket; window.WebSocket = class extends Real {"
                " constructor(...all) { super(...all); sockets.push(this); } };"
            )
            found[name] = record(page, url, f"{folder}/{name}.png", cut=name == "narrow")
            found[name]["overflow"] = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            page.screenshot(path=f"{folder}/{name}-done.png")
            found["unnamed"] = accessible(page)
            found[name]["in sight"] = crowded(page)
            if name == "wide":
                found["file"] = file(page, url, recording, folder)
            browser.close()
    return found


if __name__ == "__main__":
    assert urllib.request.urlopen(sys.argv[2], timeout=20).status == 200
    print("\n" + json.dumps(main(*sys.argv[1:])))
