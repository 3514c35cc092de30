"""From results/peers.jsonl to a table, a picture, and the page in docs: the latest row of each kind
counts."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

_KEYS = ("what", "shape", "precision", "window", "streams", "peer_precision")


@dataclass(frozen=True, slots=True)
class Target:
    """A line of what is aimed at."""

    text: str
    wanted: float
    stretch: float | None
    unit: str
    measured: Callable[["Rows"], float | None]
    smaller_is_better: bool = True

    def met(self, value: float) -> bool:
        """Whether `value` reaches what is wanted."""
        return value <= self.wanted if self.smaller_is_better else value >= self.wanted


class Rows:
    """The latest row of each kind, of one shape."""

    def __init__(self, rows: Sequence[Row], shape: str) -> None:
        """`shape` is that of the peers; other models' rows are kept whatever they are."""
        latest: dict[tuple[Any, ...], Row] = {}
        rows = [
            row
            for row in rows
            if (row.get("shape") == "tiny") == (shape == "tiny") or row["what"] in ("file", "soak")
        ]
        # Peers are compared within a run only, whoever of them fitted into memory side by side.
        last = next((row["run"] for row in reversed(rows) if row["what"] == "live"), None)
        for row in rows:
            if row["what"] != "live" or row["run"] == last:
                latest[(*(row.get(key) for key in _KEYS), *row.get("peers", ()))] = row
        self.rows = list(latest.values())

    def all(self, what: str, **values: Any) -> list[Row]:
        """Those of a kind in which these keys have these values."""
        return [
            row
            for row in self.rows
            if row["what"] == what and all(row.get(k) == v for k, v in values.items())
        ]

    def one(self, what: str, *path: str, **values: Any) -> float | None:
        """The number at the end of a path of keys in the newest row of a kind."""
        for row in reversed(self.all(what, **values)):
            found: Any = row
            for key in path:
                found = found.get(key) if found else None
            if found is not None:
                return float(found)
        return None

    def least(self, what: str, key: str, **values: Any) -> float | None:
        """The smallest of a number over all rows: what holds in every one of them."""
        found = [row[key] for row in self.all(what, **values) if row.get(key) is not None]
        return min(found) if found else None

    def most(self, what: str, *path: str, **values: Any) -> float | None:
        """The largest likewise."""
        found = [
            value
            for row in self.all(what, **values)
            if (value := Rows([row], str(row.get("shape"))).one(what, *path)) is not None
        ]
        return max(found) if found else None


def _streams_in_time(rows: Rows) -> float | None:
    """The most streams of which, and of all fewer, every row is in time."""
    found: dict[int, float] = {}
    for row in rows.all("streams", precision="int8"):
        count = row["streams"]
        found[count] = max(found.get(count, 0.0), row["times"]["p99_ms"])
    fine = takewhile(lambda count: found[count] <= 80, sorted(found))
    return float(max(fine, default=0)) if found else None


def _of_block(size: int, key: str) -> Callable[[Rows], float | None]:
    def find(rows: Rows) -> float | None:
        for row in rows.all("block"):
            for block in row["blocks"]:
                if block["size"] == size:
                    return block[key]
        return None

    return find


def _int4_against_int8(rows: Rows) -> float | None:
    ratios: list[float] = []
    for row in rows.all("live", precision="int4"):
        same = {key: row[key] for key in ("run", "window", "peer_precision")}
        other = rows.one("live", "ms_per_frame", "kiku", precision="int8", **same)
        ours = row["ms_per_frame"]["kiku"]
        if other and ours:
            ratios.append(other / ours)
    return round(min(ratios), 2) if ratios else None


def _best_p99(rows: Rows) -> float | None:
    worst = [rows.most("big", "times", "p99_ms", precision=p) for p in ("int8", "int4")]
    return min((value for value in worst if value is not None), default=None)


def _gigabytes(key: str) -> Callable[[Rows], float | None]:
    def find(rows: Rows) -> float | None:
        value = rows.one("memory", key, precision="int8")
        return None if value is None else round(value / 1e9, 2)

    return find


def _first_words(rows: Rows) -> float | None:
    return rows.one("start", "first_word_s") or rows.one("start", "first_tokens_s")


def _after_hours(rows: Rows) -> float | None:
    value = rows.one("soak", "change")
    return None if value is None else round(value * 100, 1)


