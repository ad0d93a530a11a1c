"""The built pages say what their sources say: Markdown eats nothing of a formula, and signatures are those of the code.

They are built once, as `mkdocs build --strict` does; without the packages of the extra `docs` all of this is skipped.
"""

import dataclasses
import functools
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")
pytest.importorskip("math_core")

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "README.md")

# What Markdown reads as its own where a formula means something else.
MARKS = "<>_^~*"
HTML = {
    *(
        "a",
        "article",
        "blockquote",
        "br",
        "button",
        "code",
        "dd",
        "del",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "h1",
        "h2",
    ),
    *(
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "img",
        "label",
        "li",
        "nav",
        "ol",
        "p",
        "path",
        "pre",
        "small",
        "span",
        "strong",
        "summary",
    ),
    *("svg", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
MATHML = {
    *("math", "menclose", "mfrac", "mi", "mn", "mo", "mover", "mpadded", "mphantom", "mroot", "mrow", "ms", "mspace"),
    *("msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover"),
}
EMPTY = {"br", "hr", "img", "path", "input"}


class Article(HTMLParser):
    """The article of a page: its tags, its text without code and formulas, its emphasised texts, its formulas."""

    def __init__(self, page: str):
        super().__init__()
        self.path: list[tuple[str, str]] = []
        self.tags: Counter[str] = Counter()
        self.text = ""
        self.signatures: dict[str, str] = {}
        self.emphasis: list[tuple[str, str, str]] = []
        self.formulas: list[str] = []
        self.objects: list[str] = []
        self._open: list[int] = []
        self._closed: list[tuple[int, int]] = []
        self.feed(re.search(r"<article.*?</article>", page, re.DOTALL)[0])
        self.close()
        for start, end in self._closed:
            self.emphasis.append((self.text[start - 1 : start], self.text[start:end], self.text[end : end + 1]))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        kinds = given.get("class") or ""
        self.tags[tag] += 1
        if tag in EMPTY:
            return
        if tag in ("code", "math"):
            # What stands for it in the text, so that emphasis beside it is beside something.
            self.text += "" if self._hidden() else "□"
        self.path.append((tag, kinds))
        if tag == "math":
            self.formulas.append("")
        if tag in ("em", "strong"):
            self._open.append(len(self.text))
        if "doc-heading" in kinds:
            self.objects.append(given["id"])
        if "doc-signature" in kinds:
            self.signatures[self.objects[-1]] = ""

    def handle_endtag(self, tag):
        if tag in EMPTY:
            return
        while self.path.pop()[0] != tag:
            pass
        if tag in ("em", "strong"):
            self._closed.append((self._open.pop(), len(self.text)))

    def handle_data(self, data):
        if self._inside("doc-signature"):
            self.signatures[self.objects[-1]] += data
        elif any(tag == "math" for tag, _ in self.path):
            self.formulas[-1] += data
        elif not self._hidden():
            self.text += data

    def _inside(self, kind):
        return any(kind in kinds for _, kinds in self.path)

    def _hidden(self):
        shown = not any(tag in ("code", "pre", "svg", "math") for tag, _ in self.path)
        return not shown or any(self._inside(kind) for kind in ("headerlink", "doc-heading", "doc-label", "lineno"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def articles(site):
    found = {}
    for source in SOURCES:
        name = str(source.relative_to(ROOT / "docs"))
        page = site / name.removesuffix(".md").removesuffix("index") / "index.html"
        found[name] = Article(page.read_text(encoding="utf-8"))
    return found


def resolve(path):
    """The object that a page of the reference names, and the class or module that it is of."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            owner = thing = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for name in parts[length:]:
            # Without running properties, where it can be; the package loads its own names when they are asked for.
            owner, thing = (
                thing,
                inspect.getattr_static(thing, name) if inspect.isclass(thing) else getattr(thing, name),
            )
        return owner, thing
    raise AssertionError(f"{path} is nothing that can be imported")


source_of = functools.cache(inspect.getsource)


def docstring(path):
    owner, thing = resolve(path)
    thing = getattr(thing, "__func__", thing)
    if isinstance(thing, property | functools.cached_property):
        thing = thing.fget if isinstance(thing, property) else thing.func
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isroutine(thing):
        return inspect.cleandoc(thing.__doc__ or "")
    # The text below a field or a constant is nowhere but in the source.
    name = path.rpartition(".")[2]
    found = re.search(rf'^ *{name}(?::[^\n]*|) *(?:=[^\n]*|)\n *"""(.*?)"""', source_of(owner), re.M | re.DOTALL)
    return inspect.cleandoc(found[1]) if found else ""


def without_code(found):
    """Nothing in the place of an indented block, unless it goes on with an item of a list."""
    before = found.string[: found.start()].rstrip().rpartition("\n")[2]
    return found[0] if re.match(r" |[-*] |\d+\. ", before) else ""


def prose(text):
    """A Markdown text without code, formulas, targets of links and comments."""
    text = re.sub(r"^( *)```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]+\$", "", text, flags=re.DOTALL)
    text = re.sub(r"(?<=\n\n)(?: {4}[^\n]*(?:\n|\Z)|\n(?= {4}))+", without_code, text)
    text = re.sub(r"^> ", "", text, flags=re.MULTILINE)
    text = re.sub(r"``.*?``|`[^`]*`", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def marks(text):
    return Counter(character for character in text if character in MARKS)


def test_no_page_has_a_tag_that_html_does_not_know(articles):
    assert {name: set(article.tags) - HTML - MATHML for name, article in articles.items()} == {
        name: set() for name in articles
    }


def test_every_formula_is_drawn(articles):
    number = 0
    for source in SOURCES:
        name = str(source.relative_to(ROOT / "docs"))
        article, text = articles[name], source.read_text(encoding="utf-8")
        text = re.sub(r"`[^`]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))
        displayed = re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)
        formulas = displayed + re.findall(r"\$([^$]+)\$", re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL))
        assert len(article.formulas) == len(formulas), name
        for drawn, written in (("⟨", r"\\langle"), ("‖", r"\\[lr]Vert"), ("\u2217", r"[\^_]\{?\*")):
            shown = sum(formula.count(drawn) for formula in article.formulas)
            assert shown == len(re.findall(written, " ".join(formulas))), (name, written)
        assert re.findall(r"\$|\\[()\[\]]|\\[a-z]+", article.text) == [], name
        number += len(formulas)
    assert number > 2000


def test_nothing_of_the_text_is_eaten(articles):
    # What is not drawn as a formula is shown as it stands: stars, underscores, brackets, but for those that emphasise.
    for source in SOURCES:
        name = str(source.relative_to(ROOT / "docs"))
        article, text = articles[name], source.read_text(encoding="utf-8")
        shown = {*article.objects, *re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)}
        text = re.sub(r"^:::.*?(?=^\S|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
        wanted = marks("".join(map(prose, [text, *map(docstring, shown)])))
        found = marks(article.text) + Counter({"*": 2 * article.tags["em"] + 4 * article.tags["strong"]})
        assert found == wanted, name


def test_emphasis_is_of_words(articles):
    for name, article in articles.items():
        for before, text, after in article.emphasis:
            assert re.fullmatch(r"[\s(\"“]?", before), (name, text)
            assert re.fullmatch(r"[\s,.:;)!?\"”]?", after), (name, text)
            assert not re.search(r"\b_|_\b|[\^<>|~*\\]", text), (name, text)
            assert re.search(r"[A-Za-z]{3}|□|^\(i+\)$|^\d\.$", text), (name, text)


def test_no_item_of_a_list_is_swallowed_by_the_text_before_it(articles):
    for name, article in articles.items():
        begun = re.findall(r"^\s*(\d+\.|[-*]) +\w", article.text, re.MULTILINE)
        assert set(begun) <= {text for _, text, _ in article.emphasis}, name


def parameters(signature):
    """Names of the parameters of a rendered signature in their order, and whether each has a default."""
    inner = re.search(r"\((.*)\)(?: *->.*)?$", " ".join(signature.split()))[1]
    parts, defaults, depth, quote = [""], [False], 0, ""
    for character in inner:
        if quote or character in "\"'":
            quote = "" if character == quote else quote or character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif not depth and character == ",":
            parts, defaults = [*parts, ""], [*defaults, False]
            continue
        elif not depth and character == "=":
            defaults[-1] = True
        parts[-1] += character
    names = [re.match(r"\s*(\*{0,2}\w*)", part)[1] for part in parts]
    return [(name, given) for name, given in zip(names, defaults, strict=True) if name not in ("*", "/", "")]


def true_parameters(path):
    owner, thing = resolve(path)
    found = inspect.signature(getattr(owner, path.rpartition(".")[2]) if inspect.isclass(owner) else thing)
    marked = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    pairs = [
        (marked.get(parameter.kind, "") + name, parameter.default is not inspect.Parameter.empty)
        for name, parameter in found.parameters.items()
    ]
    return [pair for pair in pairs if pair[0] != "self"]


def test_every_signature_is_that_of_the_code(articles):
    number, wrong = 0, {}
    for article in articles.values():
        for path, signature in article.signatures.items():
            _, thing = resolve(path)
            if "(" not in signature or isinstance(thing, property):
                continue
            number += 1
            if parameters(signature) != true_parameters(path):
                wrong[path] = (parameters(signature), true_parameters(path))
    assert wrong == {}
    assert number > 300


def test_every_class_that_takes_arguments_shows_them(articles):
    for name, article in articles.items():
        for path in set(article.objects) - set(article.signatures):
            _, thing = resolve(path)
            if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
                assert true_parameters(path) == [], (name, path)
