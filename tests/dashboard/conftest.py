"""A page of SAEDashboard, taken apart."""

import json
import re
from html.parser import HTMLParser

import pytest


class Page(HTMLParser):
    """Elements and scripts of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.text = [], [], text
        self.feed(text)
        (found,) = re.findall(r"^ *return (\{.*\});$", self.scripts[-1], re.MULTILINE)
        self.shown = json.loads(found)["DASHBOARD_DATA"]

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.elements and self.elements[-1] == "script":
            self.scripts[-1] += data


@pytest.fixture
def read_page():
    return lambda path: Page(path.read_text(encoding="utf-8"))
