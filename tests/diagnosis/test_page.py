"""The page: one file that needs nothing else, says what was found, and shows names as they are."""

import html
import re

import numpy as np

from rfdiff.diagnosis import render_page, statements
from tests.diagnosis.made_up import diagnosis

FIGURES = {"Losses.": (b"<svg>wide</svg>", b"<svg>narrow</svg>")}


def test_the_page_stands_alone_and_says_everything() -> None:
    data = diagnosis()
    page = render_page(data, FIGURES)
    assert re.findall(r"<script|<link|@import|url\(|http", page) == []
    assert page.count("data:image") == 2
    assert all(source.startswith("data:image/svg+xml;base64,") for source in re.findall(r'(?:src|srcset)="([^"]*)', page))
    assert "<ant>" not in page and "&lt;ant&gt;" in page
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page.replace("&lt;ant&gt;", "ANT")))).replace("\xa0", " ")
    for one in statements(data):
        assert one.text.replace("<ant>", "ANT")[1:] in text
    for heading in ("Question", "Answer", "What would help", "Data", "Every diffusion time", "How far to trust it", "How it was made"):
        assert f"<h2>{heading}</h2>" in page
    assert "divided by: 1.23457" in text and "not asked for" in text


def test_without_networks_the_page_says_so() -> None:
    page = render_page(diagnosis(noise=0), FIGURES)
    assert "nothing here is checked on them" in page and "Nothing was measured" in page and "borne out" not in page


def test_many_classes_have_no_table_of_angles() -> None:
    assert "Angles between class means" in render_page(diagnosis(num_classes=3), FIGURES)
    assert "Angles between class means" not in render_page(diagnosis(), FIGURES)


def test_times_that_never_come_are_words() -> None:
    data = diagnosis()
    data["time"] = data["time"].where(data["quantity"] != "tau_stop", np.inf)
    assert "never" in render_page(data, FIGURES)
