"""A multipart form as it arrives: its small fields in memory, its file handed on piece by piece.

Knows bytes; does not know sockets, disks or what the fields mean.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELDS = 1_200
"""Fields of one form, at most: enough for as many hotwords as a stream may have."""

MAX_FIELD_BYTES = 64 * 2**10
"""Bytes of one field that is no file, at most."""

MAX_FORM_BYTES = 2**20
"""Bytes of all fields together, with their names, at most."""

MAX_PREAMBLE_BYTES = 64 * 2**10
"""Bytes before the first boundary, at most: RFC 2046 lets any text stand there."""

MAX_PADDING_BYTES = 2**10
"""Spaces and tabs behind one boundary, at most: RFC 2046 lets any number stand there."""

_PADDING = b" \t"

_NAME_BYTES = 100


class FormError(Exception):
    """What came is no form, breaks off, or has too much in it."""

    def __init__(self, message: str, field: str | None = None) -> None:
        """`field` is the name of the field that is at fault, if it is one field."""
        super().__init__(message)
        self.field = field


class FormReader:
    """Reads one form. The part whose name is `file` is its file, whatever its other headers are."""

    def __init__(self, content_type: str | None, file: str = "file") -> None:
        """Read a body with this `Content-Type`.

        Raises:
            FormError: it is not the type of a form.
        """
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            seen = "nothing" if content_type is None else repr(content_type[:_NAME_BYTES])
            raise FormError(
                "the body must be a form with a boundary (Content-Type: multipart/form-data; "
                f"boundary=...); the Content-Type is {seen}"
            )
        callbacks: MultipartCallbacks = {
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._begin_part,
            "on_part_data": self._part,
            "on_part_end": self._end_part,
            "on_end": self._end_form,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise FormError(f"the boundary of the form is not valid ({error})") from error
        self._first = b"\n--" + boundary  # it begins a line
        self._later = b"\r" + self._first
        self._last: bytes = b""  # what came last from there on, as long as a boundary
        # The end of what came before the first boundary, behind a line end that did not come.
        self._preamble: bytes = b"\n"
        self._num_skipped: int = 0  # bytes before that end
        self._has_begun = False  # whether the first boundary has come
        self._num_padding = 0  # bytes behind a later boundary whose line has not ended
        self._file_name = file
        self._header = [b"", b""]
        self._disposition = b""
        self._name: str | None = None
        self._value = bytearray()
        self._pieces: list[bytes] = []
        self._num_bytes = 0
        self._is_whole = False
        self.fields: list[tuple[str, str]] = []
        """Names and values, in the order in which they came."""
        self.num_files = 0
        """Number of parts with the name of the file that have come."""

    def feed(self, data: bytes) -> bytes:
        """Read the next bytes of the body. Returns those of them that belong to the file.

        Raises:
            FormError: they are no part of a form, or too many.
        """
        if not self._has_begun:
            data = self._from_first_boundary(data)
        for piece in self._cut_behind_boundaries(data):
            if self._is_whole:
                break
            self._write(piece)
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def _cut_behind_boundaries(self, data: bytes) -> list[bytes]:
        """The data in pieces, each of which but the last ends with the byte behind a boundary, the
        first byte of its padding if it has any."""
        boundary, before, size = self._later, self._last, len(self._later)
        self._last = (before + data[-size:])[-size:]
        if boundary not in data and boundary not in before + data[:size]:
            return [data]
        seen = before + data
        places = [len(before)]
        at = seen.find(boundary)
        while 0 <= at < len(seen) - size:
            places.append(at + size + 1)
            at = seen.find(boundary, at + size)
        return [seen[start:end] for start, end in pairwise([*places, len(seen)])]

    def _write(self, piece: bytes) -> None:
        if self._parser.state == MultipartState.BOUNDARY_PADDING:
            num_bytes = len(piece) - len(piece.lstrip(_PADDING))
            self._check_padding(self._num_padding + num_bytes)
        else:
            self._num_padding = 1  # if padding begins here, then with the last byte
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise FormError(f"the form is damaged: {error}") from error

    def end(self) -> None:
        """Check, as the body has ended, that the form has too.

        Raises:
            FormError: the form has not ended.
        """
        if not self._has_begun and self._preamble != b"\n" and self._first not in self._preamble:
            raise self._no_boundary()
        if not self._is_whole:
            raise FormError("the form ends before its last boundary: send it completely")

    def _from_first_boundary(self, data: bytes) -> bytes:
        """The bytes from the first boundary on, without the padding behind it; none if it has not
        come yet, or the byte behind its padding."""
        data = self._preamble + data
        at = data.find(self._first)
        end = at if at >= 0 else max(0, len(data) - len(self._first) + 1)
        if self._num_skipped + end > MAX_PREAMBLE_BYTES:
            raise self._no_boundary()
        line_end = data[at + len(self._first) :].lstrip(_PADDING) if at >= 0 else b""
        if at >= 0:
            self._check_padding(len(data) - at - len(self._first) - len(line_end))
        if line_end:
            self._has_begun, self._preamble = True, b""
            return self._first[1:] + line_end if line_end[:1] == b"\r" else data[at + 1 :]
        self._preamble = data[end:]
        self._num_skipped += end
        return b""

    def _check_padding(self, num_bytes: int) -> None:
        self._num_padding = num_bytes
        if num_bytes > MAX_PADDING_BYTES:
            raise FormError(
                f"the form is damaged: more than {MAX_PADDING_BYTES} spaces and tabs follow one "
                "of its boundaries: end the line there"
            )

    def _no_boundary(self) -> FormError:
        boundary = self._first[3 : 3 + _NAME_BYTES].decode("latin-1")
        return FormError(
            f"the form is damaged: no line of it begins with --{boundary}, the boundary in its "
            "Content-Type: send the Content-Type that belongs to this body"
        )

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _header_end(self) -> None:
        name, value = self._header
        self._header = [b"", b""]
        if name.lower() == b"content-disposition":
            self._disposition = value

    def _begin_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise FormError("a part of the form has no name")
        self._name = name
        if name == self._file_name:
            self.num_files += 1
            if self.num_files > 1:
                raise FormError("there are several files: send one file in each request", name)
            return
        self._count(len(name))
        if len(self.fields) >= MAX_FIELDS:
            raise FormError(f"the form has more than {MAX_FIELDS} fields")

    def _part(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._file_name:
            self._pieces.append(data[start:end])
            return
        self._count(end - start)
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise FormError(f"the field is longer than {MAX_FIELD_BYTES} bytes", self._name)

    def _end_part(self) -> None:
        name, value = self._name, bytes(self._value)
        self._name, self._value = None, bytearray()
        if name is None or name == self._file_name:
            return
        try:
            self.fields.append((name, value.decode("utf-8")))
        except UnicodeDecodeError:
            raise FormError("the field is not text in UTF-8", name) from None

    def _end_form(self) -> None:
        self._is_whole = True

    def _count(self, size: int) -> None:
        self._num_bytes += size
        if self._num_bytes > MAX_FORM_BYTES:
            raise FormError(f"the fields together are longer than {MAX_FORM_BYTES} bytes")
