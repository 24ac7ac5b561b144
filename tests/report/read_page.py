"""What a page holds, read back from its HTML without a browser."""

import json
from html.parser import HTMLParser

_EMPTY = {"meta", "rect", "path", "circle"}


class Page(HTMLParser):
    """Elements, text and data of a page."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements = []
        self.scripts = []
        self.words = []
        self.raw = {}
        self._open = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self._open == []
        self.plots = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] == ["script"]:
            self.scripts[-1] += data
            return
        self.raw.setdefault(self._open[-1] if self._open else "", []).append(data)
        if data.strip() and self._open[-1:] != ["style"]:
            self.words.append(" ".join(data.split()))

    @property
    def text(self):
        return " ".join(self.words)

    def elements_text(self, tag):
        """Text right within elements of a kind, as it is."""
        return "".join(self.raw.get(tag, []))

    @property
    def sections(self):
        return [attributes["id"] for tag, attributes in self.elements if tag == "section"]

    def strings(self, value=None):
        """Every text in the data of the plots."""
        value = self.plots if value is None else value
        if isinstance(value, dict | list):
            items = value.values() if isinstance(value, dict) else value
            return [text for item in items for text in self.strings(item) if item is not None]
        return [value] if isinstance(value, str) else []
