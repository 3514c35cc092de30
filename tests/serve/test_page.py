"""The page: its files and headers, and what a visitor sees, in a real browser."""

import base64
import http.client
import itertools
import json
import re
import wave
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest

import kiku
from kiku.serve.page import HEADERS, Page
from kiku.serve.protocols.interface import ClientRequest, ModelCard, Refusal
from kiku.serve.protocols.own import OwnProtocol
from tests.serve.browser import CHROMIUM, PATIENCE_S, Tab, chromium
from tests.serve.clients import RATE, kyutai, samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.relay import relay
from tests.serve.running import Running, running
from tests.serve.talks import wait_for

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


@pytest.mark.parametrize(("most", "says"), [(5, "slots"), (4, "connections")])
def test_what_a_socket_would_be_answered_can_be_asked_for(
    demo: kiku.Recognizer, most: int, says: str
):
    """A browser shows its page no answer to a refused socket."""
    key = {"Authorization": "Bearer sesame"}
    with running(demo, api_key=("sesame",), max_connections=most) as service, ExitStack() as others:
        address = f"{service.http}/api/stream"

        def asked(**headers: str) -> httpx.Response:
            return httpx.post(address, headers={**key, **headers})

        assert asked().status_code == 204
        assert service.service.admission.num_taken == 0, "nothing is held for who only asks"
        assert asked(Origin=service.http).status_code == 204
        assert asked(Origin="http://elsewhere.test").status_code == 403
        for _ in range(4):
            others.enter_context(kyutai(service.ws, "?auth_id=sesame")).until("Ready")
        assert asked().status_code == 503
        assert says in asked().text
        assert int(asked().headers["Retry-After"]) > 0
        for wrong in ({}, {"Authorization": "Bearer wrong"}):  # who learn nothing of all this
            told = httpx.post(address, headers={**wrong, "Origin": "http://elsewhere.test"})
            assert told.status_code == 401
            assert told.json() == {"error": "the API key is missing or not known"}
        assert httpx.get(address, headers=key).status_code == (426 if most > 4 else 503)


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
             f"--use-file-for-fake-audio-capture={DIGITS}%noloop",
             "--host-resolver-rules=MAP kiku.test 127.0.0.1"]  # fmt: skip
    with chromium(folder, flags) as tab:
        yield tab, folder


@pytest.fixture
def tab(browser: tuple[Tab, Path]) -> Tab:
    """The browser's page, with nothing said yet."""
    tab, _ = browser
    tab.forget()
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
        tab.run("document.querySelector('#speak').focus()")
        tab.key("Enter")
        tab.wait("!document.querySelector('#finalize').hidden")
        assert "Listening" in tab.run("document.querySelector('#listening').innerText")
        tab.wait("Number(document.querySelector('#meter').getAttribute('aria-valuenow')) > 30")
        tab.wait("/^\\d+\\.\\d s behind$/.test(document.querySelector('#lag').textContent)")
        tab.wait(f"{WORDS}.split(' ').includes({json.dumps(last)})")
        tab.click("#finalize")
        assert tab.run("document.activeElement.id") == "stop"
        tab.key("Enter")
        tab.wait(IDLE)
        assert tab.run("document.activeElement.id") == "speak"
        heard, wanted = tab.run(WORDS).split(), said[DIGITS].split()
        # A browser begins its fake microphone some time before it hands out the first sound.
        assert heard[-3:] == wanted[-3:]
        assert len(heard) >= len(wanted) - 1
        assert not tab.run("document.querySelector('#play').hidden")
        kinds = [json.loads(data)["type"] for way, code, data in tab.frames if code == 1]
        assert "finalized" in kinds[kinds.index("finalize") :]


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
    begun, ended = cues[0].split("\n")[1].split(" --> ")
    first = whole["words"][: len(cues[0].split("\n", 2)[2].split())]
    assert seconds_of(begun) == first[0]["start"]
    assert seconds_of(ended) == first[-1]["end"]


def seconds_of(clock: str) -> float:
    hours, minutes, seconds = clock.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


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
        tab.run("document.querySelector('#play').focus()")
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
def test_words_are_coloured_by_their_probability(tab: Tab, service: Running, said: dict[Path, str]):
    look = "((one) => [getComputedStyle(one).color, getComputedStyle(one).textDecorationLine])"
    tab.open(service.http)
    tab.run("""
        window.given = [0.95, 0.9, 0.7, 0.6, 0.3];
        const { parse } = JSON;
        JSON.parse = (text) => {
          const message = parse(text);
          if (message.type === "word" && given.length) message.probability = given.shift();
          return message;
        };
        null""")
    tab.choose("#file", ANSWERS)
    tab.wait(f"{IDLE} && {WORDS}")
    assert tab.run(WORDS) == said[ANSWERS]
    kinds = tab.run("[...document.querySelectorAll('#text .word')].map((one) => one.className)")
    assert kinds[:5] == ["word sure", "word sure", "word fair", "word fair", "word doubtful"]
    looks = tab.run(f"[...document.querySelectorAll('#text .word')].map({look})")[:5]
    legend = tab.run(f"[...document.querySelectorAll('.legend .word')].map({look})")
    assert looks == [legend[0], legend[0], legend[1], legend[1], legend[2]]
    assert len({colour for colour, _ in legend}) == 3
    assert [line for _, line in legend] == ["none", "none", "underline"]


SLOW = """
    WebSocket.prototype.rawSend = WebSocket.prototype.send;
    window.left = 8;
    WebSocket.prototype.send = function (data) {
      if (window.left === undefined || window.left-- > 0) this.rawSend(data);
    };"""
"""All gets lost on its way after some messages, until `left` is deleted."""


def cut(service: Running) -> None:
    """Cut all connections without a word."""

    async def abort() -> None:
        connections: Any = service.server.server_state.connections
        for one in list(connections):
            one.transport.abort()

    service.call(abort)


def sockets_of(tab: Tab) -> list[str]:
    tab.run("1")
    return [one for one in tab.addresses if one.startswith("ws:")]


