"""A microphone: found, opened, lost and found again; without one in this machine."""

import importlib
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from kiku.audio.microphone import Gap, Microphone, Piece, list_devices
from kiku.errors import AudioError, MissingExtra
from tests.audio.fake_sounddevice import FakeSounddevice, device

USB, INNER = device("USB Mic"), device("Inner Mic", channels=2, rate=44_100.0)


@pytest.fixture
def sd(monkeypatch: pytest.MonkeyPatch) -> FakeSounddevice:
    sd = FakeSounddevice(USB, INNER, device("Speaker", channels=0))
    monkeypatch.setitem(sys.modules, "sounddevice", sd)
    return sd


def microphone(
    sd: FakeSounddevice, wanted: str | int | None = None
) -> tuple[Microphone, list[str]]:
    told: list[str] = []
    return Microphone(wanted, tell=told.append, clock=sd.clock, wait=sd.wait), told


def listen(
    sd: FakeSounddevice, mic: Microphone, seconds: float, unplug_at: float | None = None
) -> list[Piece | Gap]:
    sd.at(seconds, mic.stop)
    if unplug_at is not None:
        sd.at(unplug_at, lambda: sd.plugged.remove(USB))
    return list(mic.pieces())


def length_s(pieces: list[Piece | Gap]) -> float:
    return sum(p.seconds if isinstance(p, Gap) else len(p.samples) / p.rate for p in pieces)


def gaps_s(pieces: list[Piece | Gap]) -> float:
    return sum(piece.seconds for piece in pieces if isinstance(piece, Gap))


def test_sound_comes_in_pieces_at_the_rate_of_the_device(sd: FakeSounddevice) -> None:
    mic, told = microphone(sd)
    pieces = listen(sd, mic, 4.0)
    assert mic.name == "USB Mic"
    assert all(isinstance(p, Piece) and p.rate == 48_000 for p in pieces)
    assert length_s(pieces) == pytest.approx(4.0, abs=0.17)
    for piece in pieces:
        assert isinstance(piece, Piece)
        np.testing.assert_array_equal(piece.samples, np.full((3840, 1), 0.25, np.float32))
    assert told == []
    assert all(stream.closed for stream in sd.streams)


def test_the_devices_are_listed(sd: FakeSounddevice) -> None:
    first, second = list_devices()
    assert (first.index, first.name, first.host, first.rate) == (0, "USB Mic", "ALSA", 48_000)
    assert (first.is_default, second.is_default, second.num_channels) == (True, False, 2)
    sd.default = -1
    assert not any(entry.is_default for entry in list_devices())


def test_there_is_none(sd: FakeSounddevice) -> None:
    sd.known = []
    for ask in (list_devices, Microphone):
        with pytest.raises(AudioError, match="the sound system knows no microphone"):
            ask()


def test_the_sound_system_does_not_answer(
    sd: FakeSounddevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise sd.PortAudioError("PortAudio not initialized", -10000)

    monkeypatch.setattr(sd, "query_hostapis", fail)
    with pytest.raises(AudioError, match=r"does not answer \(portaudio not initialized\)"):
        list_devices()


def test_the_extra_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtra, match=r"'\.\[mic\]"):
        Microphone()


def test_the_library_of_the_system_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MissingExtra, match="needs PortAudio, a library of the system") as raised:
        list_devices()
    assert str(raised.value).count("\n") == 0
    assert raised.value.extra == "mic"


