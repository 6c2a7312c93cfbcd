r"""Claims of strangers: text that tries to be markup, a script, an address or a terminal's escape.

``ATTACKS`` are statements, each with the text that a reader finds in the place of the formula;
None: the statement itself, as LaTeX.
"""

import http.server
import io
import json
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import display
from jaxnn.display import mathml
from jaxnn.verify import (
    Counterexample,
    Finding,
    Verdict,
    Worst,
    assert_holds,
    derivation,
    real,
    report,
)
from jaxnn.verify.claims import Description
from jaxnn.verify.report import to_html, to_json
from jaxnn.verify.verdict import DerivationVerdict
from tests.verify.samples import made

SERVER = "http://127.0.0.1:9"
SCRIPT = "<script>document.title='owned'</script>"
IMAGE = f"<img src='{SERVER}/beacon.png' onerror='document.title=1'/>"

ATTACKS = [
    (rf"\text{{{SCRIPT}}}", SCRIPT),
    (rf"\text{{{SCRIPT}}} 2x", f"{SCRIPT}2x"),
    (rf"\textbf{{{SCRIPT}}}", SCRIPT),
    (rf"\mbox{{{SCRIPT}}}", SCRIPT),
    (rf"\hbox{{{SCRIPT}}}", SCRIPT),
    (rf"\tag{{{SCRIPT}}}", f"({SCRIPT})"),
    (rf"\verb|{SCRIPT}|", SCRIPT),
    (rf"\text{{{IMAGE}}}", IMAGE),
    (rf"\text{{<svg/onload=fetch('{SERVER}/svg')>}}", f"<svg/onload=fetch('{SERVER}/svg')>"),
    (rf"\text{{<iframe src={SERVER}/f></iframe>}}", f"<iframe src={SERVER}/f></iframe>"),
    (r"\text{<style>@import '//x';</style>}", "<style>@import '//x';</style>"),
    (r"\text{<style>*{display:none}</style>}", "<style>*{display:none</style>}"),
    (r"\text{<link rel=stylesheet href=//x>}", "<link rel=stylesheet href=//x>"),
    (r"\text{<base href=//x>}", "<base href=//x>"),
    (r"\text{<meta http-equiv=refresh content=0;//x>}", "<meta http-equiv=refresh content=0;//x>"),
    (r"\text{<form action=//x><button>2x}", "<form action=//x><button>2x"),
    (r"\text{<object data=//x><embed src=//x>}", "<object data=//x><embed src=//x>"),
    (r"\text{<video src=//x autoplay>}", "<video src=//x autoplay>"),
    (r"\text{</mtext></math></div></main><h1>holds}", "</mtext></math></div></main><h1>holds"),
    (r"\text{</style></title></textarea><b>}", "</style></title></textarea><b>"),
    (r"\text{<!-- 2x}", "<!-- 2x"),
    (r"\text{--><b>2x</b><!--}", "--><b>2x</b><!--"),
    (r"\text{<![CDATA[<b>2x</b>]]>}", "<![CDATA[<b>2x</b>]]>"),
    (r"\text{]]><b>2x</b>}", "]]><b>2x</b>"),
    (r"\text{<?xml version='1.0'?>}", "<?xml version='1.0'?>"),
    (r"\text{<!DOCTYPE x [<!ENTITY e '2x'>]>}", "<!DOCTYPE x [<!ENTITY e '2x'>]>"),
    (
        r"\text{<annotation-xml encoding='text/html'><b>}",
        "<annotation-xml encoding='text/html'><b>",
    ),
    (r"\text{<mglyph src=//x>}", "<mglyph src=//x>"),
    (
        r"\text{<maction actiontype=statusline xlink:href=//x>}",
        "<maction actiontype=statusline xlink:href=//x>",
    ),
    (
        r"\text{<a xlink:href='javascript:alert(1)'>2x</a>}",
        "<a xlink:href='javascript:alert(1)'>2x</a>",
    ),
    (r"\text{<p id=claim-1 class=refuted>}", "<p id=claim-1 class=refuted>"),
    (r"\text{&lt;script&gt;}", "&lt;script&gt;"),
    (r"\text{&#60;b&#62;2x&#60;/b&#62;}", None),
    (r"\text{&#x3c;b&#x3e;}", None),
    (r"\text{&#x202e;x2}", None),
    (r"\text{{{ 7 * 7 }}{% raw %}}", None),
    (r"\unicode{x3c}\text{b}\unicode{x3e}", "<b>"),
    (r"\unicode{x202e}2x", None),
    (r"\unicode{xd800}2x", None),
    (r"\unicode{xffffffff}2x", None),
    (r"\href{javascript:document.title='owned'}{2x}", None),
    (rf"\href{{{SERVER}/link}}{{2x}}", None),
    (r"\href{#claim-1}{2x}", None),
    (rf"\style{{background:url({SERVER}/css.png)}}{{2x}}", None),
    (r"\style{position:fixed;inset:0}{2x}", None),
    (r"\class{refuted}{2x}", None),
    (r"\class{x onclick=alert(1)}{2x}", None),
    (r"\color{red}2x", None),
    (r"\color{url(//x)}2x", None),
    (r"\textcolor{white}{2x}", None),
    (r"\colorbox{white}{2x}", None),
    (r"\fcolorbox{red}{white}{2x}", None),
    (r"\rule{50em}{50em} 2x", None),
    (r"\hspace{99999em}2x", None),
    (r"\raise{9999em}{2x}", None),
    (r"\cancel{2x}", None),
    (r"\operatorname{\script}", None),
    (r"\begin{script}2x\end{script}", "2x"),
    (r"\def\a{2x}\a", None),
    (r"\newcommand{\a}{\a\a}\a", None),
    (r"\begin{pmatrix} 2x \\ 3 & \end{pmatrix}", None),
    (r"\script{2x}", None),
    (r"\foo{ <b>2x</b>", None),
    (r"\left( 2x", None),
    (r"\frac{2x", None),
    (r"{" * 3000 + "2x", None),
    (r"2x" * 5000, None),
    (rf"{SCRIPT} \foo{{", None),
    ("2x \x1b[31m\x1b]0;owned\x07", None),
    ("2x \x00\x9b2J\x7f", None),
    ("2x \u202ex3\u202c \u200b\u2028", None),
    ("2x \ud800 \udcff", None),
    ("2x<b>y", "2x<b>y"),
]

