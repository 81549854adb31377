import re
from html.parser import HTMLParser

import pytest

from etude.evaluation.charts import ticks
from etude.evaluation.html import render_report, write_report
from etude.evaluation.losses import Losses
from etude.evaluation.report import build_report, pick_examples
from etude.trajectory import Message
from tests.evaluation.samples import counted, lost, report, task, tasks

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = "</div><script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7*7 }}\" onload=\"x"


class Page(HTMLParser):
    """Checks that every element is closed, and keeps tags, attributes and text."""

    def __init__(self, html: str):
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += "" if self.stack and self.stack[-1] == "style" else data


def full(says: str = "done", name: str = "demo"):
    before = Losses({**lost(general=[1.0, 0.0, 1.0]).figures}, {"Why?": [says]})
    after = Losses({**lost(general=[1.0, 0.0, 0.0]).figures}, {"Why?": [f"I can't say {says}"]})
    played = [task("a", False, says=says)], [task("a", True, says=f"{says}!")]
    played[0][0].messages.append(Message("tool", says))
    return report(
        5, 30, losses_before=before, losses_after=after,
        cost={says: {"seconds": 60.0, "flops": 3e12}, "rest": {"seconds": 180.0}},
        curves=[{"stage": says, "step": n, "reward": n / 9, says: 1.0, "bad": float("nan")} for n in range(60)],
        examples=pick_examples(*played), name=name, notes=[says], nouns={"shop": says},
    )  # fmt: skip


def test_the_page_is_whole_and_tells_the_verdict():
    got = full()
    page = Page(render_report(got))
    assert "Better" in page.text
    assert got.reason in page.text
    for words in ("Gain and loss", "Learning curves", "Cost", "Episodes before and after", "please do a", "one call"):
        assert words in page.text
    assert page.tags.count("svg") == len(got.rows) + 1 + 2  # one per row, the bars, two curves: NaN is not drawn


def test_hostile_words_stay_words():
    page = Page(render_report(full(HOSTILE, name=HOSTILE)))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("alert(1)") > 8
    named = {HOSTILE: tasks(1, 3, "other")}  # a set's name is drawn in the bars
    page = Page(render_report(build_report(counted(5, **named), counted(30, **named))))
    assert not {"script", "img"} & set(page.tags)
    assert "{{ 7*7 }}" in page.text


def test_the_page_loads_nothing():
    html = render_report(full())
    page = Page(html)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href", "srcset", "action", "xlink:href")]
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import|https?://", html)


def test_a_report_without_extras_has_no_empty_sections(tmp_path):
    page = Page(write_report(report(5, 30), tmp_path / "new").read_text())
    for words in ("Learning curves", "Episodes before and after", "Requests refused"):
        assert words not in page.text
    assert "id" in dict(page.attributes)
    assert ("id", "cost") not in page.attributes


def test_what_both_episodes_begin_with_is_shown_once():
    assert Page(render_report(full())).text.count("please do a") == 1


def test_drawings_have_words_and_rows_have_headers():
    page = Page(render_report(full()))
    assert sum(name == "aria-label" for name, _ in page.attributes) == page.tags.count("svg")
    assert page.attributes.count(("scope", "row")) >= len(full().rows)


def x_of_dot(html: str, name: str) -> float:
    """Where a row's point is drawn, 0..150; 75 is no change."""
    row = next(r for r in html.split("<tr>") if f'scope="row">{name}' in r)
    match = re.search(r'<circle cx="([\d.]+)"', row)
    assert match
    return float(match[1])


def test_right_is_better_whatever_the_unit():
    falls = {"KL": [0.2, 0.21, 0.19], "general": [0.5, 0.6, 0.5]}
    zero = {"KL": [0.12, 0.13, 0.11], "general": [0.56, 0.66, 0.56]}
    worse = render_report(report(30, 5, losses_before=lost(**zero), losses_after=lost(**falls)))
    fine = render_report(report(5, 30, losses_before=lost(**falls), losses_after=lost(**zero)))
    for name in ("success", "KL", "general"):
        assert x_of_dot(worse, name) < 74
        assert x_of_dot(fine, name) > 76


def test_a_loss_off_the_axis_is_an_arrow():
    html = render_report(report(5, 30, losses_before=lost(KL=[0.0, 0.0]), losses_after=lost(KL=[5.0, 6.0])))
    row = next(r for r in html.split("<tr>") if 'scope="row">KL' in r)
    assert "<polygon" in row


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.5, 1]), (0.2, 0.31, [0.2, 0.25, 0.3, 0.35]), (-3, 4, [-5, 0, 5]), (2, 2, [2, 3]), (0, 0, [0, 0.5])],
)
def test_ticks_are_round_and_span_the_values(low, high, expected):
    got = ticks(low, high)
    assert got == pytest.approx(expected)


def test_many_tasks_draw_quickly_enough_to_be_one_page():
    got = report(5, 30, examples=pick_examples(tasks(0, 40), tasks(40, 40), count=40))
    assert render_report(got).count("<details") == 40
