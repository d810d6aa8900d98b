import html.parser

import pytest
from known_nets import X, Y, compiled, plain, simple, stack

from kerasrnn import layers
from kerasrnn.diagnostics import health_report
from kerasrnn.diagnostics.health import page
from kerasrnn.diagnostics.health.verdict import grouped, in_other_layers


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
    text = " ".join("".join(seen.words).split())
    for verdict, others in grouped(stack().verdicts):
        same = [in_other_layers(others)] if others else []
        for sentence in (verdict.meaning, verdict.remedy, *same):
            assert sentence[1:].replace("`", "") in text


def test_a_notebook_shows_the_page(tmp_path):
    plain().save(tmp_path / "page.html")
    assert plain()._repr_html_() in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            "in a_stack_of_layers/rnn_1/forward_cell it",
            ["in a_stack_of_layers/", "rnn_1/", "forward_cell it"],
        ),
        (
            "bias_initializer=kerasrnn.initializers.Chrono(T_max=43), in",
            ["bias_initializer=", "kerasrnn.", "initializers.", "Chrono(T_max=43), in"],
        ),
        ("a/short/name, log_rho=x", None),
        ("1234567890.1234567890/1234567890=1234567890", None),
        ("<b>/c & d", None),
    ],
)
def test_a_long_name_may_break_between_its_parts_and_a_number_never(words, parts):
    seen = Page(page._text(words))
    assert {tag for tag, _ in seen.tags} <= {"wbr"}
    assert seen.words == (parts or [words])


def test_names_in_backticks_are_code():
    report = health_report(compiled(simple(layers, 0.5)), X, Y)
    (verdict,) = report.verdicts
    assert "`kerasrnn.layers.LSTM`" in verdict.remedy
    shown = page.fragment(report)
    assert "`" not in shown
    assert "<code>kerasrnn.layers.LSTM</code>" in shown
    assert f"steps = {verdict.numbers['steps']}" in shown
