"""Finding and cutting words."""

from pathlib import Path

import numpy as np
import pytest

from recipes.demo.bank import (
    WORD_INDEX,
    Bank,
    BankWriter,
    Snippet,
    WordSpan,
    cut,
    find_word,
    joined,
    single_words,
    whole_words,
)
from recipes.demo.corpus import Recording

RATE = 24_000


def recording(
    start_s: float, end_s: float, length_s: float = 1.0, hiss: float = 1e-3
) -> np.ndarray:
    rng = np.random.default_rng(1)
    sound = hiss * rng.standard_normal(int(length_s * RATE))
    first, last = int(start_s * RATE), int(end_s * RATE)
    sound[first:last] += 0.2 * rng.standard_normal(last - first)
    return sound.astype(np.float32)


def test_a_word_is_found_by_its_energy() -> None:
    found = find_word(recording(0.30, 0.72))
    assert found is not None
    assert found == pytest.approx((0.30, 0.72), abs=0.03)


def test_the_closure_of_a_stop_does_not_end_a_word() -> None:
    sound = recording(0.30, 0.50) + recording(0.60, 0.70)
    assert find_word(sound) == pytest.approx((0.30, 0.70), abs=0.03)


def test_of_two_sounds_the_stronger_is_the_word() -> None:
    sound = recording(0.05, 0.12) + 3 * recording(0.45, 0.80)
    assert find_word(sound) == pytest.approx((0.45, 0.80), abs=0.03)


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(RATE, np.float32),
        recording(0.5, 0.5),
        recording(0.4, 0.45),
        recording(0.0, 0.4),
        np.zeros(100, np.float32),
    ],
    ids=["silence", "hiss", "a click", "cut at its beginning", "nothing"],
)
def test_what_holds_no_whole_word_is_refused(sound: np.ndarray) -> None:
    assert find_word(sound) is None


def test_cutting_keeps_the_margin_and_moves_the_place() -> None:
    sound = np.arange(RATE, dtype=np.float32)
    piece, spans = cut(sound, [WordSpan(3, 0.4, 0.6)], before_s=0.1, after_s=0.05)
    assert piece[0] == int(0.3 * RATE)
    assert len(piece) == pytest.approx(0.35 * RATE, abs=2)
    assert spans[0].word == 3
    assert spans[0].start_s == pytest.approx(0.1, abs=1e-4)
    assert spans[0].end_s == pytest.approx(0.3, abs=1e-4)


def test_cutting_stops_at_the_edges_of_the_recording() -> None:
    sound = np.ones(RATE // 2, np.float32)
    piece, spans = cut(sound, [WordSpan(0, 0.05, 0.45)])
    assert len(piece) == len(sound)
    assert spans[0].start_s == pytest.approx(0.05)


def test_a_bank_comes_back_from_disk_as_it_was(tmp_path) -> None:
    writer = BankWriter()
    writer.add("real", "ann", recording(0.2, 0.5), [WordSpan(1, 0.2, 0.5)])
    writer.add("other", "bob", recording(0.1, 0.9), [])
    writer.add("other", "nobody", np.zeros(100, np.float32), [])
    bank = writer.finish()
    assert [s.speaker for s in bank.snippets] == ["ann", "bob"]  # silence is not kept
    bank.save(tmp_path)
    again = Bank.load(tmp_path)
    assert again.snippets == bank.snippets
    first, _ = (tmp_path / "snippets.jsonl").read_text().splitlines()
    assert first.endswith('"places": [{"word": 1, "start_s": 0.2, "end_s": 0.5}]}')
    assert np.array_equal(again.audio(again.snippets[1]), bank.audio(bank.snippets[1]))
    both = joined([bank, again])
    assert np.array_equal(both.audio(both.snippets[3]), bank.audio(bank.snippets[1]))


def test_playing_faster_moves_spans() -> None:
    span = WordSpan(0, 1.0, 2.0).moved(0.5, speed=2.0)
    assert (span.start_s, span.end_s) == (1.0, 1.5)


class FakeCorpus:
    """Four recordings: a good one, a sentence, another word, and silence."""

    def __init__(self) -> None:
        self.sounds = [recording(0.3, 0.7)] * 3 + [np.zeros(RATE, np.float32)]
        texts = (("go",), ("go", "on"), ("house",), ("stop",))
        self.recordings = [
            Recording(str(i), words, "ann", "en-words", "en", "train", i * RATE, (i + 1) * RATE)
            for i, words in enumerate(texts)
        ]

    def audio(self, which: Recording) -> np.ndarray:
        return self.sounds[which.begin // RATE]


@pytest.mark.parametrize(("make", "seconds"), [(single_words, 0.66), (whole_words, 1.0)])
def test_single_words_trimmed_or_whole(make, seconds: float) -> None:
    corpus = FakeCorpus()
    bank = make(corpus, corpus.recordings)
    (snippet,) = bank.snippets
    assert snippet.seconds == pytest.approx(seconds, abs=0.06)
    (span,) = snippet.spans
    assert span.word == WORD_INDEX["go"]
    loud = np.flatnonzero(np.abs(bank.audio(snippet)) > 0.1) / RATE
    assert span.start_s == pytest.approx(loud[0], abs=0.03)
    assert span.end_s == pytest.approx(loud[-1], abs=0.03)


def test_a_bank_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    snippet = Snippet("other", "ann", 0, 4, ())
    Bank([snippet], np.arange(4, dtype=np.int16)).save(tmp_path)

    class Interrupted(np.ndarray):
        def tofile(self, fid: Path, sep: str = "", format: str = "") -> None:
            Path(fid).write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Bank([snippet], np.zeros(8, np.int16).view(Interrupted)).save(tmp_path)
    assert not (tmp_path / "snippets.jsonl").exists()  # which says that a bank is whole
    assert np.array_equal(np.fromfile(tmp_path / "snippets.i16", np.int16), np.arange(4))
    again = Bank([snippet], np.memmap(tmp_path / "snippets.i16", np.int16, "r"))
    again.save(tmp_path)  # over the file that it reads
    assert np.array_equal(Bank.load(tmp_path).samples, np.arange(4))
