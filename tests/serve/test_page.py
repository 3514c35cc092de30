"""The page: its files and headers, and what a visitor sees, in a real browser."""

import http.client
import json
import re
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import kiku
from kiku.serve.page import HEADERS, Page
from tests.serve.browser import CHROMIUM, PATIENCE_S, Tab, chromium
from tests.serve.conftest import EXAMPLES
from tests.serve.running import Running, running

DIGITS, ANSWERS = EXAMPLES / "digits.wav", EXAMPLES / "answers.mp3"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

WORDS = "[...document.querySelectorAll('#text .word')].map((one) => one.textContent).join(' ')"
NOTICE = "document.querySelector('#notice:not([hidden])')?.textContent ?? ''"
IDLE = "document.body.dataset.state === 'idle'"


# Without a browser.


def test_the_page_and_its_files_forbid_everything_from_elsewhere(service: Running):
    names = ["", *(f"page/{name}" for name in Page().files)]
    assert len(names) > 6
    for name in names:
        answer = httpx.get(f"{service.http}/{name}")
        assert answer.status_code == 200, name
        for header, value in HEADERS.items():
            assert answer.headers[header] == value
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http:" not in policy


def test_every_file_says_what_it_is(service: Running):
    kinds = {"": "text/html", "page/style.css": "text/css", "page/app.js": "text/javascript",
             "page/microphone-worklet.js": "text/javascript",
             "page/icon.svg": "image/svg+xml"}  # fmt: skip
    for name, kind in kinds.items():
        answer = httpx.get(f"{service.http}/{name}")
        assert answer.headers["content-type"].split(";")[0] == kind


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/nothing.js", "/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py",
     "/page/..", "/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/..%5capp.py",
     "/page/style.css%00", "/page/../page.py"],
)  # fmt: skip
def test_nothing_but_the_page_lies_there(service: Running, path: str):
    # httpx would tidy the path: it is sent as it is.
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, PATIENCE_S)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
    assert answer.status == 404
    assert "import" not in text


def test_no_file_of_the_page_names_another_host_or_has_script_in_it():
    for name, data in Page().files.items():
        text = data.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?|wss?)://", text), name
        assert not re.search(r"\son[a-z]+\s*=\s*[\"']|\sstyle\s*=|<style|javascript:", text), name
    html = Page().files["index.html"].decode()
    assert re.findall(r"<script[^>]*>", html) == ['<script type="module" src="/page/app.js">']


def test_with_keys_the_page_is_a_401_and_its_files_are_open(demo: kiku.Recognizer):
    with running(demo, api_key=("sesame",)) as service:
        front = httpx.get(service.http)
        assert front.status_code == 401
        assert front.text == Page().files["index.html"].decode()
        assert front.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        key = {"Authorization": "Bearer sesame"}
        assert httpx.get(service.http, headers=key).status_code == 200
        assert httpx.get(f"{service.http}/page/app.js").status_code == 200
        assert httpx.get(f"{service.http}/page/nothing").status_code == 404
        for closed in ("/v1/models", "/metrics", "/page", "/pages", "/api/build_info"):
            assert httpx.get(service.http + closed).status_code == 401, closed


# In a browser.


@pytest.fixture(scope="module")
def said(demo: kiku.Recognizer) -> dict[Path, str]:
    """What the recordings say."""
    return {path: demo.transcribe(path).text for path in (DIGITS, ANSWERS)}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Tab, Path]]:
    """A browser whose microphone hears the digits once, and where its downloads lie."""
    folder = tmp_path_factory.mktemp("downloads")
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
             f"--use-file-for-fake-audio-capture={DIGITS}%noloop"]  # fmt: skip
    with chromium(folder, flags) as tab:
        yield tab, folder


@pytest.fixture
def tab(browser: tuple[Tab, Path]) -> Tab:
    """The browser's page, with nothing said yet."""
    tab, _ = browser
    tab.call("Network.clearBrowserCache")
    tab.complaints.clear()
    tab.addresses.clear()
    return tab


@contextmanager
def quiet(tab: Tab, service: Running) -> Generator[None]:
    """Nothing in the console, and nothing asked of another host."""
    yield
    tab.run("1")  # what is on its way comes before the answer
    assert tab.complaints == []
    for address in tab.addresses:
        own = (service.http, service.ws, f"blob:{service.http}", "data:")
        assert address.startswith(own), address


