"""Multipart forms: the same fields and file however the body is cut, and bounds for all of it."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku.serve import forms
from kiku.serve.forms import FormError, FormReader

TYPE = 'multipart/form-data; boundary="a b"'


def part(name: str | None, value: bytes, file: str | None = None) -> bytes:
    head = b"--a b\r\nContent-Disposition: form-data"
    head += b"" if name is None else f'; name="{name}"'.encode()
    head += b"" if file is None else f'; filename="{file}"\r\nContent-Type: x/y'.encode()
    return head + b"\r\n\r\n" + value + b"\r\n"


LAST = b"--a b--\r\n"
SOUND = b"RIFF\r\n--a \r\n--a bc\x00\xff\r\n"
FORM = part("model", b"demo") + part("keywords[]", "né".encode()) + part("file", SOUND, "x.wav")


def read(*pieces: bytes) -> tuple[FormReader, bytes]:
    reader = FormReader(TYPE)
    found = b"".join([reader.feed(piece) for piece in pieces])
    reader.end()
    return reader, found


@given(st.sets(st.integers(1, len(FORM))))
def test_however_it_is_cut(cuts: set[int]) -> None:
    body = FORM + LAST
    at = [0, *sorted(cuts), len(body)]
    reader, found = read(*(body[a:b] for a, b in itertools.pairwise(at)))
    assert found == SOUND
    assert reader.fields == [("model", "demo"), ("keywords[]", "né")]
    assert reader.num_files == 1


PADDINGS = [b" ", b"\t ", b"   \t", b" " * forms.MAX_PADDING_BYTES]


@pytest.mark.parametrize("padding", PADDINGS)
@given(data=st.data())
def test_space_behind_a_boundary_is_passed_over(padding: bytes, data: st.DataObject) -> None:
    line = b"--a b" + padding + b"\r\n"
    parts = [part("model", b"demo"), part("file", SOUND, "x.wav"), part("k", b" \t")]
    body = b"".join(one.replace(b"--a b\r\n", line, 1) for one in parts) + b"--a b--" + padding
    places = st.sets(st.integers(1, len(body)), max_size=20) | st.just(set(range(1, len(body))))
    at = [0, *sorted(data.draw(places)), len(body)]
    reader, found = read(*(body[a:b] for a, b in itertools.pairwise(at)))
    assert found == SOUND
    assert reader.fields == [("model", "demo"), ("k", " \t")]


@given(
    paddings=st.lists(
        st.sampled_from([0, 1, 3, *(forms.MAX_PADDING_BYTES + i for i in (-1, 0, 1, 2)), 5_000]),
        min_size=3, max_size=3,
    ),
    size=st.integers(1, 7_000) | st.just(2**20),
    first=st.integers(1, 3_000),
    epilogue=st.sampled_from([b"", b"\r\n", b" " * 5_000, b"\r\n--a b" + b"\t" * 5_000]),
)  # fmt: skip
def test_so_much_space_is_refused_however_the_body_is_cut(
    paddings: list[int], size: int, first: int, epilogue: bytes
) -> None:
    parts = [part("model", b"demo"), part("file", SOUND, "x.wav"), part("k", b"")]
    lines = [b"--a b" + b" " * count + b"\r\n" for count in paddings]
    body = b"".join(
        one.replace(b"--a b\r\n", line, 1) for one, line in zip(parts, lines, strict=True)
    ) + b"--a b--" + epilogue  # fmt: skip
    pieces = [body[:first], *(body[at : at + size] for at in range(first, len(body), size))]
    if max(paddings) > forms.MAX_PADDING_BYTES:
        with pytest.raises(FormError, match="spaces and tabs"):
            read(*pieces)
    else:
        reader, found = read(*pieces)
        assert (found, reader.fields) == (SOUND, [("model", "demo"), ("k", "")])


@pytest.mark.parametrize("before", [b"", part("model", b"demo")])
@pytest.mark.parametrize("size", [1, 100])
def test_space_without_end_behind_a_boundary_is_refused_before_the_body_ends(
    before: bytes, size: int
) -> None:
    reader = FormReader(TYPE)
    reader.feed(before + b"--a b")
    pieces = [b" " * size] * (forms.MAX_PADDING_BYTES // size + 1)
    with pytest.raises(FormError, match="spaces and tabs"):
        any(reader.feed(piece) for piece in pieces)


@pytest.mark.parametrize("before", [b"", part("model", b"demo")])
@pytest.mark.parametrize("after", [b"x\r\n", b"\n", b"--\r\n", b"\rx"])
def test_what_is_no_end_of_a_line_behind_such_space_is_refused(before: bytes, after: bytes) -> None:
    with pytest.raises(FormError, match="damaged"):
        read(before + b"--a b \t" + after)


PREAMBLES = [
    b"This is a multi-part message in MIME format.\r\n", b"\r\n", b"\n", b"--a\r\n", b"--a \r\n",
    b"-- a b\r\n and --a b in a line\r\n", b"x" * (forms.MAX_PREAMBLE_BYTES - 2) + b"\r\n",
]  # fmt: skip


@pytest.mark.parametrize("preamble", PREAMBLES)
@given(data=st.data())
def test_what_stands_before_the_first_boundary_is_passed_over(
    preamble: bytes, data: st.DataObject
) -> None:
    body = preamble + FORM + LAST
    near = len(preamble) + 20
    cuts = st.sets(st.integers(1, near) | st.integers(max(1, near - 40), near))
    at = [0, *sorted(data.draw(cuts)), len(body)]
    reader, found = read(*(body[a:b] for a, b in itertools.pairwise(at)))
    assert found == SOUND
    assert reader.fields == [("model", "demo"), ("keywords[]", "né")]


@pytest.mark.parametrize("size", [1, 1_000, 10**6])
def test_a_boundary_that_does_not_come_is_told_and_not_waited_for(size: int) -> None:
    long = b"x" * (forms.MAX_PREAMBLE_BYTES - 1) + b"\r\n"
    for body in (FORM.replace(b"--a b", b"--other"), b"x", long + FORM + LAST):
        with pytest.raises(FormError, match="begins with --a b, the boundary in its Content-Type"):
            read(*(body[at : at + size] for at in range(0, len(body), size)))
    # It is told before the body ends.
    reader, pieces = FormReader(TYPE), 2 * forms.MAX_PREAMBLE_BYTES // size + 1
    with pytest.raises(FormError, match="begins with --a b"):
        any(reader.feed(b"x" * size) for _ in range(pieces))


def test_the_file_needs_no_name_of_its_own() -> None:
    reader, found = read(part("file", b"abc") + part("model", b"x", "odd") + LAST)
    assert (found, reader.num_files, reader.fields) == (b"abc", 1, [("model", "x")])


def test_the_file_comes_piece_by_piece() -> None:
    reader = FormReader(TYPE)
    assert reader.feed(part("file", b"")[:-2] + b"12345") == b"12345"
    assert reader.feed(b"67") == b"67"


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "multipart/form-data", "multipart/form-data; boundary=",
     "multipart/mixed; boundary=x", "multipart/form-data; boundary=" + "x" * 300],
)  # fmt: skip
def test_what_is_no_form(content_type: str | None) -> None:
    with pytest.raises(FormError, match="boundary"):
        FormReader(content_type)


@pytest.mark.parametrize(
    ("body", "match", "field"),
    [
        (b"no form at all", "damaged", None),
        (FORM, "ends before", None),
        (FORM[:-20], "ends before", None),
        (b"--a b", "ends before", None),
        (b"--a b ", "ends before", None),
        (b"", "ends before", None),
        (part(None, b"x") + LAST, "no name", None),
        (part("file", b"1") + part("file", b"2") + LAST, "several files", "file"),
        (part("prompt", b"\xff") + LAST, "UTF-8", "prompt"),
        (part("prompt", b"x" * (forms.MAX_FIELD_BYTES + 1)) + LAST, "longer", "prompt"),
        (b"".join([part("k", b"")] * (forms.MAX_FIELDS + 1)) + LAST, "more than", None),
        (b"".join([part("k", b"x" * 60_000)] * 18) + LAST, "together", None),
        (part("x" * 5_000, b"1") + LAST, "damaged", None),
        (b"--a b\r\n" + b"".join(b"H%d: 1\r\n" % i for i in range(100)), "damaged", None),
    ],
)
def test_what_cannot_be(body: bytes, match: str, field: str | None) -> None:
    with pytest.raises(FormError, match=match) as caught:
        read(body)
    assert caught.value.field == field


def test_fields_of_the_longest_length_are_read() -> None:
    reader, _ = read(part("prompt", b"x" * forms.MAX_FIELD_BYTES) + LAST)
    assert len(reader.fields[0][1]) == forms.MAX_FIELD_BYTES


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"--a b", b"\r\n", b" ", FORM, LAST])))
def test_any_bytes_are_a_form_or_an_error(pieces: list[bytes]) -> None:
    with contextlib.suppress(FormError):
        read(*pieces)