HTML = {
    "html": {"lang"}, "head": set(), "meta": {"charset", "name", "content", "http-equiv"},
    "title": set(), "style": set(), "body": set(), "header": set(), "main": set(), "footer": set(),
    "h1": set(), "h2": {"id"}, "h3": {"class"}, "p": {"class"}, "code": set(), "summary": set(),
    "fieldset": {"class", "aria-label"}, "label": {"class"}, "table": set(), "thead": set(),
    "input": {"type", "name", "checked", "id"}, "span": {"class", "aria-hidden"}, "tbody": set(),
    "details": {"class", "open"}, "tr": {"data-verdict"}, "th": {"scope"}, "td": set(),
    "section": {"aria-labelledby", "data-verdict"}, "article": {"id", "data-verdict"},
    "div": {"class", "tabindex", "role", "aria-label"}, "dl": set(), "dt": set(), "dd": set(),
    "pre": {"aria-label", "tabindex"}, "a": {"href"},
}  # fmt: skip
LENGTHS = {
    "width", "height", "depth", "voffset", "lspace", "rspace", "minsize", "maxsize", "mathsize",
    "linethickness", "rowspacing", "columnspacing",
}  # fmt: skip
WORDS = {
    "accent", "columnalign", "columnlines", "displaystyle", "fence", "form", "largeop",
    "linebreak", "mathvariant", "movablelimits", "rowlines", "scriptlevel", "separator", "stretchy",
}  # fmt: skip
MATHML = {
    "mi", "mn", "mo", "mtext", "mspace", "mrow", "mstyle", "mpadded", "mphantom", "msqrt", "mtable",
    "mtr", "mtd", "mfrac", "msub", "msup", "mover", "munder", "mroot", "msubsup", "munderover",
}  # fmt: skip
VOID = {"meta", "input", "img"}
NOTEBOOK = {
    "div": {"class"}, "style": set(), "p": {"class"}, "span": {"class", "style"}, "code": set(),
    "details": set(), "summary": set(), "pre": set(), "form": set(), "table": {"style"},
    "thead": set(), "tbody": set(), "tr": {"class", "style"}, "th": {"class"}, "td": {"class"},
    "label": {"hidden"}, "input": {"type", "name", "class"}, "img": {"src", "alt", "style"},
    "progress": {"value", "max"},
}  # fmt: skip
STYLES = r"color: (#[0-9a-f]{6}|inherit)|--columns:\d+|(--by\d+:\d+;?)+|width: \d+em"
SORTING = r"(\.jaxnn form:has\(\.(up|down)\d+:checked\) td\{order:calc\(-?1\*var\(--by\d+\)\)\})+"


