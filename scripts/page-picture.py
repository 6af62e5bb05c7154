#!/usr/bin/env python3
"""Takes the picture docs/page.png from the demo: buys two tickets and waits until they can be paid.

    make run                                                       # in another terminal
    scripts/page-picture.py http://127.0.0.1/shop/festival docs/page.png

Needs chromium, chromium-driver and a font with Chinese characters, such as Debian's fonts-wqy-microhei.
"""
import base64
import json
import subprocess
import sys
import time
import urllib.request

PATIENCE_S = 20
OPTIONS = ["--headless=new", "--no-sandbox", "--window-size=640,1000", "--lang=en-US"]
BUY = """
for (const [field, value] of [["#buyer", "ann"], ["#quantity", "2"]]) {
  const input = document.querySelector(field);
  input.value = value;
  for (const name of ["input", "change"]) input.dispatchEvent(new Event(name, { bubbles: true }));
}
document.querySelector("#submit").click();
"""
IS_OPEN = "return document.querySelector('#state').textContent === 'On sale'"
IS_HELD = """
const pay = document.querySelector("article.order .pay");
return pay !== null && !pay.hidden && pay.getAttribute("aria-disabled") !== "true";
"""
SOLD_IS_SHOWN = "return !document.querySelector('#left').textContent.startsWith(arguments[0])"


def until(what, look):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.1)
    sys.exit(f"not within {PATIENCE_S} s: {what}")


def main(url, file):
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    line = until("chromedriver names its port", lambda: next((l for l in driver.stdout if "started successfully" in l), None))
    base = f"http://127.0.0.1:{line.rsplit(' ', 1)[1].strip().rstrip('.')}"

    def send(method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"}, method=method)
        return json.load(urllib.request.urlopen(request))["value"]

    try:
        wanted = {"alwaysMatch": {"goog:chromeOptions": {"args": OPTIONS}}}
        session = "/session/" + send("POST", "/session", {"capabilities": wanted})["sessionId"]
        run = lambda script, *args: send("POST", session + "/execute/sync", {"script": script, "args": args})
        send("POST", session + "/url", {"url": url})
        until("the sale is open", lambda: run(IS_OPEN))
        before = run("return document.querySelector('#left').textContent.split(' ')[0]")
        run(BUY)
        until("the order can be paid", lambda: run(IS_HELD))
        until("the stock is up to date", lambda: run(SOLD_IS_SHOWN, before))
        shot = {"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": True}}
        with open(file, "wb") as picture:
            picture.write(base64.b64decode(send("POST", session + "/goog/cdp/execute", shot)["data"]))
        send("DELETE", session)
    finally:
        driver.terminate()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
