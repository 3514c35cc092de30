import contextlib
import errno
import gc
import io
import signal
import sys
from _thread import interrupt_main
from collections.abc import Iterator
from functools import partial
from operator import call
from pathlib import Path

import av
import pytest

from kiku.audio import read_chunks, read_file
from kiku.audio.demuxer_file import DemuxerFile
from kiku.audio.source import HEAD_SIZE, Reader, open_source
from kiku.errors import AudioError, TruncatedAudio


def refusal(source) -> str:
    with pytest.raises(AudioError) as caught:
        next(read_chunks(source, 24_000))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert f"looked in {tmp_path}" in refusal(tmp_path / "absent.wav")
    assert "no such file" in refusal(str(tmp_path / "no" / "folder.wav"))
    for address in ("https://example.org/talk.mp3", "s3://bucket/talk.mp3"):
        for given in (address, Path(address)):
            told = refusal(given)
            assert told.startswith(f"{address} is an address")
            assert "download it first" in told


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder: name the recordings in it" in refusal(tmp_path)
    assert "is a folder" in refusal(Path())
    assert refusal("") == "'' is not a file name: give the path of a recording"


def test_names_that_the_system_refuses() -> None:
    assert "cannot be opened" in refusal("a\0b.wav")
    assert "cannot be opened" in refusal("x" * 5_000)


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), ": check its perm"),
        (OSError(errno.EIO, "Input/output error"), "cannot be opened (.*Input/output error)"),
    ],
)
def test_a_file_that_may_not_or_cannot_be_opened(tmp_path, error, match, monkeypatch) -> None:
    path = tmp_path / "locked.wav"
    path.write_bytes(b"RIFF")

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioError, match=match):
        next(read_chunks(path, 24_000))


def test_odd_names_are_only_names(tmp_path: Path, record, tone) -> None:
    """Colons, percent signs and protocols mean something to FFmpeg, but not to us."""
    data = record("wav", "pcm_s16le", tone(24_000, 0.5), 24_000)
    for name in ("concat:a.wav", "%03d.wav", "-", "tcp:x.wav", "café \udcff.wav", "noext"):
        path = tmp_path / name
        path.write_bytes(data)
        assert sum(len(chunk) for chunk in read_chunks(path, 24_000)) == 12_000