@needs_chromium
def test_a_connection_that_is_cut_goes_on(tab: Tab, demo: kiku.Recognizer, said: dict[Path, str]):
    with running(demo) as service:
        tab.open(service.http)
        tab.run(SLOW)
        tab.choose("#file", ANSWERS)
        tab.wait(WORDS)
        tab.run("delete window.left")

        cut(service)
        tab.wait(IDLE)
        assert tab.run(WORDS) == said[ANSWERS]
        assert tab.run(NOTICE) == ""
        first, second = sockets_of(tab)
        assert "after=" not in first
        assert int(parse_qs(urlsplit(second).query)["after"][0]) > 0
        # It is the same session.
        ready = [json.loads(data) for way, code, data in tab.frames
                 if code == 1 and '"ready"' in data]  # fmt: skip
        assert ready[0]["taken_s"] == 0
        assert ready[1]["taken_s"] > 0


FED = """
    AudioNode.prototype.connect = () => undefined;
    window.AudioWorkletNode = class extends AudioWorkletNode {
      constructor(...given) {
        super(...given);
        window.microphone = this.port;
      }
    };
    (() => {
      const later = window.setTimeout;
      window.setTimeout = (f, ms, ...more) => {
        if (ms < 500) return later(f, ms, ...more);
        if (ms < 3000) window.again = f;
        return 1e9;
      };
    })()"""
"""Gives the page a microphone that hears what `feed` gives it, however slow the machine is. After a
cut the page comes back when `again` is called."""


def feed(tab: Tab, start_s: float, end_s: float) -> None:
    """Give the microphone a part of the digits, and silence after their end."""
    sound = np.pad(samples_of(DIGITS), (0, 2 * RATE))[int(start_s * RATE) : int(end_s * RATE)]
    data = base64.b64encode((sound * 32767).astype("<i2").tobytes()).decode()
    tab.wait("window.microphone?.onmessage && true")
    tab.run(f"""(() => {{
      const bytes = Uint8Array.from(atob("{data}"), (one) => one.charCodeAt());
      const floats = Float32Array.from(new Int16Array(bytes.buffer), (one) => one / 32767);
      for (let i = 0; i < floats.length; i += 960) {{
        window.microphone.onmessage({{ data: floats.slice(i, i + 960) }});
      }} }})()""")


def lose(tab: Tab, service: Running) -> None:
    """Cut the page's connection, and wait until it notices."""
    cut(service)
    tab.wait(f"/lost/.test({NOTICE}) && Boolean(window.again)")


@needs_chromium
def test_what_is_said_while_the_connection_is_lost_is_heard(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str]
):
    with running(demo) as service:
        tab.open(service.http)
        tab.run(FED)
        tab.click("#speak")
        feed(tab, 0, 2.3)
        tab.wait(f"{WORDS}.split(' ').length === 2")
        feed(tab, 2.3, 2.6)
        lose(tab, service)
        feed(tab, 2.6, 7)
        tab.run("again()")
        wanted = said[DIGITS].split()
        tab.wait(f"{WORDS}.split(' ').includes({json.dumps(wanted[-1])})")
        tab.click("#stop")
        tab.wait(IDLE)
        assert tab.run(WORDS).split() == wanted
        assert len(sockets_of(tab)) == 2


LATE = """
    Object.defineProperty(WebSocket.prototype, "onmessage", {
      set(heard) {
        this.addEventListener("message", (event) => setTimeout(() => heard(event), 400));
      },
    });
    null"""
"""All that the server says comes late."""


SOON = """
    (() => {
      const later = window.setTimeout;
      window.setTimeout = (f, ms, ...more) => later(f, ms < 500 ? ms : ms / 10, ...more);
    })()"""
"""What the page would wait for ten seconds it waits for one."""


LEAP = """
    (() => {
      const { now } = Date;
      const { setInterval } = window;
      const { timeout } = AbortSignal;
      let aheadS = 0;
      Date.now = () => now() + 1000 * aheadS;
      window.setInterval = (f, ms) => {
        if (ms === 5000) window.watch = f;
        return setInterval(f, ms);
      };
      AbortSignal.timeout = (ms) => timeout.call(AbortSignal, ms / 20);
      window.leap = (seconds) => {
        aheadS += seconds;
        watch();
      };
    })()"""
"""Gives the page a clock that can `leap` some seconds ahead; answers to its questions it awaits for
half a second."""


@needs_chromium
def test_a_network_that_dies_without_a_word_is_noticed(
    tab: Tab, service: Running, said: dict[Path, str]
):
    with relay(service.port) as network:
        tab.open(f"http://127.0.0.1:{network.port}")
        tab.run(LEAP)
        tab.run(SOON)
        tab.run(SLOW)
        tab.choose("#file", ANSWERS)
        tab.wait(WORDS)
        network.swallows = True
        network.kill()
        tab.run("delete window.left")
        tab.run("leap(31)")
        # Nobody answers how the server is, nor opens another socket.
        tab.wait(f"/lost.*reached/.test({NOTICE})")
        wait_for(lambda: b"&after=" in network.swallowed)
        network.swallows = False
        network.kill()
        tab.run("leap(16)")
        tab.wait(IDLE)
        assert tab.run(WORDS) == said[ANSWERS]
        assert tab.run(NOTICE) == ""
        assert len(sockets_of(tab)) >= 3


@needs_chromium
def test_an_end_that_does_not_come_is_asked_for_again(
    tab: Tab, service: Running, said: dict[Path, str]
):
    tab.open(service.http)
    tab.run(LEAP)
    tab.run("""
        const send = WebSocket.prototype.send;
        WebSocket.prototype.send = function (data) {
          if (window.isLost || !String(data).includes("close")) return send.call(this, data);
          window.isLost = true;
        };
        null""")
    tab.choose("#file", DIGITS)
    tab.wait("window.isLost")
    tab.run("leap(31)")
    tab.wait(IDLE)
    assert tab.run(WORDS) == said[DIGITS]
    assert len(sockets_of(tab)) == 2