class Page(HTMLParser):
    """A strict reader of a report: elements, attributes, addresses and nesting as expected."""

    allowed = HTML
    classes = r"[a-z_ ]+|(claim|heading)-\d+(-\d+)?|show-[a-z_]+"

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.formula = 0  # elements open around the formula
        self.text: list[str] = []  # of the page without the style
        self.formulas: list[str] = []  # the text in the place of each formula
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        assert len(values) == len(attrs)
        if tag == "math":
            namespace = "http://www.w3.org/1998/Math/MathML"
            assert values == {"xmlns": namespace, "display": "block"}
        elif tag in MATHML:
            assert "math" in self.open
            assert values.keys() <= LENGTHS | WORDS
            for name, value in values.items():
                for word in value.split(" "):
                    length = r"[+-]?\d{0,2}(\.\d+)?([a-z]{2}|width|%)?|[a-z]+mathspace"
                    assert re.fullmatch(length if name in LENGTHS else r"[a-z0-9-]+", word)
        else:
            assert "math" not in self.open
            assert values.keys() <= self.allowed[tag]
        for name, value in values.items():
            if name == "href":
                assert re.fullmatch(r"#claim-\d+(-\d+)?", value)
            if name in ("id", "class"):
                assert re.fullmatch(self.classes, value)
            if name == "style":
                assert re.fullmatch(STYLES, value)
            if name == "src":
                assert re.fullmatch(r"data:image/png;base64,[\w+/]+=*", value)
        if tag == "div" and values.get("class") == "formula":
            self.formulas.append("")
            self.formula = len(self.open)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag
            self.formula *= len(self.open) > self.formula

    def handle_data(self, data):
        if "style" in self.open:
            return
        unprintable = [c for c in data if not (c.isprintable() or c in "\n\t\xa0" or c.isspace())]
        assert not unprintable
        self.text.append(data)
        if self.formula and len(self.open) > self.formula:
            self.formulas[-1] += data

    def handle_decl(self, decl):
        assert decl == "DOCTYPE html"
        assert not self.open

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def handle_pi(self, data):
        raise AssertionError(f"a processing instruction: {data}")

    def unknown_decl(self, data):
        raise AssertionError(f"a declaration: {data}")


class Output(Page):
    """A strict reader of an output of a notebook."""

    allowed = NOTEBOOK
    classes = r"[a-z]+|(up|down)\d+"

    def __init__(self, output: str):
        self.styles: list[str] = []
        super().__init__(output)
        style, *others = self.styles
        assert style == display._STYLE
        assert all(re.fullmatch(SORTING, other) for other in others)

    def handle_data(self, data):
        super().handle_data(data)
        if "style" in self.open:
            self.styles.append(data)


def described(text: str, kind: str = "gradient") -> tuple[Description, Verdict]:
    """A refuted claim with the given text in every place."""
    description = Description(
        text, text, 0, None, text, kind, (text,), text, text, text, text, text
    )
    verdict = Verdict(
        text, text, kind, "refuted", 10, 1.0, Worst(text, (0,), 1.0, 2.0),
        Counterexample({text: 2}, {text: np.ones(2)}), (Finding(text, text, text),), 0.1, text,
    )  # fmt: skip
    return description, verdict


def shown(text: str) -> str:
    """The text for a reader: invisible characters as escapes."""
    text = text.replace("\udcff", "\xff")  # a byte of a path
    return re.sub(
        "[\x00-\x1f\x7f-\x9f\xff\u200b-\u202e\ud800]",
        lambda found: found[0].encode("unicode_escape").decode(),
        text,
    )


def test_there_are_many_attacks():
    assert len({statement for statement, _ in ATTACKS}) == len(ATTACKS) >= 40


@pytest.mark.parametrize(("statement", "reads"), ATTACKS, ids=lambda text: repr(text)[:40])
def test_a_statement_stays_text_that_can_be_read(statement, reads):
    page = Page(to_html([described(statement)]))
    (formula,) = page.formulas
    assert formula.replace("\xa0", " ") == (shown(statement) if reads is None else reads)


def test_all_attacks_fit_on_one_page():
    page = Page(to_html([described(statement) for statement, _ in ATTACKS]))
    assert len(page.formulas) == len(ATTACKS)


def outputs(text: str) -> list[str]:
    """What a notebook shows of a verdict, a claim and a derivation with the text in every place."""

    def formula(x):
        return 2 * x

    formula.__name__ = text.replace("\0", "")
    _, verdict = described(text)
    verdict = verdict._replace(latex=text, code=text)
    claimed = made(formula, of=lambda x: jnp.sum(x), statement=text, source=text)
    whole = DerivationVerdict(text, text, "gradient", "refuted", (verdict, verdict), 1)
    table = display.Table([{text: text}])
    return [each._repr_html_() or "" for each in (verdict, claimed, whole, table)]


