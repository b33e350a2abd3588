import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from dnl_video.report import figures as f
from dnl_video.report.document import Document, Section, Table, Text
from dnl_video.report.render_html import STYLE, render_html
from tests.report.pages import Outline


def small_figure():
    figure, axes = f.new_figure()
    f.interval_bars(axes, ["a$b$c", "日本 & <x>"], [0.5, 0.9], [0.4, 0.8], [0.6, 1.0])
    f.percent_axis(axes, "x")
    return figure


def test_svg_has_the_colours_of_the_page_and_prefixed_ids(recwarn):
    svg = f.to_svg(small_figure(), "bars", 'two "bars" & more', min_width=300)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'two "bars" & more'
    assert "min-width:min(300px,538px)" in root.get("style")
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids
    assert all(i.startswith("bars-") for i in ids)
    assert "currentColor" in svg
    assert "var(--grid, " in svg
    assert f.INK not in svg
    texts = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a$b$c", "日本 & <x>", "100%"} <= set(texts)
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert not recwarn.list  # no warning about glyphs that only the browser's fonts have


def test_svg_labels_are_unchanged():
    names = ['the id="x"', "url(#a)", f.INK, "<g>", "--> --"]
    figure, axes = f.new_figure()
    f.interval_bars(axes, names, [0.5] * 5, [0.4] * 5, [0.6] * 5)
    root = ElementTree.fromstring(f.to_svg(figure, "bars", "alt"))
    assert set(names) <= {"".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")}


def test_bars_and_whiskers_have_the_right_length():
    _, axes = f.new_figure()
    f.interval_bars(axes, ["a", "b"], [0.5, 0.9], [0.4, 0.8], [0.6, 1.0])
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0.9]
    segments = axes.containers[1].lines[2][0].get_segments()
    np.testing.assert_allclose([s[:, 0] for s in segments], [[0.4, 0.6], [0.8, 1.0]])
    assert axes.get_ylim() == (1.5, -0.5)  # the first on top


def test_small_multiples_share_axes_and_number_the_last_panel_of_each_column():
    figure, panels = f.small_multiples(list("abcd"), 1.0)
    panels[0].plot([0, 7], [0, 3])
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes] == list("abcd")
    assert all(axes.get_xlim() == panels[0].get_xlim() and axes.get_ylim() == panels[0].get_ylim() for axes in panels)
    below = [any(label.get_visible() for label in axes.get_xticklabels()) for axes in panels]
    assert below == [False, True, True, True]


def test_drawing_does_not_change_the_rc_params():
    before = dict(mpl.rcParams)
    f.to_svg(small_figure(), "a", "alt")
    assert dict(mpl.rcParams) == before


def test_drawing_loads_neither_pyplot_nor_torch():
    code = (
        "import sys; from dnl_video.report.figures import new_figure, to_svg; to_svg(new_figure()[0], 'a', 'b'); "
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_labels_are_short_and_on_one_line():
    assert f.plain("a  b\nc") == "a b c"
    assert f.plain("costs $5") == r"costs \$5"
    assert f.plain("caf\udce9 \x1b[0m") == r"caf\udce9 \u001b[0m"
    cut = f.plain("a" * 30 + "z" * 30)
    assert (len(cut), cut[0], cut[-1]) == (28, "a", "z")
    assert f.plain("x" * 28) == "x" * 28


def show(*nodes):
    return render_html(Document("A & B", nodes, []))


def test_a_table_escapes_and_names_its_rows():
    rows = [["<a>", 0.01], ["b", None]]
    outline = Outline(show(Table("<c>", ["<n>", "v"], rows, "l%", sortable=True)))
    caption = "<c>. Click a heading to sort; click again to reverse."
    assert outline.tables == {caption: [["<n>", "v"], ["<a>", "1.0%"], ["b", ""]]}
    assert outline.all("*", "data-sort") == ["0.01"]
    assert outline.all("th", "aria-sort") == ["none", "none"]
    with pytest.raises(ValueError, match="zip"):
        show(Table("c", ["a"], [["1", "2"]], "l"))


def test_a_long_table_scrolls_in_a_box():
    rows = [[str(i)] for i in range(41)]
    assert 'class="scroll tall"' in show(Table("c", ["n"], rows, "r"))
    assert 'class="scroll tall"' not in show(Table("c", ["n"], rows[1:], "r"))


def test_a_page_links_its_sections():
    sections = [Section("First part", [Text("x")]), Section("Empty", []), Section("Second", [Text("y")])]
    outline = Outline(render_html(Document("A & B", [], sections)))
    assert outline.all("a", "href") == ["#first-part", "#second"]
    assert outline.all("h2", "id") == ["first-part", "second"]
    assert "A & B" in outline.text


def contrast(one, other):
    """WCAG 2.2's contrast ratio of two colours such as "#1c1e21"."""

    def luminance(color):
        parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_have_enough_contrast_on_light_and_dark_pages():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", rule)) for rule in re.findall(r":root \{([^}]*)\}", STYLE)[:2]
    )
    for theme in (light, dark):
        for pair in ("text page", "soft page", "soft band", "link page", "warn warn-band"):
            text, ground = pair.split()
            assert contrast(theme[text], theme[ground]) >= 4.5, pair
        assert all(contrast(color, theme["page"]) >= 3 for color in f.COLORS)