@needs_chromium
def test_nothing_is_said_twice_while_the_server_is_slow_to_say_what_it_has(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str]
):
    with running(demo) as service:
        tab.open(service.http)
        tab.run(LATE)
        tab.run(FED)
        tab.click("#speak")
        feed(tab, 0, 2.3)
        tab.wait(f"{WORDS}.split(' ').length === 2")
        feed(tab, 2.3, 3.5)  # the page never learns that the server has heard it
        lose(tab, service)
        feed(tab, 3.5, 4.5)
        tab.click("#finalize")
        tab.run("again()")
        feed(tab, 4.5, 7)  # before the server says what it has
        wanted = said[DIGITS].split()
        tab.wait(f"{WORDS}.split(' ').includes({json.dumps(wanted[-1])})")
        tab.click("#stop")
        tab.wait(IDLE)
        assert tab.run(WORDS).split() == wanted
        # What was asked for meanwhile is asked for behind the sound that was missing.
        sent = [(code, data) for way, code, data in tab.frames if way == "sent"]
        tells = [i for i, (code, data) in enumerate(sent) if code == 1 and "finalize" in data]
        assert len(tells) == 1
        assert sent[tells[0] - 1][0] == 2


@needs_chromium
def test_it_goes_on_with_a_server_that_was_started_again(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str]
):
    with running(demo, drain_s=0.0) as service:
        port = service.port
        tab.open(service.http)
        tab.run(SOON)
        tab.run(SLOW)
        tab.choose("#file", ANSWERS)
        tab.wait(WORDS)
    tab.wait(f"/lost.*reached/.test({NOTICE})")
    assert "Trying again" in tab.run(NOTICE)
    tab.run("delete window.left")
    before = tab.run(WORDS)
    assert before != said[ANSWERS]
    with running(demo, port=port):
        tab.wait(IDLE)
        assert tab.run(WORDS) == said[ANSWERS]
        assert tab.run(NOTICE) == ""
        times = tab.run(
            "[...document.querySelectorAll('#text .word')].map((one) => {"
            "one.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));"
            "return parseFloat(document.querySelector('#tip').textContent); })"
        )
        wanted = [word.start for word in demo.transcribe(ANSWERS).words]
        assert times == pytest.approx(wanted, abs=0.25)


@needs_chromium
@pytest.mark.parametrize("ends", ["in order", "dead"])
def test_a_session_that_moves_to_another_process_goes_on(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str], tmp_path: Path, ends: str
):
    given = {"session_store": str(tmp_path), "drain_s": 0.0}
    with running(demo, **given) as a, running(demo, **given) as b, relay(a.port) as balancer:
        tab.open(f"http://127.0.0.1:{balancer.port}")
        tab.run(SLOW.replace("= 8", "= 9"))
        tab.choose("#file", ANSWERS)
        tab.wait(f"{WORDS}.split(' ').length >= 3")
        if ends == "in order":
            balancer.target = b.port
            a.call(lambda: a.app.drain(0))
        else:
            (talk,) = a.app.sockets.talks
            wait_for(lambda: talk.recorder is not None and talk.recorder._num_stored >= 2)
            balancer.target = b.port
            balancer.cut()
        tab.run("delete window.left")
        tab.wait(IDLE)
        assert tab.run(WORDS) == said[ANSWERS]
        assert tab.run(NOTICE) == ""
        ready = [json.loads(data) for way, code, data in tab.frames
                 if code == 1 and '"ready"' in data]  # fmt: skip
        assert ready[0]["taken_s"] == 0
        assert ready[-1]["taken_s"] > 0
        how = "exactly" if ends == "in order" else "sound"
        assert b.service.metrics.sessions_moved.labels(how)._value.get() == 1


@contextmanager
def full(demo: kiku.Recognizer) -> Generator[tuple[Running, ExitStack]]:
    """A service whose four slots are taken, until the stack is closed."""
    with running(demo) as service, ExitStack() as others:
        for _ in range(4):
            others.enter_context(kyutai(service.ws)).until("Ready")
        yield service, others


@needs_chromium
def test_a_server_that_is_full_is_said_and_tried_again(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str]
):
    with full(demo) as (service, others):
        tab.open(service.http)
        tab.run(SOON)
        tab.choose("#file", DIGITS)
        tab.wait(f"/All 4 slots are taken. *Trying again in/.test({NOTICE})")
        others.close()
        tab.wait(IDLE)
        assert tab.run(WORDS) == said[DIGITS]
        assert tab.run(NOTICE) == ""


@needs_chromium
@pytest.mark.parametrize(
    ("settings", "is_draining", "says"),
    [
        ({}, True, "^The server is shutting down: .*Trying again in"),
        ({"max_connections": 1}, False, "^The server accepts no further.*Trying again in"),
        ({"max_requests_per_minute": 2}, False, "^The server got too many.*Trying again in"),
    ],
)  # fmt: skip
def test_why_a_stream_is_refused_is_said_and_it_is_tried_again(
    tab: Tab, demo: kiku.Recognizer, settings: dict[str, int], is_draining: bool, says: str
):
    """The socket itself tells the page nothing but that it is closed."""
    with running(demo, **settings) as service:
        tab.open(service.http)
        tab.wait(f"{IDLE} && ({NOTICE}) === ''")
        with ExitStack() as other:
            if "max_connections" in settings:
                other.enter_context(kyutai(service.ws)).until("Ready")
            service.service.is_draining = is_draining
            tab.choose("#file", DIGITS)
            tab.wait(f"/{says}/.test({NOTICE})")
            assert service.service.admission.num_taken == len(service.app.sockets.talks)
        service.service.is_draining = False
        if "max_requests_per_minute" not in settings:
            tab.wait(f"{IDLE} && {WORDS}")
            assert tab.run(NOTICE) == ""