@pytest.mark.parametrize(("statement", "reads"), ATTACKS, ids=lambda text: repr(text)[:40])
def test_a_statement_stays_text_in_a_notebook(statement, reads):
    for output in outputs(statement):
        for formula in Output(output).formulas:
            assert formula.replace("\xa0", " ") == (shown(statement) if reads is None else reads)


FRAGMENTS = [statement for statement, _ in ATTACKS if len(statement) < 100] + [
    r"\text{", r"}", r"{", r"\frac", r"\sqrt", r"\href{javascript:1}{", r"\left(", r"\right)",
    r"\begin{cases}", r"\end{cases}", r"&", r"\\", r"x", r"_", r"^", r"'", r"\unicode{x3c}", r"<",
    r">", r"&lt;", r"<script>", r"</script>", r"</style>", r"<!--", r"-->", r"]]>", r"\mathrm{",
    r"\hat", r"\operatorname{", r"\verb|", r"|", r"\hspace{9em}", r"\displaystyle", r"\class{",
    r"\color{", r"\tag{", r"#", r"%", r"$", r"~", r"\not", r"\stackrel", r"\overbrace{",
    r"\substack{", r"\mathchoice", r"\genfrac", r"\sideset", r"\skew",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=12).map("".join)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(TEXTS)
def test_no_text_becomes_markup_of_a_formula(text):
    Page(f'<div class="formula">{mathml(text) or ""}</div>')


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(TEXTS)
def test_no_text_of_a_claim_becomes_markup_of_the_page(text):
    Page(to_html([described(text)], title=text))


@pytest.mark.parametrize("text", ["x" * 9999, "\x1b[31m\n" * 999, "sign"])
def test_a_terminal_gets_a_short_line(text):
    _, verdict = described(text)
    large = Counterexample({"n": 10**6}, {"x": np.zeros(10**6)})
    whole = DerivationVerdict(text, text, "gradient", "refuted", (verdict,) * 99, 1)
    claimed = made(lambda x: 2 * x, of=lambda x: jnp.sum(x), statement=text, source=text)
    steps = derivation(
        of=lambda x: jnp.sum(x), wrt="x", kind="gradient", inputs={"x": real("n")}, name=text
    )
    for value in (verdict._replace(counterexample=large), whole, claimed, steps):
        assert len(repr(value)) < 2000
        assert repr(value).isprintable()


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(TEXTS)
def test_no_text_of_a_claim_becomes_markup_of_a_notebook(text):
    for output in outputs(text):
        Output(output)


@pytest.mark.parametrize("wrong", [None, 5, ["2x"]])
@pytest.mark.parametrize("name", ["source", "statement"])
def test_a_source_and_a_statement_are_text(name, wrong):
    with pytest.raises(ValueError, match=f"{name} is .*, expected"):
        made(lambda x: 2 * x, of=jnp.sum, **{name: wrong})


def test_no_text_brings_a_template_or_markup_of_its_own():
    class Markup(str):
        def __html__(self):
            return SCRIPT

    assert SCRIPT not in to_html([described(Markup("{{ 7 * 7 }}"))])


def test_json_has_no_character_that_a_terminal_obeys():
    evil = "\x1b[31m \x9b2J \u202e \u2028 \ud800 θ"
    content = to_json([described(evil)[1]])
    assert [c for c in content if not c.isprintable() and c != "\n"] == []
    assert "θ" in content
    assert json.loads(content)[0]["name"] == evil


def test_the_page_allows_its_own_style_and_nothing_else():
    page = to_html([described("2x")])
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]{43}='; base-uri 'none'; form-action 'none'",
        policy,
    )
    assert page.index(policy) < page.index("<title>")


@pytest.mark.parametrize("markup", ["[red]", "[/bold]", "[link=http://x]y[/link]", "[\\]", "[/]"])
def test_the_terminal_shows_markup_and_escapes_as_text(markup, monkeypatch):
    monkeypatch.setenv("COLUMNS", "4000")
    evil = f"{markup} \x1b[31m \x1b]0;owned\x07 \x9b2J \u202e"
    stream = io.StringIO()
    description, verdict = described(evil)
    report.print_verdicts([verdict], stream)
    report.print_evidence(description, verdict, stream)
    printed = stream.getvalue()
    assert [c for c in printed if not c.isprintable() and c != "\n"] == []
    assert printed.count(shown(evil)) == 14


