"""An evaluation for people: rows of tables, Markdown, and the files of a report."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kiku.errors import OutputError
from kiku.evaluate.evaluation import Comparison, Evaluation
from kiku.evaluate.figures import Figures, Spread, WordErrors
from kiku.evaluate.page import errors_page
from kiku.evaluate.tables import ReportTable
from kiku.evaluate.trust import as_rows
from kiku.writing import reason_of, write_whole

FILES = ("report.json", "report.md", "report.html")
"""Files of a report, in its folder."""

PAGE_UTTERANCES = 300
"""Utterances that the page shows, unless another number is asked for: those with most errors."""


def write_report(
    evaluation: Evaluation,
    folder: str | Path,
    *,
    comparison: Comparison | None = None,
    page_utterances: int = PAGE_UTTERANCES,
) -> list[Path]:
    """Write a report as JSON, Markdown and one HTML page that needs nothing else.

    Args:
        evaluation: the one to report.
        folder: made if it does not exist; an earlier report in it is replaced.
        comparison: of this evaluation with another, to be reported too.
        page_utterances: how many utterances with errors the page shows, with their sound.

    Returns:
        The files.

    Raises:
        OutputError: they cannot be written.
    """
    values = evaluation.to_dict()
    if comparison is not None:
        values["comparison"] = comparison.to_dict()
    texts = (
        json.dumps(values, ensure_ascii=False, indent=1) + "\n",
        markdown(evaluation, comparison),
        errors_page(
            evaluation, report_tables(evaluation, comparison), comparison, most=page_utterances
        ),
    )
    paths = [Path(folder) / name for name in FILES]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, texts, strict=True):
            write_whole(path, text)
    except OSError as error:
        raise OutputError(
            f"the report cannot be written into {os.fspath(folder)} ({reason_of(error)}): check "
            "the folder, its permissions and the disk"
        ) from error
    return paths


def report_tables(
    evaluation: Evaluation, comparison: Comparison | None = None
) -> list[ReportTable]:
    """All numbers of a report, except for the time that the run took."""
    figures = evaluation.figures
    found = [ReportTable("Figures", ("", ""), tuple(_summary(figures)))]
    if comparison is not None:
        found.append(ReportTable("Compared", ("", ""), tuple(_compared(comparison))))
    for name, groups in evaluation.groups.items():
        header = (name, "utterances", "words", "word error rate", "95 of 100", "invented")
        rows = tuple(_group_row(value, one) for value, one in groups.items())
        found.append(ReportTable(f"By {name}", header, rows))
    confusions = evaluation.confusions
    for title, header, rows in (
        ("Taken for another", ("said", "heard", "times"), confusions.substitutions),
        ("Not heard", ("said", "times"), confusions.deletions),
        ("Heard in addition", ("heard", "times"), confusions.insertions),
    ):
        if rows:
            found.append(ReportTable(title, header, tuple(tuple(map(str, row)) for row in rows)))
    if figures.reliability is not None:
        bins = tuple(
            (f"{one['from']:.1f} to {one['to']:.1f}", str(one["words"]),
             f"{one['said']:.3f}", f"{one['right']:.3f}")
            for one in as_rows(figures.reliability)
        )  # fmt: skip
        found.append(ReportTable("How sure, how right", ("sure", "words", "said", "right"), bins))
    if evaluation.problems:
        rows = tuple((one.where, one.message) for one in evaluation.problems)
        found.append(ReportTable("Not evaluated", ("what", "why"), rows))
    return found


def _summary(figures: Figures) -> Iterable[tuple[str, str]]:
    words = figures.word_errors
    if words is not None:
        yield "word error rate", f"{_rate(words)} ({_range(words)} in 95 of 100 drawings)"
        yield "words", f"{words.words} in {words.utterances} utterances, {_minutes(words.seconds)}"
        yield (
            "errors",
            f"{words.substitutions} substitutions, {words.deletions} deletions, "
            f"{words.insertions} insertions",
        )
        yield "without error", f"{words.whole} of {words.utterances} utterances"
        yield "character error rate", f"{100 * words.character_rate:.1f} %"
    silent = figures.invented
    if silent is not None:
        yield (
            "words invented",
            f"{silent.per_ten_minutes:.1f} in ten minutes "
            f"({silent.words} in {_minutes(silent.seconds)} without speech)",
        )
    yield from _spreads(figures)
    turns = figures.turns
    if turns is not None:
        yield (
            "turns",
            f"{turns.turns}: {turns.false_ends} false ends, {turns.false_eager_ends} false eager "
            f"ends, {turns.misses} ends missed",
        )
        if turns.end_delay is not None:
            yield "end of a turn told after", _told(turns.end_delay)
    sure = figures.reliability
    if sure is not None:
        yield "calibration error (ECE)", f"{sure.ece:.3f} of {sure.words} words"


def _spreads(figures: Figures) -> Iterable[tuple[str, str]]:
    for name, spread, signed in (
        ("error of word starts", figures.start_error, True),
        ("error of word ends", figures.end_error, True),
        ("latency of words", figures.latency, False),
        ("latency, from the model's own ends", figures.own_latency, False),
    ):
        if spread is not None:
            side = f", {1000 * spread.mean:+.0f} ms on average" if signed else ""
            yield name, f"{_told(spread)}{side}"


def _compared(comparison: Comparison) -> Iterable[tuple[str, str]]:
    found = comparison.difference
    for name, settings, rate in (
        ("first", comparison.first, found.first),
        ("second", comparison.second, found.second),
    ):
        yield f"{name}: {label(settings)}", f"{100 * rate:.1f} %"
    yield (
        "second - first",
        f"{100 * found.difference:+.2f} points ({100 * found.interval.low:+.2f} to "
        f"{100 * found.interval.high:+.2f} in 95 of 100 drawings, p = {found.p:.3f})",
    )
    yield "utterances", f"{found.utterances}: {found.better} better, {found.worse} worse"
    if comparison.alone:
        yield "utterances that only one has", str(comparison.alone)


def label(settings: Any) -> str:
    """The model and its engine, in a few words."""
    return f"{settings.get('model')}, {settings.get('engine')}"


def _group_row(value: str, figures: Figures) -> tuple[str, ...]:
    words, silent = figures.word_errors, figures.invented
    value = value or "(not said)"
    invented = "" if silent is None else f"{silent.per_ten_minutes:.1f} in ten minutes"
    count = (0 if words is None else words.utterances) + (
        0 if silent is None else silent.utterances
    )
    if words is None:
        return (value, str(count), "0", "", "", invented)
    return (value, str(count), str(words.words), _rate(words), _range(words), invented)


def _rate(words: WordErrors) -> str:
    return f"{100 * words.rate:.1f} %"


def _range(words: WordErrors) -> str:
    return f"{100 * words.interval.low:.1f} to {100 * words.interval.high:.1f}"


def _told(spread: Spread) -> str:
    return f"{1000 * spread.median:.0f} ms median, {1000 * spread.p95:.0f} ms p95"


def _minutes(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} minutes"


def speed(evaluation: Evaluation) -> str:
    """How fast the run was; differs from run to run."""
    took_s = evaluation.took_s
    if not took_s:
        return ""
    return (
        f"{_minutes(evaluation.sound_s)} of sound in {_minutes(took_s)}: "
        f"{evaluation.sound_s / took_s:.1f} times as fast as speech"
    )


def markdown(evaluation: Evaluation, comparison: Comparison | None = None) -> str:
    """The report as Markdown, fit for a README."""
    settings = evaluation.settings
    chunk_s = settings.get("chunk_s")
    how = "as recordings" if chunk_s is None else f"live, in chunks of {chunk_s:g} s"
    parts = [
        f"# {_inline(label(settings))}",
        f"Heard {how}; texts compared as `{evaluation.normalise}`; kiku {settings.get('kiku')}.",
    ]
    for table in report_tables(evaluation, comparison):
        parts.append(f"## {_inline(table.title)}")
        parts.append(_markdown_table(table))
    if told := speed(evaluation):
        parts.append(f"Speed (another number each time): {told}.")
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: ReportTable) -> str:
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(map(_inline, line))} |" for line in lines)


def _inline(text: str) -> str:
    """Text that stays text in a cell of a table, whatever is in it."""
    plain = " ".join(text.split())
    for character in "\\`*_[]|#~":
        plain = plain.replace(character, f"\\{character}")
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