def wait_for(condition: Callable[[], Any]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "it did not come to it"
        time.sleep(0.02)


@needs_chromium
@pytest.mark.parametrize("path", [DIGITS, ANSWERS], ids=lambda path: path.name)
def test_a_file_that_is_chosen_is_heard(
    tab: Tab, service: Running, said: dict[Path, str], path: Path
):
    with quiet(tab, service):
        tab.open(service.http)
        tab.choose("#file", path)
        tab.wait(f"{IDLE} && {WORDS}")
        assert tab.run(WORDS) == said[path]
        assert tab.run(NOTICE) == ""
        assert "demo" in tab.run("document.querySelector('#model').textContent")


@needs_chromium
def test_a_file_that_is_dropped_is_heard(tab: Tab, service: Running, said: dict[Path, str]):
    with quiet(tab, service):
        tab.open(service.http)
        tab.drop(DIGITS)
        tab.wait(f"{IDLE} && {WORDS}")
        assert tab.run(WORDS) == said[DIGITS]


@needs_chromium
def test_the_microphone_is_heard_as_one_speaks(tab: Tab, service: Running, said: dict[Path, str]):
    last = said[DIGITS].split()[-1]
    with quiet(tab, service):
        tab.open(service.http)
        tab.click("#speak")
        tab.wait("!document.querySelector('#finalize').hidden")
        assert "Listening" in tab.run("document.querySelector('#speak').textContent")
        tab.wait("Number(document.querySelector('#meter').getAttribute('aria-valuenow')) > 30")
        tab.wait("/^\\d+\\.\\d s behind$/.test(document.querySelector('#lag').textContent)")
        tab.wait(f"{WORDS}.split(' ').includes({json.dumps(last)})")
        tab.click("#stop")
        tab.wait(IDLE)
        heard, wanted = tab.run(WORDS).split(), said[DIGITS].split()
        # A browser begins its fake microphone some time before it hands out the first sound.
        assert heard[-3:] == wanted[-3:]
        assert len(heard) >= len(wanted) - 1
        assert not tab.run("document.querySelector('#play').hidden")


@needs_chromium
def test_the_downloads_hold_the_words(
    browser: tuple[Tab, Path], tab: Tab, service: Running, said: dict[Path, str]
):
    folder = browser[1]
    tab.open(service.http)
    tab.choose("#file", ANSWERS)
    tab.wait(f"{IDLE} && {WORDS}")
    found = {}
    for kind in ("txt", "srt", "json"):
        tab.click(f"#save-{kind}")
        path = folder / f"answers.{kind}"
        wait_for(lambda path=path: path.exists() and path.stat().st_size)
        found[kind] = path.read_text()
    assert found["txt"].split() == said[ANSWERS].split()
    whole = json.loads(found["json"])
    assert whole["text"] == said[ANSWERS]
    assert whole["model"]
    assert " ".join(turn["text"] for turn in whole["turns"]) == said[ANSWERS]
    words = kiku_words(service)
    for one, word in zip(whole["words"], words, strict=True):
        assert one["text"] == word.text
        assert one["start"] == pytest.approx(word.start, abs=0.1)
        assert one["end"] == pytest.approx(word.end, abs=0.1)
        assert 0 < one["probability"] <= 1
    assert whole["duration"] == pytest.approx(7.07, abs=0.1)
    cues = found["srt"].strip().split("\n\n")
    assert [cue.split("\n")[0] for cue in cues] == [str(i + 1) for i in range(len(cues))]
    spoken = " ".join(line for cue in cues for line in cue.split("\n")[2:])
    assert spoken == said[ANSWERS]
    clock = r"\d\d:\d\d:\d\d,\d{3}"
    assert all(re.fullmatch(f"{clock} --> {clock}", cue.split("\n")[1]) for cue in cues)


def kiku_words(service: Running) -> Any:
    return service.service.recognizer.transcribe(ANSWERS).words


@needs_chromium
def test_words_lead_to_their_place_by_keyboard(tab: Tab, service: Running, said: dict[Path, str]):
    focused = "document.activeElement.textContent"
    tip = "document.querySelector('#tip:not([hidden])')?.textContent ?? ''"
    with quiet(tab, service):
        tab.open(service.http)
        tab.choose("#file", ANSWERS)
        tab.wait(f"{IDLE} && {WORDS}")
        words = said[ANSWERS].split()
        tab.run("document.querySelector('#wave').focus()")
        tab.key("Tab")
        assert tab.run(focused) == words[0]
        assert re.fullmatch(r"\d+\.\d\d to \d+\.\d\d s · \d+ % sure", tab.run(tip))
        tab.key("ArrowRight")
        assert tab.run(focused) == words[1]
        tab.key("End")
        assert tab.run(focused) == words[-1]
        start = float(tab.run(tip).split()[0])
        tab.key("Enter")
        tab.wait("document.querySelector('#text .word.now')?.textContent === " + focused)
        place = tab.wait("document.querySelector('#wave').getAttribute('aria-valuenow') * 1")
        assert place >= start - 1
        tab.key("Tab")  # the whole text is one stop
        assert tab.run("document.activeElement.id") == "save-txt"
        assert tab.run(tip) == ""


@needs_chromium
def test_a_connection_that_is_cut_goes_on(tab: Tab, demo: kiku.Recognizer, said: dict[Path, str]):
    with running(demo) as service:
        tab.open(service.http)
        # The file comes only in parts, so that there is time to cut.
        tab.run("window.held = []; WebSocket.prototype.rawSend = WebSocket.prototype.send;"
                "WebSocket.prototype.send = function (data) {"
                "  if (typeof data !== 'string' && window.held && ++window.held.length > 8)"
                "    return; this.rawSend(data); }")  # fmt: skip
        tab.choose("#file", ANSWERS)
        tab.wait(WORDS)
        (talk,) = service.app.sockets.talks
        tab.run("delete window.held")

        async def cut() -> None:
            talk.abort()

        service.call(cut)
        tab.wait(IDLE)
        assert tab.run(WORDS) == said[ANSWERS]
        assert tab.run(NOTICE) == ""