def test_a_failed_assertion_shows_escapes_as_text():
    def raising(x):
        raise RuntimeError(f"\x1b[31m {len(x)}")

    with pytest.raises(AssertionError, match=r"RuntimeError: \\x1b\[31m") as failure:
        assert_holds(made(raising, of=lambda x: jnp.sum(x)), trials=10)
    assert str(failure.value).isprintable()


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=3000", "--dump-dom",
)  # fmt: skip


@contextmanager
def server():
    """A server on a free port: the address and the list of requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            """Prints nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()


def browsed(page: str, folder) -> str:
    """The page as Chromium has read the page and run the page's scripts."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser, expected one of {', '.join(BROWSERS)}")
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = [browser, *FLAGS, f"--user-data-dir={folder}/browser", f"{folder}/page.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "</html>" in done.stdout
    return done.stdout


def everything_at(address: str) -> list[str]:
    """Raw attacks: without a defence they load from an address, or set the title."""
    return [
        SCRIPT, "<svg><script>document.title='owned'</script></svg>",
        "<img src=x: onerror=\"document.title='owned'\">",
        f"<img src={address}/image>", f"<script src={address}/script></script>",
        f"<iframe src={address}/frame></iframe>", f"<link rel=stylesheet href={address}/link>",
        f"<style>@import '{address}/import';</style>", f"<object data={address}/object></object>",
        f"<p style='background:url({address}/background)'>x</p>",
        f"<video src={address}/video autoplay></video>",
        f"<math><mtext><img src={address}/mtext></mtext></math>",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_browser_runs_no_script_of_a_claim_and_asks_no_server(tmp_path):
    with server() as (address, requests):
        raw = everything_at(address)
        texts = [statement.replace(SERVER, address) for statement, _ in ATTACKS] + raw
        texts += [f"\\text{{{attack}}}" for attack in raw]
        page = browsed(to_html([described(text) for text in texts]), tmp_path)
    assert requests == []
    read = Page(page)
    assert len(read.formulas) == len(texts)
    assert "<title>Verified derivations</title>" in page
    assert all(shown(text) in "".join(read.text) for text in texts)


@pytest.mark.slow
def test_a_browser_runs_no_script_of_an_output_and_asks_no_server(tmp_path):
    with server() as (address, requests):
        texts = [statement.replace(SERVER, address) for statement, _ in ATTACKS]
        texts += everything_at(address)
        content = "".join(output for text in texts for output in outputs(text))
        seen = browsed(f"<!DOCTYPE html><html><title>x</title><body>{content}</html>", tmp_path)
    assert requests == []
    assert "<title>x</title>" in seen


@pytest.mark.slow
def test_the_policy_stops_what_the_whitelist_would_miss(tmp_path):
    with server() as (address, requests):
        page = to_html([described("2x")])
        body = "".join(everything_at(address))
        seen = browsed(page.replace("<main>", f"<main>{body}"), tmp_path)
    assert requests == []
    assert "<title>Verified derivations</title>" in seen


@pytest.mark.slow
def test_the_attacks_succeed_without_the_whitelist_and_the_policy(tmp_path):
    with server() as (address, requests):
        body = "".join(everything_at(address))
        seen = browsed(f"<!DOCTYPE html><title>x</title><body>{body}", tmp_path)
    assert "<title>owned</title>" in seen
    wanted = {"/image", "/script", "/frame", "/link", "/import", "/object", "/background", "/video"}
    assert wanted <= {*requests}


CLICK_AND_COUNT = """<script>
document.getElementById('show-refuted').click();
const shown = (name) => [...document.querySelectorAll(name)].filter((e) => e.checkVisibility());
document.title = ['tr', 'section', 'article'].map((name) => shown(name).length).join(' ');
</script>"""


@pytest.mark.slow
def test_a_click_on_a_verdict_hides_the_other_claims(tmp_path):
    entries = [described(text) for text in ("a", "b", "c", "d", "e")]
    verdicts = ("holds", "refuted", "kink", "refuted", "error")
    page = to_html(
        [(d, v._replace(verdict=w)) for (d, v), w in zip(entries, verdicts, strict=True)]
    )
    page = re.sub("<meta http-equiv=[^>]*>", "", page).replace("<details", "<details open")
    seen = browsed(page.replace("</body>", f"{CLICK_AND_COUNT}</body>"), tmp_path)
    assert "<title>3 2 2</title>" in seen  # the heads of the table's columns are a row
