"""Hooks of MkDocs: the README as the start, and a page for each file of the repository that a page
links to."""

import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
# A link out of docs/, perhaps to a line or a heading; one of a file of the repository may lead into
# docs/.
_OUT = re.compile(r"\]\((?:\.\./)+(?!docs/)([\w./-]+\.\w+)(?:#L(\d+)|(#[a-z][\w-]*))?\)")
_BACK = re.compile(r"\]\((?:\.\./)+docs/")


def on_files(files, config):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start = re.sub(r"\]\((?!https?:|docs/|#)", "](../", readme).replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=start))
    pages = (file.content_string for file in files.documentation_pages())
    for path in sorted({match[1] for page in pages for match in _OUT.finditer(page)}):
        text = (ROOT / path).read_text(encoding="utf-8")
        if not path.endswith(".md"):
            # More marks than any fence inside has.
            text = f'# {path}\n\n`````{path.rpartition(".")[2]} linenums="1"\n{text}`````\n'
        files.append(File.generated(config, _page_of(path), content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    up = "../" * page.file.src_uri.count("/")

    def inside(match):
        place = f"#__codelineno-0-{match[2]}" if match[2] else match[3] or ""
        return f"]({up}{_page_of(match[1])}{place})"

    return _BACK.sub(f"]({up}", _OUT.sub(inside, markdown))


def _page_of(path):
    return f"source/{path.removesuffix('.md')}.md"