@pytest.mark.parametrize(
    ("wanted", "name"),
    [(None, "USB Mic"), (1, "Inner Mic"), ("inner", "Inner Mic"), ("usb mic", "USB Mic")],
)
def test_a_device_is_found_by_number_and_name(
    sd: FakeSounddevice, wanted: str | int | None, name: str
) -> None:
    assert microphone(sd, wanted)[0].name == name


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "mic",
            "'mic' matches several microphones: give the number of one: 0 USB Mic, 1 Inner Mic",
        ),
        ("headset", "there is no microphone 'headset': choose one of: 0 USB Mic, 1 Inner Mic"),
        (2, "there is no microphone 2: choose one of"),
    ],
)
def test_what_names_no_one_device_is_refused(
    sd: FakeSounddevice, wanted: str | int, message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        microphone(sd, wanted)


def test_one_device_by_two_sound_systems_is_one(sd: FakeSounddevice) -> None:
    sd.known = [USB, device("USB Mic", host=1)]
    assert microphone(sd, "USB Mic")[0].name == "USB Mic"
    assert microphone(sd, "usb")[0].name == "USB Mic"


@pytest.mark.parametrize("how", ["inactive", "silent", "raises"])
def test_a_device_disappears_and_comes_back(sd: FakeSounddevice, how: str) -> None:
    sd.seems_active, sd.raises_when_gone = how == "silent", how == "raises"
    mic, told = microphone(sd, "USB")
    sd.at(12.0, lambda: sd.plugged.insert(0, USB))
    pieces = listen(sd, mic, 20.0, unplug_at=3.0)
    assert told == [
        "USB Mic was disconnected; kiku continues when it is back",
        "USB Mic is recorded again",
    ]
    # Times stay true: sound and gaps together are as long as the time that went by.
    assert length_s(pieces) == pytest.approx(20.0, abs=0.3)
    assert 9.0 <= gaps_s(pieces) <= 9.0 + 4.5
    # While it was away the gaps came as time went by, not all in the end.
    assert max(p.seconds for p in pieces if isinstance(p, Gap)) <= 2.8
    assert sd.num_looks >= 3


def test_tries_become_rarer(sd: FakeSounddevice) -> None:
    mic, told = microphone(sd, "USB")
    pieces = listen(sd, mic, 62.0, unplug_at=1.0)
    assert sd.num_looks == pytest.approx(3 + 54 / 4, abs=2)
    assert length_s(pieces) == pytest.approx(62.0, abs=0.6)
    assert len(told) == 1


def test_a_device_that_opens_and_says_nothing_is_not_back(sd: FakeSounddevice) -> None:
    mic, told = microphone(sd)
    sd.seems_active = True
    sd.at(2.0, lambda: setattr(sd, "mute", True))
    sd.at(30.0, lambda: setattr(sd, "mute", False))
    pieces = listen(sd, mic, 40.0)
    assert len(told) == 2
    assert length_s(pieces) == pytest.approx(40.0, abs=0.3)
    assert gaps_s(pieces) >= 27.9


def test_a_numbered_device_is_found_again_under_another_number(sd: FakeSounddevice) -> None:
    mic, told = microphone(sd, 0)
    sd.at(4.0, lambda: sd.plugged.append(USB))
    pieces = listen(sd, mic, 10.0, unplug_at=1.0)
    assert told[-1] == "USB Mic is recorded again"
    last = pieces[-1]
    assert isinstance(last, Piece)
    assert last.rate == 48_000


def test_the_system_may_take_another_one_instead(sd: FakeSounddevice) -> None:
    mic, told = microphone(sd)
    pieces = listen(sd, mic, 10.0, unplug_at=1.0)
    assert told[-1] == "Inner Mic is recorded instead"
    assert {p.rate for p in pieces if isinstance(p, Piece)} == {48_000, 44_100}
    assert length_s(pieces) == pytest.approx(10.0, abs=0.3)


def test_stopping_while_it_is_away(sd: FakeSounddevice) -> None:
    mic, _ = microphone(sd, "USB")
    pieces = listen(sd, mic, 5.0, unplug_at=1.0)
    assert length_s(pieces) == pytest.approx(5.0, abs=0.6)


def test_a_device_that_gives_no_single_channel_gives_all(sd: FakeSounddevice) -> None:
    sd.refused_channels = {1}
    piece = listen(sd, microphone(sd, "Inner")[0], 1.0)[0]
    assert isinstance(piece, Piece)
    assert piece.samples.shape == (3528, 2)


def test_a_device_that_cannot_be_opened_is_one_sentence(sd: FakeSounddevice) -> None:
    sd.busy = True
    with pytest.raises(AudioError, match=r"USB Mic cannot be opened \(error starting stream"):
        list(microphone(sd)[0].pieces())


@pytest.fixture
def begun(sd: FakeSounddevice) -> tuple[Microphone, list[str], Iterator[Piece | Gap]]:
    mic, told = microphone(sd)
    pieces = mic.pieces()
    next(pieces)
    return mic, told, pieces


def test_what_finds_no_room_becomes_a_gap(
    sd: FakeSounddevice, begun: tuple[Microphone, list[str], Iterator[Piece | Gap]]
) -> None:
    mic, told, pieces = begun
    for _ in range(250):  # 20 s, and nobody takes any
        sd.streams[0].move()
    assert mic.waiting_s == pytest.approx(10.0)
    taken = [next(pieces) for _ in range(125)]
    assert gaps_s(taken) == 0
    sd.streams[0].move()
    assert next(pieces) == Gap(pytest.approx(10.0))
    assert told == [
        "sound comes faster than it is processed, and some is left out: "
        "use a smaller model, a smaller dtype or a faster machine"
    ]


def test_what_the_system_lost_is_told_once(
    sd: FakeSounddevice, begun: tuple[Microphone, list[str], Iterator[Piece | Gap]]
) -> None:
    _, told, pieces = begun
    sd.overflows = True
    for _ in range(3):
        sd.streams[0].move()
        next(pieces)
    assert told == [
        "the system lost some sound, because this machine is too busy: close other programs"
    ]
