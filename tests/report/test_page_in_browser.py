"""The pages in a browser; needs Chromium."""

import re

import numpy as np
import pytest

from dnl_video.report import build_report, save_report
from dnl_video.results.reader import read_predictions
from tests.browser import chromium
from tests.report.directories import make_meta, make_videos, report_of, write_large

# Elements wider than the page and outside a scrolling box.
OVERFLOWING = """[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll") &&
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
COLUMN = """(n => [...document.querySelector("table.sortable").tBodies[0].rows].map(r => r.cells[n].textContent))(%d)"""


@pytest.fixture(scope="module")
def page():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory, report):
    """Reports of 8 and of 60 classes, as (report, file)."""
    many = build_report(read_predictions(write_large(tmp_path_factory.mktemp("many"), 600, 60, num_clips=3)))
    grey = np.full((6, 96, 128, 3), 128, dtype=np.uint8)
    return [(r, save_report(r, tmp_path_factory.mktemp("page"), lambda path: grey)[-1]) for r in (report, many)]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("which", [0, 1])
def test_page_fits_without_console_errors(page, pages, width, which):
    page.open(pages[which][1], width)
    assert page.problems == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate(OVERFLOWING) == []
    sizes = page.evaluate(
        "[...document.querySelectorAll('figure svg, figure img')].map(e => e.getBoundingClientRect())"
        ".map(r => [r.width, r.height])"
    )
    assert len(sizes) == (4, 7)[which] + len(pages[which][0]["confident_mistakes"])
    assert all(w > 200 and h > 60 for w, h in sizes)
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_a_click_on_a_heading_sorts_and_another_reverses(page, pages):
    report, file = pages[0]
    rows = report["per_class"]
    page.open(file, 390)
    assert page.evaluate(COLUMN % 0) == [c["name"] for c in rows]
    accuracy = [f"{100 * value:.1f}%" for value in sorted(c["accuracy"] for c in rows)]
    page.click("table.sortable th:nth-child(3) button")
    assert page.evaluate(COLUMN % 2) == accuracy[::-1]
    assert page.evaluate("document.querySelector('th:nth-child(3)[aria-sort=descending]') !== null")
    page.click("table.sortable th:nth-child(3) button")
    assert page.evaluate(COLUMN % 2) == accuracy
    page.click("table.sortable th:nth-child(1) button")
    assert page.evaluate(COLUMN % 0) == sorted(c["name"] for c in rows)
    assert page.evaluate("document.querySelectorAll('table.sortable:first-of-type [aria-sort=ascending]').length") == 1
    assert page.problems == []


def test_empty_cells_come_last_whatever_the_order(page, tmp_path):
    report = report_of(tmp_path, list(make_videos(24))[:5], make_meta(5))  # three classes without videos
    file = save_report(report, tmp_path)[-1]
    page.open(file, 1280)
    for _ in range(2):
        page.click("table.sortable th:nth-child(3) button")
        assert page.evaluate(COLUMN % 2)[5:] == ["", "", ""]


def test_wide_tables_say_so_and_keep_their_first_column(page, pages):
    for width, wide in ((1280, False), (390, True)):
        page.open(pages[0][1], width)
        box = "document.querySelector('table.sortable').parentNode"
        assert page.evaluate(f"{box}.classList.contains('wide')") == wide
        hint = page.evaluate("getComputedStyle(document.querySelector('table.sortable caption'), '::after').content")
        assert ("scroll sideways" in hint) == wide
    left = f"{box}.querySelector('tbody th').getBoundingClientRect().left"
    before = page.evaluate(left)
    page.evaluate(f"{box}.scrollLeft = 100")
    assert page.evaluate(f"{box}.scrollLeft") == 100
    assert page.evaluate(left) == before


def test_figures_are_as_wide_as_the_text(page, pages):
    for width in (1280, 390):
        page.open(pages[0][1], width)
        text = page.evaluate("document.querySelector('main p').getBoundingClientRect().width")
        shown = page.evaluate("[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().width)")
        charts = shown[:2] + shown[3:]  # the confusion matrix of 8 classes is smaller
        assert all(abs(w - text) < 2 for w in charts)


def test_dark_mode(page, report, tmp_path):
    curves = {"val/top1": [[1, 0.25], [2, 0.5]], "train/loss": [[1, 2.0], [2, 1.0]]}
    page.open(save_report({**report, "training": curves}, tmp_path)[-1], 1280, dark=True)
    ink, paper = (
        page.evaluate(f"getComputedStyle({element}).{name}.match(/\\d+/g).map(Number)")
        for element, name in (("document.querySelector('svg text')", "fill"), ("document.body", "backgroundColor"))
    )
    assert min(ink) > 200
    fills = page.evaluate("[...document.querySelectorAll('svg text')].map(e => getComputedStyle(e).fill)")
    assert all(min(map(int, re.findall(r"\d+", fill))) > 200 for fill in fills)
    assert max(paper) < 60


def test_printed_tables_are_complete_and_fit(page, pages):
    page.open(pages[1][1], 720, printed=True)
    assert page.evaluate("[...document.querySelectorAll('.tall')].every(e => e.clientHeight >= e.scrollHeight)")
    assert page.evaluate("Math.max(...[...document.querySelectorAll('table')].map(t => t.offsetWidth)) <= 720")
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