def test_standard_input_that_is_closed(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in refusal("-")


def test_a_file_that_is_closed(tmp_path: Path) -> None:
    with (tmp_path / "x.wav").open("wb+") as file:
        pass
    assert "open it again" in refusal(file)


def test_a_device_that_only_claims_to_seek_is_read_as_a_pipe(record, tone, pipe) -> None:
    class Device(pipe):
        def seekable(self) -> bool:
            return True

        def tell(self) -> int:
            return 0

        def seek(self, offset: int, whence: int = 0) -> int:
            raise OSError(errno.ESPIPE, "Illegal seek")

    data = record("wav", "pcm_s16le", tone(24_000, 0.5), 24_000)
    assert sum(len(chunk) for chunk in read_chunks(Device(data), 24_000)) == 12_000


def test_what_cannot_be_read_from() -> None:
    assert "Recognizer.transcribe" in refusal([0.0, 0.1])
    assert "opened with 'rb'" in refusal(None)
    assert "'rb'" in refusal(io.StringIO("text"))


@pytest.mark.parametrize("wrong", [None, b"x" * 10_000_000, bytearray(b"RIFF")])
def test_a_file_that_does_not_keep_to_the_rules(wrong) -> None:
    class Odd(io.RawIOBase):
        def read(self, size: int = -1):
            return wrong

    assert "blocking binary mode" in refusal(Odd())


def test_a_disk_that_fails_in_the_middle_gives_what_came_before(record, tone, pipe) -> None:
    data = record("wav", "pcm_s16le", tone(24_000, 4.0), 24_000)

    class Failing(pipe):
        def readinto(self, buffer: memoryview) -> int:
            if self.num_given > 120_000:
                raise OSError(errno.EIO, "Input/output error")
            return super().readinto(buffer)

    chunks = read_chunks(io.BufferedReader(Failing(data)), 24_000)
    # All that came, to the last sample: half of 121,000 bytes behind the header.
    assert [len(next(chunks)) for _ in range(3)] == [24_000, 24_000, (121_000 - 78) // 2 - 48_000]
    with pytest.raises(TruncatedAudio, match=r"beyond 2.52 s .*Input/output error"):
        next(chunks)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [("wav", "pcm_s16le", 24_000), ("ogg", "libopus", 48_000), ("mp3", "libmp3lame", 24_000)],
)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_in_a_read_is_no_end(record, tone, pipe, container, codec, rate, share, error):
    data = record(container, codec, tone(rate, 4.0), rate)

    class Interrupted(pipe):
        def readinto(self, buffer: memoryview) -> int:
            if self.num_given >= share * len(data):
                raise error(3)
            return super().readinto(buffer)

    with pytest.raises(error, match="3"):
        list(read_chunks(io.BufferedReader(Interrupted(data)), 24_000))


@pytest.mark.parametrize("at", range(1, 5))
def test_ctrl_c_while_the_demuxer_moves_is_no_end(record, tone, tmp_path, at) -> None:
    """An mp4 with its index at the end is moved about in."""
    num_seeks = 0

    class Interrupted(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            nonlocal num_seeks
            num_seeks += 1
            if num_seeks == at:
                raise KeyboardInterrupt
            return super().seek(offset, whence)

    data = record("mp4", "aac", tone(24_000, 2.0), 24_000, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        list(read_chunks(Interrupted(data), 24_000))


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """It is heard also where who began the tests has it ignored, as shells do in the background.
    Nor does it come in a callback of the collector, which would swallow it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


def called(*functions) -> list:
    """What functions give, called from C one after the other: what comes in one of them is told to
    Python where a function in Python begins or goes on, and nowhere else."""
    return list(map(call, functions))


def test_ctrl_c_where_a_call_of_the_demuxer_begins_is_kept(ctrl_c) -> None:
    """Before the first line of what it calls, where no `try` in it helps."""
    for asked, answer in (("read", b""), ("tell", 0)):
        reader = Reader(io.BytesIO(bytes(1_000)), "x")
        file = DemuxerFile(reader, None)
        asks = partial(file.read, 100) if asked == "read" else file.tell
        assert called(file.tell, interrupt_main, partial(file.seek, 7, 0), asks) == [
            0, None, None, answer,
        ]  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            reader.raise_interruption()
        assert file.read(100) == b""  # so that the demuxer comes to an end soon


def test_ctrl_c_where_pyav_reads_on_is_kept(ctrl_c, record, tone, capfd) -> None:
    """PyAV would print it, and go on or take it for the end."""
    reader = Reader(io.BytesIO(record("wav", "pcm_s16le", tone(24_000, 4.0), 24_000)), "x")
    with av.open(DemuxerFile(reader, None)) as container:
        called(interrupt_main, partial(list, container.demux()))
    assert isinstance(reader.interruption, KeyboardInterrupt)
    assert capfd.readouterr() == ("", "")


def test_of_two_signals_at_once_one_is_kept_and_the_demuxer_comes_to_an_end(ctrl_c) -> None:
    reader = Reader(io.BytesIO(bytes(1_000)), "x")
    file = DemuxerFile(reader, None)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    try:
        both = partial(interrupt_main, signal.SIGTERM), partial(interrupt_main, signal.SIGINT)
        assert called(*both, partial(file.read, 100), partial(file.read, 100))[2:] == [b"", b""]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert isinstance(reader.interruption, KeyboardInterrupt | SystemExit)


def test_a_demuxer_moves_where_it_says() -> None:
    data = bytes(range(200))
    file = DemuxerFile(Reader(io.BytesIO(data), "x"), None)
    assert file.read(3) == data[:3]
    file.seek(50, 0)
    assert file.read(3) == data[50:53]
    file.seek(-1, 2)
    assert file.tell() == 199
    file.seek(-1, 2)
    file.seek(7, 0)
    assert (file.tell(), file.read(3), file.tell()) == (7, data[7:10], 10)


def test_a_read_that_fails_in_the_middle_is_told_whatever_it_raises(record, tone, pipe) -> None:
    """A file may be one of another package, whose errors are not a disk's."""
    data = record("wav", "pcm_s16le", tone(24_000, 4.0), 24_000)

    class Failing(pipe):
        def readinto(self, buffer: memoryview) -> int:
            if self.num_given > 120_000:
                raise RuntimeError("the bucket is gone")
            return super().readinto(buffer)

    with pytest.raises(TruncatedAudio, match=r"beyond 2.52 s \(the bucket is gone\)"):
        list(read_chunks(io.BufferedReader(Failing(data)), 24_000))


def test_a_disk_that_fails_at_once(pipe) -> None:
    class Failing(pipe):
        def readinto(self, buffer: memoryview) -> int:
            raise OSError(errno.EIO, "Input/output error")

    assert "could not be read ([Errno 5] Input/output error)" in refusal(Failing(b""))


def test_a_reader_remembers_its_head_and_how_far_it_came(pipe) -> None:
    data = bytes(range(256)) * 600
    reader = Reader(io.BytesIO(b"skip" + data), "x")
    assert reader.num_bytes == len(data) + 4
    file = io.BytesIO(b"skip" + data)
    file.seek(4)
    reader = Reader(file, "x")
    assert reader.num_bytes == len(data)
    assert reader.read(1_000) == data[:1_000]
    assert reader.seek(-6, 2) == len(data) - 6
    assert reader.read(100) == data[-6:]
    assert reader.seek(10) == reader.tell() == 10
    assert reader.seek(5, 1) == 15
    reader.seek(1_000)
    while reader.read(5_000):
        pass
    assert reader.head == data[:HEAD_SIZE]
    reader.rewind()
    assert file.tell() == 4
    # Damaged recordings ask for places where no file system lets a file be.
    assert reader.seek(2**62) == reader.tell() == len(data)
    assert reader.read(10) == b""
    stream = Reader(pipe(data), "x")
    assert stream.num_bytes == 0
    assert not stream.seekable()
    # What has come is handed on at once: nobody waits for a full buffer.
    assert len(Reader(io.BufferedReader(pipe(data)), "x").read(32_768)) < 32_768


def test_a_path_is_closed_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(b"RIFF")
    with open_source(path) as reader:
        file = reader._file
    assert file.closed
    with path.open("rb") as mine:
        with open_source(mine):
            pass
        assert not mine.closed


def test_a_demuxer_that_goes_far_beyond_the_end_finds_the_end(tmp_path, record, tone) -> None:
    """As that of a cut nut does, which takes samples for the size of an index. A file on a disk
    refuses such places."""
    data = record("nut", "pcm_u8", tone(8_000, 10.0), 8_000)
    path = tmp_path / "cut.nut"
    path.write_bytes(data[: len(data) * 6 // 10])
    with contextlib.suppress(TruncatedAudio):
        for chunk in read_file(path):
            assert chunk.num_samples