TARGETS = (
    Target("1B int8, one live stream: times as fast as transformers", 5, 6, "x",
           lambda r: r.least("live", "ratio_to_transformers", precision="int8"), False),
    Target("1B int8, one live stream: times as fast as moshi", 6, 7, "x",
           lambda r: r.least("live", "ratio_to_moshi", precision="int8"), False),
    Target("its decoder's share of what the memory allows", 0.85, 0.9, "",
           lambda r: r.least("live", "share_of_limit", precision="int8"), False),
    Target("1B int4 against int8", 1.5, None, "x", _int4_against_int8, False),
    Target("2.6B, one live stream, p99 of a step", 80, 65, "ms", _best_p99),
    Target("1B int8, live streams at once with p99 up to 80 ms", 6, 10, "",
           _streams_in_time, False),
    Target("1B int8, decoder, in blocks of 16", 4.5, 3.5, "ms a frame",
           _of_block(16, "decoder_ms_per_frame")),
    Target("codec, one live frame", 6, 4.5, "ms",
           lambda r: r.one("block", "single", "codec", "median_ms")),
    Target("codec, in bulk", 450, 600, "frames a second",
           lambda r: r.one("block", "codec_bulk"), False),
    Target("file, demo model, blocks against frame by frame", 3, 5, "x",
           lambda r: r.one("file", "ratio"), False),
    Target("file, 1B int8: decoder's passes against steps, times the demo's acceptance (a product)",
           3, 4, "x", lambda r: r.one("product", "decoder_ratio"), False),
    Target("1B int8, one stream, private after a minute", 0.8, None, "GB",
           _gigabytes("private")),
    Target("1B int8, from the command to the first text", 1, None, "s", _first_words),
    Target("a step after three hours against after a minute", 5, None, "% slower", _after_hours),
)  # fmt: skip


