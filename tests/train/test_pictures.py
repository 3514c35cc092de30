"""What is drawn is what was measured; nothing in a name can break a page."""

import re
import xml.etree.ElementTree as Xml

import numpy as np
import pytest

from kiku.train.manifest import TimedWord
from kiku.train.pictures import curve_svg, pictures_page, words_svg

SPACE = "{http://www.w3.org/2000/svg}"


def lines(svg: str) -> list[list[tuple[float, float]]]:
    found = Xml.fromstring(svg).iter(f"{SPACE}polyline")
    return [
        [tuple(map(float, point.split(","))) for point in one.attrib["points"].split()]  # pyright: ignore
        for one in found
    ]


def test_a_curve_goes_from_its_largest_value_to_its_last() -> None:
    rows = [
        {"step": 10.0, "loss": 4.0, "token_accuracy": 0.1, "frames_per_s": 50.0},
        {"step": 20.0, "loss": 2.0, "token_accuracy": 0.7, "frames_per_s": 50.0, "dev_loss": 3.0},
        {"step": 40.0, "loss": 0.0, "token_accuracy": 1.0, "frames_per_s": 25.0},
    ]
    loss, dev_loss, wrong, dev_wrong, speed = lines(curve_svg(rows))
    xs = [x for x, _ in loss]
    assert np.diff(xs).tolist() == pytest.approx([160.0, 320.0])
    top, middle, bottom = (y for _, y in loss)
    assert middle == pytest.approx((top + bottom) / 2)
    assert dev_loss == [(xs[1], pytest.approx(top + (bottom - top) / 4))]
    heights = [y for _, y in wrong]
    assert heights[2] - heights[0] == pytest.approx(110.0)  # none is wrong at the end
    assert heights[1] - heights[0] == pytest.approx(110.0 * 2 / 3, abs=0.1)
    assert dev_wrong == []
    slow = [y for _, y in speed]
    assert slow[2] - slow[0] == pytest.approx(55.0)
    assert "step 40" in curve_svg(rows)


@pytest.mark.parametrize("rows", [[], [{"step": 1.0}], [{"step": 1.0, "loss": 0.0}]])
def test_little_can_be_drawn_too(rows) -> None:
    assert len(lines(curve_svg(rows))) == 5


def test_words_stand_where_they_are_said() -> None:
    loudness = np.full(100, 1e-5, np.float32)
    loudness[50:75] = 0.1
    svg = words_svg([TimedWord("<go>", 0.5, 0.75), TimedWord("you", 0.8, 0.8)], loudness, 0.01)
    box, narrow = Xml.fromstring(svg).iter(f"{SPACE}rect")
    assert (float(box.attrib["x"]), float(box.attrib["width"])) == (60.0, 30.0)
    assert float(narrow.attrib["width"]) == 1.0
    (line,) = lines(svg)
    assert {y for x, y in line if 60 <= x < 90} == {0.0}  # the loudest is at the top
    assert {y for x, y in line if x < 60} == {70.0}
    texts = [one.text for one in Xml.fromstring(svg).iter(f"{SPACE}text")]
    assert texts == ["<go>", "you"]
    assert lines(words_svg([], np.zeros(0, np.float32), 0.01)) == [[]]


def test_a_page_shows_what_it_is_given() -> None:
    made = pictures_page("Words", [("<script>.wav", "a & b", "<svg/>")], more=1200)
    assert "&lt;script&gt;.wav" in made
    assert "a &amp; b" in made
    assert "<div><svg/></div>" in made
    assert "1,200 more" in made
    assert not re.search("script(?!&gt;)", made)
