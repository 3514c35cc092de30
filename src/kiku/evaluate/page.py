"""One HTML page that needs nothing else: figures, and each error to be seen and heard.

There is no script in it. All text comes from outside, so all of it is escaped. The page's policy
forbids it to load anything but the sound that it contains.
"""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from kiku.errors import AudioError
from kiku.evaluate.aligning import WordPair
from kiku.evaluate.clips import CLIP_RATE, Excerpt, data_uri, excerpts
from kiku.evaluate.evaluation import Comparison, Evaluation
from kiku.evaluate.figures import words_in_pair
from kiku.evaluate.hearing import sound_of
from kiku.evaluate.picture import reliability_svg
from kiku.evaluate.scoring import Scored
from kiku.evaluate.tables import ReportTable

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:"

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --sub: #f59e0b55; --del: #ef444455;
  --ins: #8b5cf655; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: start; }
.side { display: flex; flex-wrap: wrap; gap: 2rem; align-items: start; }
article { border-top: 1px solid var(--line); padding: .8rem 0; }
article h3 { font-size: .95rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
article h3 small { font-weight: normal; opacity: .7; }
audio { height: 2.2rem; vertical-align: middle; max-width: 100%; }
.pairs { display: flex; flex-wrap: wrap; gap: .25rem .1rem; margin: .4rem 0; }
.pair { display: grid; padding: 0 .3rem; border-radius: .3rem; }
.pair span { min-height: 1.45em; }
.pair span + span { opacity: .75; }
.substitute { background: var(--sub); } .delete { background: var(--del); }
.insert { background: var(--ins); }
.key { margin: .4rem 0; }
"""


def errors_page(
    evaluation: Evaluation,
    tables: Sequence[ReportTable],
    comparison: Comparison | None,
    *,
    most: int,
) -> str:
    """The page, as HTML.

    Args:
        evaluation: the one to show.
        tables: its figures.
        comparison: with another evaluation, whose words are shown below.
        most: how many utterances are shown, with their sound.
    """
    title = f"{evaluation.settings.get('model')}: evaluation"
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<p>{escape(_how(evaluation))}</p>\n"
    )
    shown = _shown(evaluation.scored, most)
    of_other = {} if comparison is None else _others(comparison, evaluation)
    figures = "".join(_figures(evaluation, tables))
    parts = [f'{head}<div class="figures">\n{figures}</div>\n', _heading(evaluation, len(shown))]
    parts += [_utterance(one, of_other.get(one.utterance.id)) for one in shown]
    return "".join([*parts, "</body></html>\n"])


def _how(evaluation: Evaluation) -> str:
    settings = evaluation.settings
    chunk_s = settings.get("chunk_s")
    how = "as recordings" if chunk_s is None else f"live, in chunks of {chunk_s:g} s"
    return (
        f"{settings.get('engine')}; transcribed {how}; texts compared as {evaluation.normalise}; "
        f"kiku {settings.get('kiku')}"
    )


def _figures(evaluation: Evaluation, tables: Sequence[ReportTable]) -> Iterable[str]:
    sure = evaluation.figures.reliability
    for table in tables:
        picture = ""
        if sure is not None and table.header[:1] == ("sure",):
            picture = reliability_svg(sure)
        title, body = escape(table.title), f"{_table(table)}{picture}"
        yield f'<section><h2>{title}</h2>\n<div class="side">{body}</div></section>\n'


def _table(table: ReportTable) -> str:
    header = ""
    if any(table.header):
        header = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in table.header)}</tr>"
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return f"<table>{header}{rows}</table>"


def _shown(scored: Sequence[Scored], most: int) -> list[Scored]:
    """Utterances with errors, the most first; those with as many in the order of the manifests."""
    wrong = [one for one in scored if one.errors]
    return sorted(wrong, key=lambda one: -one.errors)[:most]


def _heading(evaluation: Evaluation, count: int) -> str:
    total = sum(1 for one in evaluation.scored if one.errors)
    told = f"{total} utterances with errors"
    if count < total:
        told = f"{count} of {told}, those with the most; report.json has all"
    return (
        f"<h2>Errors</h2>\n<p>{escape(told)}. Above what was said, below what was heard.</p>\n"
        '<p class="key"><span class="substitute">taken for another</span> '
        '<span class="delete">not heard</span> <span class="insert">heard in addition</span></p>\n'
    )


def _others(comparison: Comparison, evaluation: Evaluation) -> dict[str, Scored]:
    """The other evaluation's results, by utterance."""
    mine = {id(one) for one in evaluation.scored}
    return {
        first.utterance.id: second if id(first) in mine else first
        for first, second in comparison.pairs
    }


def _utterance(scored: Scored, other: Scored | None) -> str:
    fields = ", ".join(f"{name} {value}" for name, value in scored.utterance.fields.items())
    errors = "1 error" if scored.errors == 1 else f"{scored.errors} errors"
    about = f"{errors} in {len(scored.reference)} words, {scored.heard.seconds:.1f} s"
    title = f"<h3>{escape(scored.utterance.id)} <small>{escape(about)}; {escape(fields)}</small>"
    parts = [f"<article>{title}</h3>\n"]
    sound, problem = _sound(scored)
    for one in excerpts(scored):
        parts.append(_audio(scored, one, sound))
        parts.append(_pairs(scored, one.pairs))
    if problem:
        parts.append(f"<p>It cannot be played any more: {escape(problem)}</p>")
    if other is not None:
        words = other.normalised[1] or "(nothing)"
        parts.append(f"<p>The other one heard: {escape(words)}</p>")
    return "".join([*parts, "</article>\n"])


def _sound(scored: Scored) -> tuple[NDArray[np.float32] | None, str]:
    """The samples, or the reason why they cannot be read."""
    try:
        return sound_of(scored.utterance, CLIP_RATE), ""
    except AudioError as error:
        return None, str(error)


def _audio(scored: Scored, excerpt: Excerpt, sound: NDArray[np.float32] | None) -> str:
    if sound is None:
        return ""
    first = scored.utterance.start_s
    part = sound[round((excerpt.start - first) * CLIP_RATE) :]
    part = part[: round((excerpt.end - excerpt.start) * CLIP_RATE)]
    if not len(part):
        return ""
    place = f"{excerpt.start:.1f} to {excerpt.end:.1f} s"
    address = data_uri(part, CLIP_RATE)
    return f'<audio controls preload="none" src="{address}"></audio> <small>{place}</small>'


def _pairs(scored: Scored, pairs: Sequence[WordPair]) -> str:
    cells: list[str] = []
    for pair in pairs:
        said, got = words_in_pair(scored, pair)
        kind = "" if pair.kind == "equal" else f" {pair.kind}"
        cells.append(
            f'<span class="pair{kind}"><span>{escape(said)}</span><span>{escape(got)}</span></span>'
        )
    return f'<div class="pairs">{"".join(cells)}</div>\n'
