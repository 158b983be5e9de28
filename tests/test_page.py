#!/usr/bin/env python3
"""The page of gemma4 serve in a browser: clicks through it as a user would, with the bundled model.

usage: test_page.py GEMMA4 [FOLDER]
Needs chromium and chromedriver; where they are not, it counts as skipped. Screenshots go into FOLDER."""
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import score

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
EXAMPLES = os.path.join(ROOT, "examples")
ENTER, ESCAPE, UP = "\ue007", "\ue00c", "\ue013"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
PATIENCE = 60  # seconds, on a busy machine


class Browser:
    """The few calls of the WebDriver protocol that a click takes."""

    def __init__(self):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.driver.stdout:
            found = re.search(r"successfully on port (\d+)", line)
            if found:
                break
        self.url = f"http://127.0.0.1:{found[1]}"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1000,800",
                 "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""
        self.session = "/session/" + self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + self.session + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as f:
                return json.load(f)["value"]
        except urllib.error.HTTPError as e:
            raise RuntimeError(json.load(e)["value"]["message"].split("\n")[0]) from None

    def go(self, url):
        self.call("POST", "/url", {"url": url})

    def find(self, css):
        return "/element/" + self.call("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]

    def click(self, css):
        self.call("POST", self.find(css) + "/click", {})

    def type(self, css, text):
        self.call("POST", self.find(css) + "/value", {"text": text})

    def run(self, script):
        return self.call("POST", "/execute/sync", {"script": "return " + script, "args": []})

    def wait(self, script):
        """Until that is true; nothing when it stays false."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.05)
        return None

    def shoot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("GET", "/screenshot")))

    def log(self):
        return [e["message"] for e in self.call("POST", "/se/log", {"type": "browser"}) if e["level"] == "SEVERE"]

    def close(self):
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()


def ready(browser):
    """The text of the last answer, once it is complete."""
    browser.wait("document.querySelector('.message.assistant:last-of-type .foot button') && $('send').textContent === 'Send'")
    return browser.run("[...document.querySelectorAll('.message.assistant .body')].pop()?.innerText || ''")


def ask(browser, text):
    n = browser.run("document.querySelectorAll('.message.assistant').length")
    browser.type("#text", text + ENTER)
    browser.wait(f"document.querySelectorAll('.message.assistant').length > {n}")
    return ready(browser)


def click_through(browser, url, folder):
    expect, shoot = score.expect, lambda name: browser.shoot(os.path.join(folder, name + ".png"))
    browser.go(url)
    expect(browser.wait("$('model').textContent"), "the page names the model")
    shoot("empty")

    said = ask(browser, "What is the opposite of hot?")
    foot = browser.run("[...document.querySelectorAll('.message.assistant .foot')].pop().innerText")
    expect("cold" in said, f"a question is answered: {said!r}")
    expect(re.search(r"\d+ tokens, [\d.]+ tokens/s; prompt \d+", foot), f"the foot has figures: {foot!r}")
    shoot("text")

    browser.type("#file", os.path.join(EXAMPLES, "table.png"))
    expect(browser.wait("document.querySelectorAll('#waiting img').length === 1"), "a picture waits for the next message")
    said = ask(browser, "Detect all shapes.")
    expect(browser.run("document.querySelectorAll('.message.user img').length") == 1, "the picture stands in the message")
    expect(browser.run("document.querySelectorAll('figure.boxes svg rect').length") >= 1, f"boxes are drawn over it: {said!r}")
    shoot("boxes")

    browser.type("#file", os.path.join(EXAMPLES, "speech.wav"))
    expect(browser.wait("document.querySelectorAll('#waiting .chip').length === 1"), "a sound waits for the next message")
    said = ask(browser, "Transcribe the speech.")
    expect(len(said) > 0 and browser.run("document.querySelectorAll('.message.user audio').length") == 1, f"a sound is answered: {said!r}")

    browser.click("#record")
    expect(browser.wait("$('record').getAttribute('aria-pressed') === 'true'"), "a recording begins")
    time.sleep(1.5)
    browser.click("#record")
    expect(browser.wait("document.querySelectorAll('#waiting .chip').length === 1"), "and waits as a sound")
    browser.click("#waiting button")
    expect(browser.wait("document.querySelectorAll('#waiting .chip').length === 0"), "it can be taken away")

    n = browser.run("messages.length")
    browser.run("location.reload()")
    expect(browser.wait(f"typeof messages !== 'undefined' && messages.length === {n} && $('model').textContent"), "a reload keeps the chat")
    expect(browser.run("document.querySelectorAll('figure.boxes svg rect').length") >= 1, "boxes too")

    browser.click("#fresh")
    browser.click("#set")
    browser.run("$('schema').value = JSON.stringify({type: 'string', minLength: 3000})")
    browser.type("#text", "A long story" + ENTER)
    browser.wait("[...document.querySelectorAll('.message.assistant .body')].pop()?.innerText.length > 20")
    browser.type("#text", ESCAPE)
    ready(browser)
    expect("stopped" in browser.run("[...document.querySelectorAll('.message.assistant .foot')].pop().innerText"), "Escape stops an answer")
    browser.run("$('schema').value = ''")

    browser.click("#set")
    browser.type("#text", UP)
    expect(browser.run("$('text').value") == "A long story" and browser.run("messages.length") == 0, "Arrow up changes the last message")
    browser.run("$('text').value = ''")

    with open(os.path.join(EXAMPLES, "tools.json"), encoding="utf-8") as f:
        browser.run("$('tools').value = " + json.dumps(f.read()))
    ask(browser, "What is the weather in Paris?")
    expect(browser.run("document.querySelectorAll('.call textarea').length") == 1, "a call asks for its result")
    shoot("call")
    browser.type(".call textarea", "{\"weather\": \"sunny\"}")
    browser.click(".call + button")
    browser.wait("messages.length === 4")
    expect(len(ready(browser)) > 0, "the result is answered")

    browser.run("$('schema').value = '{'")
    browser.type("#text", "x" + ENTER)
    expect(browser.wait("$('note').className === 'bad' && $('note').textContent.includes('Schema: no JSON')"), "a bad schema is told")
    browser.run("$('schema').value = ''")

    browser.click("#theme")
    expect(browser.run("document.documentElement.dataset.theme") == "dark", "there is a dark theme")
    shoot("dark")
    unnamed = browser.run("[...document.querySelectorAll('button, input, textarea')].filter(e => e.tabIndex >= 0 && "
                          "!(e.textContent || e.ariaLabel || e.labels && e.labels.length)).length")
    expect(unnamed == 0, "whatever can be used has a name for who does not see it")
    log = browser.log()
    expect(log == [], f"the browser has nothing to complain of: {log}")


def main():
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        score.skip("no chromium, or no chromedriver")
        return score.end()
    folder = sys.argv[2] if len(sys.argv) > 2 else os.path.join(ROOT, "build", "page")
    os.makedirs(folder, exist_ok=True)
    server = subprocess.Popen([sys.argv[1], "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    browser = None
    try:
        url = next(found[0] for found in (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stdout) if found)
        browser = Browser()
        click_through(browser, url, folder)
    finally:
        if browser:
            browser.close()
        server.terminate()
        score.expect(server.wait(10) == 0, "the server ends when it is asked to")
    return score.end()


if __name__ == "__main__":
    sys.exit(main())
