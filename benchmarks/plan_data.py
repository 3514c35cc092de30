"""From results/*.jsonl to src/kiku/measure/measured.json: the few figures that `kiku plan` tells as
measured.

    python benchmarks/plan_data.py

Of each kind one row counts: of those of the last day on which it was measured the middle one, by
its figure; of two in the middle that which promises less. A p99 of some hundred steps is a handful
of them, and on a shared machine one run has twice that of the next: were it the last run that
counts, another run would be a way to a better figure, and a bad one would stand however many good
ones there were. It is a day, not a commit, as most commits were measured once. If the code became
faster within the day, the figure may be too modest until the next one.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from machine import RESULTS, ROOT, key_type

from kiku.graph import precision_of_weights

DATA = ROOT / "src" / "kiku" / "measure" / "measured.json"

Row = dict[str, Any]

_FEW = 50
"""Of fewer steps than this there is no p99."""

_KIND = ("what", "model", "dtype", "kv", "machine", "threads")

_FIGURE = {"live": "p99_ms", "memory": "stream_bytes", "file": "speed", "sockets": "us_a_frame"}
"""By which of its figures a row is compared with others of its kind."""


def collected(results: Path) -> list[Row]:
    """Live streams with full windows, memory, recordings and sockets: one row for each kind."""
    rows = [
        *_of_peers(_read(results / "peers.jsonl")),
        *_of_live(_read(results / "live.jsonl")),
        *_of_serve(_read(results / "serve.jsonl")),
    ]
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (*(row[name] for name in _KIND), row.get("streams", 0))
        found.setdefault(key, []).append(row)
    return [_counting(found[key]) for key in sorted(found)]


def _counting(rows: Sequence[Row]) -> Row:
    """Of rows of one kind that which counts, and of how many of its day it is the middle one."""
    last = max(row["date"] for row in rows)
    of_day = sorted((row for row in rows if row["date"] == last), key=_promised, reverse=True)
    return {**of_day[len(of_day) // 2], "rows": len(of_day)}


def _promised(row: Row) -> float:
    """More is better: a speed; for times and bytes, less of them."""
    figure = row[_FIGURE[row["what"]]]
    return figure if row["what"] == "file" else -figure


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _of_peers(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        head = _head(row, row["what"], row.get("shape"), row.get("precision"))
        timed = row["what"] in ("live", "streams", "big") and "times" in row  # else it failed
        if timed and row["window"] == "full":
            yield from _step(head, row["streams"], row["times"])
        elif row["what"] == "memory" and "slots" in row:  # older rows say too little for a slot
            own = row["after_a_minute"] - row["per_slot"]
            yield {**head, "fixed_bytes": own, "stream_bytes": row["per_slot"]}
        elif row["what"] == "file":
            yield {**head, "speed": row["speed"]}


def _of_live(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        for one in row["rows"] if row["what"] == "streams" else ():
            if one["window"] == "full":
                earlier = "float32" if one["model"] == "demo" else "int8"  # rows that do not say
                dtype = one.get("precision", earlier)
                head = _head({**row, **one}, "live", one["model"], dtype)
                yield from _step(head, one["streams"], one["step"])


def _of_serve(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        if sockets := row.get("sockets"):
            head = _head({"threads": 1, **row}, "sockets", "any", None)
            yield {**head, "us_a_frame": max(one["us_a_frame"] for one in sockets)}


def keys_of(row: Row, precision: str) -> str:
    """In what keys and values were kept as this was measured."""
    return key_type(precision, has_kernels="kiku-kernels" in row.get("versions", ()))


def _head(row: Row, what: str, model: str | None, precision: str | None) -> Row:
    """`precision` is None where no decoder was measured."""
    dtype = "any" if precision is None else precision_of_weights(precision)
    kv = "float32" if precision is None else keys_of(row, precision)
    head = {"what": what, "model": model, "dtype": dtype, "kv": kv}
    return head | {name: row[name] for name in ("machine", "threads", "date", "commit")}


def _step(head: Row, streams: int, times: Row) -> Iterator[Row]:
    if times["count"] >= _FEW:
        yield {**head, "what": "live", "streams": streams, "p99_ms": times["p99_ms"]}


def text(rows: Sequence[Row]) -> str:
    """A row a line."""
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n"


if __name__ == "__main__":
    DATA.write_text(text(collected(RESULTS)), encoding="utf-8")
    print(f"{DATA.relative_to(ROOT)} written")
