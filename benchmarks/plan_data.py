"""From results/*.jsonl to src/kiku/measure/measured.json: the few figures that `kiku plan` tells as
measured. Of each kind the latest row counts.

    python benchmarks/plan_data.py
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT / "src" / "kiku" / "measure" / "measured.json"

Row = dict[str, Any]

_FEW = 50
"""Of fewer steps than this there is no p99."""


def collected(results: Path) -> list[Row]:
    """Live streams with full windows, memory, recordings and sockets: one row for each kind."""
    rows = [
        *_of_peers(_read(results / "peers.jsonl")),
        *_of_live(_read(results / "live.jsonl")),
        *_of_serve(_read(results / "serve.jsonl")),
    ]
    found: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: row["date"]):
        key = tuple(row[name] for name in ("what", "model", "dtype", "kv", "machine", "threads"))
        found[*key, row.get("streams", 0)] = row
    return [found[key] for key in sorted(found)]


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _of_peers(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        head = _head(row, row["what"], row.get("shape"), row.get("precision"))
        if row["what"] in ("live", "streams", "big") and row["window"] == "full":
            yield from _step(head, row["streams"], row["times"])
        elif row["what"] == "memory" and "slots" in row:  # older rows say too little for a slot
            own = row["after_a_minute"] - row["per_slot"]
            yield {**head, "fixed_bytes": own, "stream_bytes": row["per_slot"]}
        elif row["what"] == "file":
            yield {**head, "speed": row["speed"]}


def _of_live(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        for one in row["rows"] if row["what"] == "streams" else ():
            dtype = "float32" if one["model"] == "demo" else "int8"  # as benchmarks/live.py
            if one["window"] == "full":
                head = _head({**row, **one}, "live", one["model"], dtype)
                yield from _step(head, one["streams"], one["step"])


def _of_serve(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        if sockets := row.get("sockets"):
            head = _head({"threads": 1, **row}, "sockets", "any", "any")
            yield {**head, "us_a_frame": max(one["us_a_frame"] for one in sockets)}


def _head(row: Row, what: str, model: str | None, dtype: str | None) -> Row:
    has_kernels = "kiku-kernels" in row.get("versions", ())
    kv = "float16" if has_kernels and dtype in ("int8", "int4") else "float32"
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
