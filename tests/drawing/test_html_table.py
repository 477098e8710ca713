"""A notebook shows tables."""

from html.parser import HTMLParser

from fcnlab.drawing.html_table import html_table


class Cells(HTMLParser):
    """Collects the text of each cell, and the tags."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append("")

    def handle_data(self, data):
        self.cells[-1] += data


def test_names_are_text_and_not_html():
    found = Cells(html_table("a <b> & c", ["class"], [["<script>"], ["x & y"]], [(1, 2, 3)]))
    assert found.cells == ["a <b> & c", "class", "■ <script>", "x & y"]
    assert {"script", "b"}.isdisjoint(found.tags)
    assert found.tags.count("tr") == 3