@needs_chromium
def test_a_page_at_an_address_that_the_server_does_not_take_says_so(
    tab: Tab, demo: kiku.Recognizer
):
    with running(demo) as service:
        tab.open(f"http://kiku.test:{service.port}")
        tab.wait(f"/accepts no sound from a page at kiku.test.*--allowed-origin/.test({NOTICE})")
        tab.choose("#file", DIGITS)
        tab.wait("[...performance.getEntriesByType('resource')].filter("
                 "(one) => one.name.endsWith('/api/stream')).length > 1")  # fmt: skip
        tab.wait(f"{IDLE} && /accepts no sound from a page at kiku.test/.test({NOTICE})")


@needs_chromium
def test_a_server_that_is_started_says_that_it_loads_its_model(
    tab: Tab, demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
):
    with running(demo) as service:
        with monkeypatch.context() as patch:
            for name in ("_recognizer", "_admission"):
                patch.setattr(service.service, name, None)
            tab.open(service.http, before=SOON)
            tab.wait(f"/^The server is still loading its model. *Trying again in/.test({NOTICE})")
        tab.wait(f"({NOTICE}) === ''")


@needs_chromium
def test_turns_are_not_left_out_where_a_slot_has_just_come_free(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str]
):
    with full(demo) as (service, others):
        tab.open(service.http)
        tab.run("""
            window.rawFetch = fetch;
            const looks = new Promise((done) => (window.look = done));
            window.fetch = async (...given) => {
              window.asked = true;
              await looks;
              return rawFetch(...given);
            };
            null""")
        tab.choose("#file", DIGITS)
        tab.wait("window.asked")
        others.close()
        wait_for(lambda: service.service.admission.num_taken == 0)
        tab.run("look()")
        tab.wait(f"{IDLE} && {WORDS}")
        assert tab.run(WORDS) == said[DIGITS]
        assert tab.run(NOTICE) == ""
        assert all("turns=" in one for one in sockets_of(tab))


@needs_chromium
def test_a_key_is_asked_for_and_is_in_no_address(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str]
):
    with running(demo, api_key=("sesame",)) as service:
        tab.open(service.http)
        tab.wait("!document.querySelector('#key-form').hidden")
        for key in ("wrong", "sesame"):
            tab.run(f"document.querySelector('#key').value = '{key}'")
            tab.click("#key-form button")
            if key == "wrong":
                tab.wait("/does not accept/.test(document.querySelector('#key-said').textContent)")
        tab.wait("document.querySelector('#key-form').hidden")
        tab.choose("#file", DIGITS)
        tab.wait(f"{IDLE} && {WORDS}")
        assert tab.run(WORDS) == said[DIGITS]
        assert sockets_of(tab)
        assert not [one for one in tab.addresses if "sesame" in one]
        tab.run("sessionStorage.clear()")


@needs_chromium
def test_a_key_may_be_any_text_and_a_file_waits_for_it(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str]
):
    form = "!document.querySelector('#key-form').hidden"
    told = "document.querySelector('#key-said').textContent"

    def give(key: str) -> None:
        tab.wait(form)
        tab.run(f"document.querySelector('#key').value = {json.dumps(key)}")
        tab.click("#key-form button")

    with running(demo, api_key=("sesame", "ключ")) as service:
        tab.open(service.http)
        tab.wait(form)
        tab.drop(DIGITS)
        tab.wait(f"/^digits.wav will be transcribed/.test({told})")
        tab.run("window.rawFetch = fetch; window.fetch = () => Promise.reject(TypeError()); null")
        give("sesame")
        tab.wait(f"/cannot be reached/.test({NOTICE})")
        assert tab.run(form)
        tab.run("window.fetch = rawFetch; null")
        give("нет")  # no header can spell it
        tab.wait(f"/does not accept.*digits.wav will be transcribed/.test({told})")
        give(" ses\u200bame\ufeff")  # as it is pasted from a page
        tab.wait(f"{IDLE} && {WORDS}")
        assert tab.run(WORDS) == said[DIGITS]
        tab.run("sessionStorage.clear()")
        tab.open(service.http)
        give("ключ")
        tab.wait(f"!({form})")
        tab.choose("#file", DIGITS)
        tab.wait(f"{IDLE} && {WORDS}")
        assert tab.run(WORDS) == said[DIGITS]
        tab.run("sessionStorage.clear()")


@needs_chromium
@pytest.mark.parametrize(
    ("name", "says"),
    [("NotAllowedError", "does not let this page use the microphone"),
     ("NotFoundError", "No microphone was found"), ("NotReadableError", "another program")],
)  # fmt: skip
def test_a_microphone_that_cannot_be_had_is_said(tab: Tab, service: Running, name: str, says: str):
    with quiet(tab, service):
        tab.open(service.http)
        tab.run("navigator.mediaDevices.getUserMedia = async () => {"
                f"throw new DOMException('no', '{name}'); }}")  # fmt: skip
        tab.click("#speak")
        tab.wait(f"{NOTICE}.includes({json.dumps(says)})")
        tab.wait(IDLE)
        assert not tab.run("document.querySelector('#speak').hidden")


MUTE = """
    const connect = AudioNode.prototype.connect;
    AudioNode.prototype.connect = function (to) {
      window.connectNow = () => connect.call(this, to);
      window.context = this.context;
    };"""
"""Gives the page a microphone from which no sound comes."""

STALLED = f"/The microphone gives no sound/.test({NOTICE})"


@needs_chromium
def test_a_microphone_from_which_no_sound_comes_is_said_and_forgotten_when_it_comes(
    tab: Tab, demo: kiku.Recognizer
):
    with running(demo) as service:
        tab.open(service.http)
        tab.run(MUTE)
        tab.run(SOON)
        tab.click("#speak")
        tab.wait("!document.querySelector('#finalize').hidden")
        tab.wait(STALLED)
        # Another notice in between does not hide it for ever.
        count = len(sockets_of(tab))
        cut(service)
        wait_for(lambda: len(sockets_of(tab)) > count)
        tab.wait(STALLED)
        tab.run("window.connectNow()")
        tab.wait(f"({NOTICE}) === ''")
        tab.wait("document.querySelector('#place').textContent !== '0:00'")
        # As one speaks, too.
        tab.run("window.context.suspend()")
        tab.wait(STALLED)
        tab.run("window.context.resume()")
        tab.wait(f"({NOTICE}) === ''")
        tab.click("#stop")
        tab.wait(IDLE)