def read(path: Path) -> list[Row]:
    """All rows of a file of results."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def table(rows: Sequence[Row]) -> str:
    """Targets beside what was measured, and then all of it, as markdown."""
    peers = [row for row in rows if row["what"] != "failed"]
    shape = "1b" if any(row.get("shape") == "1b" for row in peers) else "tiny"
    found = Rows(peers, shape)
    lines = ["| | target | stretch | measured | |", "|---|---|---|---|---|"]
    for target in TARGETS:
        value = target.measured(found)
        mark = "" if value is None else "yes" if target.met(value) else "no"
        sign = "≤" if target.smaller_is_better else "≥"
        unit = f" {target.unit}" if target.unit else ""
        stretch = "" if target.stretch is None else f"{target.stretch:g}{unit}"
        measured = "not measured" if value is None else f"{value:g}{unit}"
        lines.append(
            f"| {target.text} | {sign} {target.wanted:g}{unit} | {stretch} | {measured} | {mark} |"
        )
    return "\n".join([*lines, "", *_live_lines(found), "", *_stream_lines(found), "",
                      *_block_lines(found), "", *_other_lines(found)])  # fmt: skip


def _live_lines(rows: Rows) -> list[str]:
    lines = [
        "| one live stream | window | ms a frame | p99 | codec | decoder | share of the limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows.all("live"):
        if row["ms_per_frame"]["kiku"] is None:
            continue
        if row["precision"] != "int8" or row["peer_precision"] != "float32":
            lines.append(
                f"| kiku, {row['precision']} | {row['window']} | "
                f"{row['times']['median_ms']:.1f} | {row['times']['p99_ms']:.1f} | "
                f"{_ms(row['codec_ms'])} | {_ms(row['decoder_ms'])} | "
                f"{row['share_of_limit'] or ''} |"
            )
        if row["precision"] == "int8":
            for name, peer in row["peers"].items():
                lines.append(
                    f"| {name.replace(' ', ', ')} | {row['window']} | "
                    f"{peer['step']['median_ms']:.1f} | {peer['step']['p99_ms']:.1f} | "
                    f"{_ms(peer.get('codec'))} | {_ms(peer.get('decoder'))} | |"
                )
    return lines


def _stream_lines(rows: Rows) -> list[str]:
    lines = [
        "| live streams | model | window | median step | p95 | p99 | longest |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in [*rows.all("streams"), *rows.all("big")]:
        t = row["times"]
        lines.append(
            f"| {row['streams']} | {row['shape']}, {row['precision']} | {row['window']} | "
            f"{t['median_ms']:.1f} | {t['p95_ms']:.1f} | {t['p99_ms']:.1f} | {t['max_ms']:.1f} |"
        )
    return lines


def _block_lines(rows: Rows) -> list[str]:
    accepted = next((row["acceptance"] for row in rows.all("file")), {})
    lines = [
        "| frames in a block | ms a frame, all guesses right | codec | decoder "
        "| demo model, real speech: frames a pass |",
        "|---|---|---|---|---|",
    ]
    for row in rows.all("block"):
        for block in row["blocks"]:
            lines.append(
                f"| {block['size']} | {_ms(block['ms_per_frame'])} | "
                f"{_ms(block['codec_ms_per_frame'])} | {_ms(block['decoder_ms_per_frame'])} | "
                f"{accepted.get(str(block['size'])) or ''} |"
            )
    return lines


def _private(row: Row) -> str:
    return f", {row['private'] / 1e9:.2f} of them private" if row.get("private") else ""


def _other_lines(rows: Rows) -> list[str]:
    lines: list[str] = []
    for row in rows.all("file"):
        lines.append(
            f"File, demo model: {row['sound_s']:.1f} s of speech at {row['speed']:.1f} times its "
            f"speed in blocks, {row['ratio']:.2f} times as fast as frame by frame, "
            f"{'the same' if row['same_words'] else 'OTHER'} words."
        )
    for row in rows.all("product"):
        lines.append(
            f"File, {row['shape']} int8, as a product: blocks of {row['block']}, "
            f"{row['frames_per_pass']:.2f} frames a pass as the demo model has them; the decoder "
            f"{row['decoder_ratio']:.2f} times, codec and decoder {row['ratio']:.2f} times as fast."
        )
    for row in rows.all("memory"):
        lines.append(
            f"Memory, {row['shape']} {row['precision']}: {row['after_load'] / 1e9:.2f} GB after "
            f"loading, {row['after_a_minute'] / 1e9:.2f} GB after a minute"
            f"{_private(row)}, "
            f"{row['per_slot'] / 1e6:.0f} MB for another stream."
        )
    for row in rows.all("soak"):
        memory = [row["resident_after_a_minute"], row["resident_at_the_end"]]
        grown = "" if None in memory else f", memory {(memory[1] - memory[0]) / 1e6:+.1f} MB"
        lines.append(
            f"After {row['hours']:g} hours (position {row['position']:,}), {row['shape']}: "
            f"{row['at_the_end']['median_ms']:.2f} ms a step, "
            f"{row['after_a_minute']['median_ms']:.2f} after a minute{grown}."
        )
    if rows.rows:
        parts: dict[str, dict[str, None]] = {}  # what was measured when, each once and in order
        for row in rows.rows:
            parts.setdefault(f"{row['date']}, commit {row['commit']}", {})[row["what"]] = None
        lines += [f"{', '.join(whats)}: {when}." for when, whats in parts.items()]
        last = rows.rows[-1]
        timed = [row for row in rows.rows if row["what"] != "memory"] or rows.rows
        speeds = [row["bandwidth_gb_s"] for row in timed]
        versions = ", ".join(f"{name} {number}" for name, number in last["versions"].items())
        lines.append(
            f"{last['machine']}, {last['threads']} threads, memory read at {min(speeds):g} to "
            f"{max(speeds):g} GB/s; {versions}."
        )
    return [text for line in lines for text in (line, "")][:-1]


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Bars of one live stream's frame with full windows, against real time and the limit; whether
    there was anything to draw."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "kiku"  # the same picture, the same file
    from matplotlib import pyplot as plt

    bars = _bars(Rows(rows, "1b"))
    if not bars:
        return False
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(bars) + 1.4), layout="constrained")
    for place, (name, codec, decoder, at_best) in enumerate(reversed(bars)):
        ours = name.startswith("kiku")
        axes.barh(place, codec, color="#9db8d2" if ours else "#cccccc")
        axes.barh(place, decoder, left=codec, color="#2b6cb0" if ours else "#8a8a8a")
        axes.text(codec + decoder, place, f" {codec + decoder:.0f}", va="center")
        if at_best:
            axes.plot([codec + at_best] * 2, [place - 0.4, place + 0.4], color="#c53030", lw=2)
    axes.axvline(80, color="#444444", ls="--", lw=1)
    axes.text(80, len(bars) - 0.45, " real time", va="bottom")
    axes.set_yticks(range(len(bars)), [name for name, *_ in reversed(bars)])
    axes.set_xlabel(
        "ms a frame of 80 ms, 1B, one live stream, full windows\n"
        "light: codec; dark: decoder; red: where reading the weights alone would end"
    )
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return True


def _bars(rows: Rows) -> list[tuple[str, float, float, float | None]]:
    """Name, codec, decoder, limit of the decoder; kiku first."""
    ours: dict[str, tuple[str, float, float, float | None]] = {}
    theirs: dict[str, tuple[str, float, float, float | None]] = {}
    for row in rows.all("live", window="full"):
        if (whole := row["ms_per_frame"]["kiku"]) is not None:
            codec = row["codec_ms"] or 0.0
            name = f"kiku, {row['precision']}"
            ours.setdefault(name, (name, codec, whole - codec, row["limit"]["ms"]))
        for name, peer in row.get("peers", {}).items():
            codec = peer.get("codec") or 0.0
            named = name.replace(" ", ", ")
            theirs[name] = (named, codec, peer["step"]["median_ms"] - codec, None)
    return [*sorted(ours.values(), key=lambda bar: bar[1] + bar[2]), *theirs.values()]


def write(results: Path, docs: Path) -> None:
    """Make `peers.md` and `peers.svg` beside the results, and the picture and the table in docs."""
    rows = read(results / "peers.jsonl")
    text = table(rows)
    (results / "peers.md").write_text(text + "\n")
    drawn = draw(rows, results / "peers.svg")
    page = docs / "speed.md"
    if page.exists():
        shown = "![ms a frame: kiku, transformers and moshi](speed.svg)\n\n" if drawn else ""
        if drawn:
            (docs / "speed.svg").write_bytes((results / "peers.svg").read_bytes())
        page.write_text(filled(page.read_text(), shown + text))


def filled(page: str, text: str) -> str:
    """A page with `text` between its two markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
