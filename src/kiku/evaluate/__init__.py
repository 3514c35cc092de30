"""Word errors, latency and confidence of a model, measured on recordings with known text.

    from kiku.evaluate import evaluate

    evaluation = evaluate(["dev.jsonl"], kiku.load("demo"))
    print(evaluation.figures.word_errors.rate)

    manifest.py     rows of manifests and folders -> utterances, and what is wrong with others
    hearing.py      runs utterances through a model, as live streams or as recordings
    store.py        results, kept as they come
    normalising.py  makes texts comparable
    aligning.py     aligns two texts word by word
    scoring.py      results against references: errors, times, latencies, trust
    figures.py      many utterances in a few figures; groups
    trust.py        reliability, and calibrations that fit
    chance.py       intervals, and the paired bootstrap
    evaluation.py   all of that in one call; two evaluations compared
    report.py       figures as rows of tables, and as Markdown
    page.py         one HTML page on which every error can be seen and heard
    picture.py      the reliability picture, as SVG
    clips.py        short pieces of sound for the page

Nothing here imports torch. Only `hearing` touches a model. All figures are counted from what it
noted, so a report can be made again without running the model.
"""

from kiku.calibration import Calibration
from kiku.evaluate.chance import Difference, Interval
from kiku.evaluate.evaluation import Comparison, Evaluation, compare, evaluate, read_evaluation
from kiku.evaluate.figures import Figures
from kiku.evaluate.hearing import HearingOptions
from kiku.evaluate.manifest import Manifest, Problem, Utterance, read_manifests
from kiku.evaluate.report import write_report
from kiku.evaluate.scoring import Scored
from kiku.evaluate.store import forget

__all__ = [
    "Calibration",
    "Comparison",
    "Difference",
    "Evaluation",
    "Figures",
    "HearingOptions",
    "Interval",
    "Manifest",
    "Problem",
    "Scored",
    "Utterance",
    "compare",
    "evaluate",
    "forget",
    "read_evaluation",
    "read_manifests",
    "write_report",
]