@needs_chromium
def test_a_microphone_that_was_stopped_is_not_waited_for(tab: Tab, service: Running):
    with quiet(tab, service):
        tab.open(service.http)
        tab.run(MUTE)
        tab.run("""(() => {
          const later = window.setTimeout;
          window.timers = [];
          window.setTimeout = (f, ms, ...more) => {
            if (ms === 3000) window.timers.push(f);
            return later(f, ms === 3000 ? 1e9 : ms, ...more);
          }; })()""")
        tab.click("#speak")
        tab.wait("!document.querySelector('#finalize').hidden && window.timers.length === 1")
        tab.run("window.connectNow()")
        tab.wait("window.timers.length > 2")  # each piece of sound begins it again
        tab.click("#stop")
        tab.run("window.timers.at(-1)()")
        tab.wait(IDLE)
        assert not tab.run(STALLED)


@needs_chromium
def test_a_file_without_sound_is_said(tab: Tab, service: Running, tmp_path: Path):
    path = tmp_path / "letter.txt"
    path.write_text("no sound at all")
    tab.open(service.http)
    tab.choose("#file", path)
    tab.wait(f"{NOTICE}.includes('cannot read sound from letter.txt')")
    tab.wait(IDLE)


@needs_chromium
def test_no_more_is_sent_than_the_server_hears_soon(
    tab: Tab, service: Running, said: dict[Path, str], tmp_path: Path
):
    path = tmp_path / "long.wav"
    save_wav(path, *[ANSWERS] * 8)
    tab.open(service.http)
    tab.choose("#file", path)
    tab.wait(f"{IDLE} && {WORDS}")
    assert len(tab.run(WORDS).split()) >= 8 * len(said[ANSWERS].split()) - 1
    sent_s = heard_s = 0.0
    ahead: list[float] = []
    for way, code, data in tab.frames:
        if way == "sent" and code == 2:
            sent_s += len(base64.b64decode(data)) / 2 / 24_000
            ahead.append(sent_s - heard_s)
        elif code == 1 and (message := json.loads(data))["type"] == "lag":
            heard_s = message["heard_s"]
    assert sent_s > 50
    assert max(ahead) <= 21.0
    assert ahead.index(max(ahead)) < len(ahead) - 1


@needs_chromium
def test_a_file_of_more_than_an_hour_is_kept_whole(tab: Tab, service: Running):
    tab.open(service.http)
    tab.run("document.body.insertAdjacentHTML('beforeend', '<input type=file id=mine>')")
    tab.choose("#mine", DIGITS)
    found = tab.run("""import('/page/sound.js').then(async ({ readFile, Sound }) => {
      const { maxS } = await readFile(document.querySelector('#mine').files[0]);
      const sound = new Sound(100, maxS);
      for (let i = 0; i < 3610; i++) sound.add(new Float32Array(100));
      return [sound.seconds, sound.dropped, sound.wav().size]; })""")
    assert found == [3610, 0, 44 + 2 * 361_000]


FORGETFUL = """
    import('/page/sound.js').then(({ Sound }) => {
      const { add } = Sound.prototype;
      Sound.prototype.add = function (floats) {
        this.maxS = window.maxS;
        window.heardS = (this.length + floats.length) / this.rate;
        return add.call(this, floats);
      };
    })"""
"""Of a microphone `maxS` seconds are kept."""


@needs_chromium
def test_a_microphone_that_outlasts_what_is_kept_goes_on_and_can_be_played(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str]
):
    with running(demo) as service:
        tab.open(service.http)
        tab.run(FORGETFUL)
        tab.run(FED)
        tab.run("window.maxS = 60")
        tab.click("#speak")
        feed(tab, 0, 1.6)
        tab.wait(WORDS)
        tab.run("window.maxS = 0.2")
        lose(tab, service)
        feed(tab, 1.6, 2.6)
        tab.run("again()")
        last = said[DIGITS].split()[-1]
        tab.wait(f"({NOTICE}) === ''")
        tab.run("window.maxS = 2")
        feed(tab, 2.6, 6.5)
        tab.wait(f"{WORDS}.split(' ').at(-1) === {json.dumps(last)}")
        tab.click("#stop")
        tab.wait(f"{IDLE} && !document.querySelector('#play').hidden")
        told = [json.loads(data) for way, code, data in tab.frames if code == 1]
        assert sum(one["seconds"] for one in told if one["type"] == "gap") > 0.1
        # All that was not kept is silence, so times are those of the microphone.
        (end,) = (one for one in told if one["type"] == "end")
        assert end["duration"] == pytest.approx(tab.run("window.heardS"), abs=0.05)
        assert re.search(r"You can play it from 0:0\d on", tab.run(NOTICE))
        tab.run("document.querySelector('#text .word').click()")  # it is no longer kept
        tab.run(FRAMES)
        assert tab.run("document.querySelector('#play').textContent") == "Play"
        tab.run("[...document.querySelectorAll('#text .word')].at(-1).click()")
        tab.wait(f"document.querySelector('#text .word.now')?.textContent === {json.dumps(last)}")


SLOWLY = """
    window.waiting = [];
    for (const kind of ["message", "close"]) {
      Object.defineProperty(WebSocket.prototype, `on${kind}`, {
        set(heard) {
          this.addEventListener(kind, (event) => waiting.push(() => heard(event)));
        },
      });
    }
    setInterval(() => {
      const count = document.querySelectorAll("#text .word").length;
      if (waiting.length && count < window.most) waiting.shift()();
    }, 3)"""
"""What the server says comes bit by bit, up to `most` words."""

FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Until all is drawn."""

SEEN = """(() => {
  const box = (WORD)?.getBoundingClientRect();
  const top = document.querySelector("#top").getBoundingClientRect();
  return box && top.top >= 0 && box.top >= top.bottom && box.bottom <= innerHeight; })()"""
"""Whether a word can be seen, and the buttons above it."""


@needs_chromium
def test_the_newest_word_is_followed_and_the_one_that_is_played(
    tab: Tab, service: Running, tmp_path: Path
):
    path = tmp_path / "long.wav"
    save_wav(path, *[ANSWERS] * 8)
    words = "[...document.querySelectorAll('#text .word')]"
    newest = SEEN.replace("WORD", f"{words}.at(-1)")
    played = SEEN.replace("WORD", "document.querySelector('#text .word.now')")
    tab.open(service.http)
    tab.size(320, 520, prefers_reduced_motion="reduce")
    tab.run("window.most = 45")
    tab.run(SLOWLY)
    tab.choose("#file", path)
    tab.wait(f"{words}.length === 45 && scrollY > 0 && {newest}")
    # A reader who has scrolled up stays there.
    tab.run("scrollTo(0, 40)")
    tab.run(FRAMES)
    tab.run("window.most = Infinity")
    tab.wait(IDLE)
    assert tab.run(f"{words}.length") > 45
    assert tab.run("scrollY") == 40
    # A word that is chosen, and then the first of the next line.
    tab.run(f"{words}.at(-1).click()")
    tab.wait(played)
    assert tab.run("scrollY") > 40
    tab.run(f"""(() => {{
      const all = {words};
      const bottom = (one) => one.getBoundingClientRect().bottom;
      const i = all.findIndex((one, i) => i > 48 && bottom(all[i + 1]) > bottom(one));
      scrollBy(0, bottom(all[i]) + 4 - innerHeight);
      all[i].click();
      window.next = all[i + 1]; }})()""")
    assert not tab.run(SEEN.replace("WORD", "window.next"))
    tab.wait(SEEN.replace("WORD", "window.next"))
    # A place that is chosen in the picture of the sound.
    tab.click("#play")
    tab.run("scrollTo(0, 0)")
    x, y = tab.run(f"""(() => {{
      const word = {words}[60];
      word.dispatchEvent(new PointerEvent('pointerover', {{ bubbles: true }}));
      const [start, end] = document.querySelector('#tip').textContent.split(' to ').map(parseFloat);
      const box = document.querySelector('#wave').getBoundingClientRect();
      const part = (start + end) / 2 / {8 * len(samples_of(ANSWERS)) / RATE};
      return [box.left + part * box.width, box.top + box.height / 2]; }})()""")
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    tab.wait(played)
    tab.size(1280, 800)


@needs_chromium
def test_nothing_is_passed_over_in_silence(tab: Tab, service: Running, said: dict[Path, str]):
    cursor = "getComputedStyle(document.querySelector('#text .word')).cursor"
    helps = "document.querySelector('#text-help').textContent.includes('Enter')"
    tab.open(service.http)
    tab.click("#speak")
    tab.wait(WORDS)
    # What cannot be done yet is not offered.
    assert tab.run(cursor) != "pointer"
    assert not tab.run(helps)
    tab.drop(ANSWERS)
    tab.wait(f"/answers.mp3 was not taken/.test({NOTICE})")
    tab.run("document.querySelector('#stop').click(); document.querySelector('#stop').click()")
    tab.wait(f"{IDLE} && !document.querySelector('#play').hidden")
    assert tab.run(cursor) == "pointer"
    assert tab.run(helps)
    tab.drop(DIGITS, ANSWERS)
    tab.wait(f"{IDLE} && {WORDS}.split(' ').length === {len(said[DIGITS].split())}")
    assert tab.run(WORDS) == said[DIGITS]
    assert "Only digits.wav is transcribed" in tab.run(NOTICE)
    # A file is as wide as the picture of it, however short it is.
    tab.run(FRAMES)
    first, last = tab.run("""(() => {
      const canvas = document.querySelector('#wave');
      const colour = (bar) => [...canvas.getContext('2d').getImageData(
        bar * 3, canvas.height / 2, 1, 1).data];
      return [colour(2), colour(Math.floor(canvas.clientWidth / 3) - 1)]; })()""")
    assert last == pytest.approx(first, abs=20)


PICTURE = """(() => {
  const canvas = document.querySelector("#wave");
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const at = (x, y) => [...data.slice(4 * (y * width + x), 4 * (y * width + x) + 4)];
  const xs = [...Array(width).keys()];
  const heights = xs.map((x) => {
    let count = 0;
    for (let y = 0; y < height; y++) count += at(x, y)[3] > 0;
    return count;
  });
  const pen = document.createElement("canvas").getContext("2d");
  const style = getComputedStyle(canvas);
  const [heard, unheard, ink] = ["--heard", "--unheard", "--ink"].map((name) => {
    pen.fillStyle = style.getPropertyValue(name);
    pen.fillRect(0, 0, 1, 1);
    return String([...pen.getImageData(0, 0, 1, 1).data]);
  });
  const names = { [heard]: "heard", [unheard]: "unheard", [ink]: "ink" };
  const bars = xs.filter((x) => x % 3 === 0 && x + 2 < width);
  return {
    width, height,
    bars: bars.map((x) => heights[x]),
    colours: bars.map((x) => names[String(at(x, height >> 1))]),
    // No bar reaches the upper edge: what does is the player's place.
    place: xs.filter((x) => at(x, 0)[3] > 0 && heights[x] === height),
    placeColours: xs.map((x) => names[String(at(x, 0))]).filter(Boolean),
  }; })()"""
"""What is drawn: how high each bar is and of which colour, and the columns of the player's
place."""


@needs_chromium
def test_the_picture_shows_the_sound_what_is_heard_of_it_and_the_place(tab: Tab, service: Running):
    sound = np.abs(samples_of(ANSWERS))
    tab.open(service.http)
    tab.run("window.most = 0")
    tab.run(SLOWLY)
    tab.choose("#file", ANSWERS)
    tab.wait("!document.querySelector('#play').hidden && waiting.length > 0")
    tab.run(FRAMES)
    before = tab.run(PICTURE)
    tab.run("window.most = Infinity")
    tab.wait(f"{IDLE} && {WORDS}")
    tab.run("document.querySelector('#wave').focus()")
    tab.key("ArrowRight")  # two seconds on
    tab.run(FRAMES)
    after = tab.run(PICTURE)
    for picture, colour, place_s in ((before, "unheard", 0.0), (after, "heard", 2.0)):
        edges = np.linspace(0, len(sound), len(picture["bars"]) + 1).astype(int)
        peaks = [sound[a:b].max() for a, b in itertools.pairwise(edges)]
        assert np.corrcoef(np.sqrt(peaks), picture["bars"])[0, 1] > 0.9
        assert max(picture["bars"][3:60]) > picture["height"] / 3
        place = place_s / (len(sound) / RATE) * picture["width"]
        assert len(picture["place"]) in (2, 3)
        assert np.mean(picture["place"]) == pytest.approx(place + 0.5, abs=1)
        assert picture["placeColours"].count("ink") >= 1
        there = {i // 3 for i in picture["place"]}
        colours = {one for i, one in enumerate(picture["colours"]) if i not in there}
        assert colours == {colour}


WATCH = """
    window.partials = [];
    new MutationObserver(() => {
      const one = document.querySelector('#text .partial');
      if (one) window.partials.push(one.textContent);
    }).observe(document.querySelector('#text'), { childList: true, subtree: true });"""
"""Notes every partial word that is shown."""


@needs_chromium
@pytest.mark.parametrize("wanted", [True, False])
def test_options_are_followed(tab: Tab, service: Running, said: dict[Path, str], wanted: bool):
    with quiet(tab, service):
        tab.open(service.http)
        tab.run(WATCH)
        if not wanted:
            tab.click("#partials")
        tab.run("document.querySelector('#turns').value = 'high'")
        tab.run("document.querySelector('#hotwords').value = ' seven, twenty one,'")
        tab.choose("#file", DIGITS)
        tab.wait(f"{IDLE} && {WORDS}")
        assert tab.run(WORDS) == said[DIGITS]
        assert tab.run("document.querySelector('#text .partial')") is None
        seen = tab.run("window.partials")
        (address,) = sockets_of(tab)
        query = parse_qs(urlsplit(address).query)
        assert query["turns"] == ["high"]
        # Before all sound, and not in the address, which has not room for many.
        data = next(data for way, code, data in tab.frames if way == "sent")
        assert json.loads(data) == {"type": "configure", "hotwords": ["seven", "twenty one"]}
        assert "hotwords" not in query
        assert query.get("partials") == (["true"] if wanted else None)
        assert bool(seen) == wanted
        for part in seen:
            assert any(word.startswith(part) for word in said[DIGITS].split()), part


@needs_chromium
def test_words_to_expect_may_change_as_one_speaks(tab: Tab, service: Running):
    with quiet(tab, service):
        tab.open(service.http)
        tab.click("#speak")
        tab.wait("!document.querySelector('#finalize').hidden")
        tab.wait("document.querySelector('#model').textContent")
        tab.run("document.querySelector('#hotwords').value = 'nine'")
        tab.run("document.querySelector('#hotwords').dispatchEvent(new Event('change'))")
        tab.click("#stop")
        tab.wait(IDLE)
        sent = [json.loads(data) for way, code, data in tab.frames if (way, code) == ("sent", 1)]
        assert {"type": "configure", "hotwords": ["nine"]} in sent
        assert tab.run(NOTICE) == ""


def expect(tab: Tab, words: str) -> None:
    tab.run(f"document.querySelector('#hotwords').value = {json.dumps(words)}")
    tab.run("document.querySelector('#hotwords').dispatchEvent(new Event('change'))")


@needs_chromium
def test_words_to_expect_that_are_refused_keep_nothing_out(
    tab: Tab, service: Running, said: dict[Path, str]
):
    tab.open(service.http)
    expect(tab, "a" * 201)
    tab.choose("#file", DIGITS)
    tab.wait(f"{IDLE} && {WORDS}")
    assert tab.run(WORDS) == said[DIGITS]
    assert re.search(r"words to favour are left out: .* 200 characters", tab.run(NOTICE))
    assert len(sockets_of(tab)) == 1


@needs_chromium
def test_a_cut_is_got_over_whatever_words_are_expected(tab: Tab, demo: kiku.Recognizer):
    refused = "聞く"
    known = ["seven", "three", "zero", "one", "nine", "four"]
    many = ", ".join(" ".join(words) for words in itertools.permutations(known, 5))
    assert len(many) > 16_000
    with running(demo) as service:
        tab.open(service.http)
        tab.click("#speak")
        tab.wait("document.querySelector('#model').textContent")
        for words in (refused, many):
            expect(tab, words)
            if words is refused:
                tab.wait(f"/left out.*cannot spell/.test({NOTICE})")
            count = len(sockets_of(tab))
            cut(service)
            wait_for(lambda count=count: len(sockets_of(tab)) == count + 1)
            tab.wait(f"({NOTICE}) === ''")
        tab.wait(WORDS)
        tab.click("#stop")
        tab.wait(IDLE)
        told = [json.loads(data).get("hotwords") for way, code, data in tab.frames
                if (way, code) == ("sent", 1)]  # fmt: skip
        assert told.count([refused]) == 1
        assert told.count(many.split(", ")) == 2


@needs_chromium
def test_turns_are_paragraphs(
    browser: tuple[Tab, Path], tab: Tab, service: Running, said: dict[Path, str], tmp_path: Path
):
    path = tmp_path / "two.wav"
    save_wav(path, DIGITS, 3.0, ANSWERS, 3.0)
    tab.open(service.http)
    tab.choose("#file", path)
    tab.wait(f"{IDLE} && {WORDS}")
    found = tab.run("[...document.querySelectorAll('#text p')].map((one) => one.textContent)")
    assert len(found) > 1
    assert said[DIGITS] in found
    assert " ".join(found) == f"{said[DIGITS]} {said[ANSWERS]}"
    tab.click("#save-json")
    saved = browser[1] / "two.json"
    wait_for(lambda: saved.exists() and saved.stat().st_size)
    turns = json.loads(saved.read_text())["turns"]
    told = [json.loads(data) for way, code, data in tab.frames if (way, code) == ("received", 1)]
    times = {kind: [one["time"] for one in told if one["type"] == kind]
             for kind in ("turn_start", "turn_end")}  # fmt: skip
    assert [one["text"] for one in turns] == found
    assert [one["start"] for one in turns] == times["turn_start"]
    assert [one["end"] for one in turns] == times["turn_end"]


@needs_chromium
def test_a_restart_looks_for_a_quiet_place(tab: Tab, service: Running):
    tab.open(service.http)
    found = tab.run("""import('/page/sound.js').then(({ Sound, RATE }) => {
      const sound = new Sound();
      sound.add(Float32Array.from({ length: 3 * RATE }, (_, i) =>
        i < 1.3 * RATE || i > 2 * RATE ? (i % 100) / 100 - 0.5 : 0.001));
      return [1.0, 1.5, 2.2].map((time) => sound.quietAfter(time)); })""")
    assert 1.3 <= found[0] <= 1.45  # in the pause
    assert 1.5 <= found[1] <= 1.6
    assert found[2] == 2.2  # where there is none


@needs_chromium
def test_a_model_that_tells_no_turns_is_heard_without(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str], monkeypatch: pytest.MonkeyPatch
):
    begun = OwnProtocol.__init__

    def begin(self: OwnProtocol, request: ClientRequest, model: ModelCard) -> None:
        if request.first("turns") is not None:
            raise Refusal(400, {"error": "this model tells no turns"})
        begun(self, request, model)

    monkeypatch.setattr(OwnProtocol, "__init__", begin)
    with running(demo) as service:
        tab.open(service.http)
        tab.choose("#file", DIGITS)
        tab.wait(f"{IDLE} && {WORDS}")
        assert tab.run(WORDS) == said[DIGITS]
        assert "cannot show turns" in tab.run(NOTICE)
        turns = ["turns=" in one for one in sockets_of(tab)]
        assert turns == [True, True, False]  # it may have been full when it was asked first


@needs_chromium
def test_a_server_that_tells_no_turns_any_more_is_come_back_to(
    tab: Tab, demo: kiku.Recognizer, said: dict[Path, str], monkeypatch: pytest.MonkeyPatch
):
    begun = OwnProtocol.__init__

    def begin(self: OwnProtocol, request: ClientRequest, model: ModelCard) -> None:
        if request.first("turns") is not None and request.first("after") is not None:
            raise Refusal(400, {"error": "this model tells no turns"})
        begun(self, request, model)

    monkeypatch.setattr(OwnProtocol, "__init__", begin)
    with running(demo) as service:
        tab.open(service.http)
        tab.run(SOON)
        tab.run(SLOW)
        tab.choose("#file", ANSWERS)
        tab.wait(WORDS)
        tab.run("delete window.left")
        cut(service)
        tab.wait(f"/lost.*refuses the connection/.test({NOTICE})")
        tab.wait(IDLE)
        assert tab.run(WORDS) == said[ANSWERS]
        assert "cannot show turns" in tab.run(NOTICE)


@needs_chromium
def test_a_recording_that_is_stopped_has_no_more_words(tab: Tab, service: Running):
    words = "document.querySelectorAll('#text .word').length"
    tab.open(service.http)
    tab.run("window.most = 3")
    tab.run(SLOWLY)
    tab.choose("#file", ANSWERS)
    tab.wait(f"{words} === 3 && waiting.length > 5")
    tab.click("#stop")
    tab.run("window.most = Infinity")
    tab.wait("waiting.length === 0")
    assert tab.run(words) == 3
    assert tab.run(IDLE)


@needs_chromium
def test_the_policy_bites_and_the_tests_would_see_it(tab: Tab, service: Running):
    tab.open(service.http)
    tab.run("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">')")
    tab.wait("true")
    assert any("Content Security Policy" in one for one in tab.complaints)


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(tab: Tab, service: Running, tmp_path: Path, scheme: str):
    tab.open(service.http)
    tab.choose("#file", ANSWERS)
    tab.wait(f"{IDLE} && {WORDS}")
    tab.run("document.querySelector('#options').open = true")
    for width, height in ((390, 844), (320, 600), (1280, 800)):
        tab.picture(tmp_path / "page.png", width, height, scheme)
        assert tab.run("document.documentElement.scrollWidth") <= width
        # Where the window is high enough, the buttons stay.
        assert tab.run("getComputedStyle(document.querySelector('#top')).position") == "sticky"
    contrasts = tab.run(CONTRASTS)
    assert len(contrasts) > 10
    assert {name: one for name, one in contrasts.items() if one < 4.5} == {}
    path = tmp_path / f"{'without_a_break_' * 12}.txt"
    path.write_text("no sound at all")
    tab.size(320, 600)
    tab.choose("#file", path)
    tab.wait(f"{NOTICE}.includes('cannot read sound')")
    assert tab.run("document.documentElement.scrollWidth") <= 320


CONTRASTS = """(() => {
  const part = (text) => text.match(/[\\d.]+/g).map(Number);
  const bright = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const c = rgb[i] / 255;
    return sum + weight * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  }, 0);
  const paper = (node) => {
    for (; node; node = node.parentElement) {
      const found = part(getComputedStyle(node).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [part(getComputedStyle(node).color), paper(node)].map(bright);
    found[`${node.tagName} ${node.id || node.className} ${node.textContent.trim().slice(0, 20)}`] =
      (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return found;
})()"""
"""The contrast of each text with what is behind it."""


def save_wav(path: Path, *parts: Path | float) -> None:
    """Recordings, and seconds of silence, one after the other."""
    sound = np.concatenate(
        [samples_of(part) if isinstance(part, Path) else np.zeros(int(part * RATE), np.float32)
         for part in parts]
    )  # fmt: skip
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
