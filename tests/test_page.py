import html.parser

from known_nets import plain, stack


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_stands_alone(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("of an earlier report")
    stack().save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    seen = Page(path.read_text(encoding="utf-8"))
    assert not {tag for tag, _ in seen.tags} & {"script", "link", "iframe"}
    images = [attributes for tag, attributes in seen.tags if tag == "img"]
    # The updates; two plots and the eigenvalues of each layer, and the gates of one.
    assert len(images) == 1 + 3 * 3 + 1
    for attributes in images:
        assert attributes["src"].startswith("data:image/svg+xml;base64,")
        assert attributes["alt"]
    assert all("://" not in str(attributes) for _, attributes in seen.tags)
    assert "url(" not in path.read_text(encoding="utf-8")
    # A name is text, never markup.
    assert "b>a" in seen.words
    text = " ".join(" ".join(seen.words).split())
    for verdict in stack().verdicts:
        for sentence in (verdict.meaning, verdict.remedy):
            assert sentence[1:] in text


def test_a_notebook_shows_the_page(tmp_path):
    plain().save(tmp_path / "page.html")
    assert plain()._repr_html_() in (tmp_path / "page.html").read_text(encoding="utf-8")
