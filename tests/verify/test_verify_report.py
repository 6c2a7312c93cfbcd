"""Verdicts as JSON and as a page of HTML."""

import json
import math
import re
import types
from functools import partial
from html import unescape
from typing import Any, NamedTuple
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.display import mathml
from jaxnn.verify import Counterexample, Finding, Verdict, Worst, claim, claims, real, report
from jaxnn.verify.report import to_html, to_json
from jaxnn.verify.verdict import VERDICTS


class Layer(NamedTuple):
    weight: Any
    bias: Any


def square(z):
    return jnp.sum(z**2)


def claimed(name="double", statement=r"\nabla_z J = 2z", doc=None, corrects=None, source="S9.1"):
    def formula(z):
        return 2 * z

    formula.__name__, formula.__doc__ = name, doc
    return claim(
        of=square,
        wrt="z",
        kind="gradient",
        inputs={"z": real("n")},
        source=source,
        statement=statement,
        corrects=corrects,
    )(formula)


def verdict(name="double", verdict="holds", **fields) -> Verdict:
    plain = Verdict(name, "S9.1", "gradient", verdict, 10_000, 1.25, None, None, (), 0.5)
    return plain._replace(**fields)


REFUTED = verdict(
    verdict="refuted",
    bits_lost=None,
    worst=Worst("params[0].weight", (0, 1), math.nan, -math.inf, at_least=0.25),
    counterexample=Counterexample(
        {"n": 2}, {"params": [Layer(np.array([[1.0, 0.5]]), jnp.zeros(2))], "k": np.int64(3)}
    ),
    diagnosis=(Finding("sign", "z", "the claim is the negative of the derivative"),),
    detail="at <n = 2>",
)


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_json_has_all_fields_and_no_numbers_that_json_lacks():
    (entry,) = json.loads(to_json([REFUTED]), parse_constant=refuse_constant)
    assert entry == {
        "name": "double",
        "source": "S9.1",
        "kind": "gradient",
        "verdict": "refuted",
        "trials": 10_000,
        "bits_lost": None,
        "worst": {
            "where": "params[0].weight",
            "index": [0, 1],
            "claimed": "nan",
            "true": "-inf",
            "one_sided": None,
            "at_least": 0.25,
        },
        "counterexample": {
            "sizes": {"n": 2},
            "inputs": {"params": [{"weight": [[1.0, 0.5]], "bias": [0.0, 0.0]}], "k": 3},
        },
        "diagnosis": [
            {
                "code": "sign",
                "where": "z",
                "detail": "the claim is the negative of the derivative",
            }
        ],
        "seconds": 0.5,
        "detail": "at <n = 2>",
        "file": "",
        "autodiff_bits_lost": None,
        "certificate": None,
        "uncertified": "",
        "step": None,
        "sampling": None,
        "black_box": "",
        "convention": "",
        "statement": None,
        "latex": "",
        "code": "",
    }


def test_json_of_nothing_is_an_empty_list():
    assert json.loads(to_json([])) == []


@pytest.mark.parametrize(
    ("value", "short"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (2.0, "2"),
        (-0.5, "-0.5"),
        (10_000.0, "10000"),
        (1 / 3, "0.333333"),
        (5.66e-17, "5.66e-17"),
        (1e300, "1e+300"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (np.array([[1.0, 0.5], [0.0, -2.0]]), "[[1, 0.5], [0, -2]]"),
        (np.zeros((20, 20)), "20 x 20 numbers from 0 to 0"),
        (np.zeros((0,)), "[]"),
    ],
)
def test_numbers_are_as_short_as_can_be(value, short):
    assert report.array(value) == short


def test_unequal_numbers_look_unequal():
    assert report.difference(1.0, 1.0 + 2**-30) == ("1", "1.000000001")


def visible(page):
    body = page[page.index("<body>") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_the_page_needs_nothing_else():
    page = to_html([(claimed(), verdict())])
    assert not re.search(r"<script|<link|<img|@import|url\(|src=", page)
    assert set(re.findall(r"https?://[^\"<]*", page)) == {"http://www.w3.org/1998/Math/MathML"}


def test_the_page_is_well_formed():
    page = to_html([(claimed(doc="a < b & c"), REFUTED), (claimed("other"), verdict("other"))])
    body = page[page.index("<body>") : page.index("</html>")]
    ElementTree.fromstring(body)


def test_the_page_counts_the_verdicts():
    entries = [(claimed(name), verdict(name, name)) for name in VERDICTS]
    seen = visible(to_html([*entries, (claimed("more"), verdict("more"))]))
    assert seen.startswith(
        "Verified derivations 9 claims ✗ 1 refuted ! 1 error ≠ 1 misstated ✓ 2 hold "
        "≈ 1 holds, unstable ⇄ 1 right up to a layout ? 1 not decided ∠ 1 holds except at kinks"
    )


def test_the_page_shows_the_evidence():
    seen = visible(to_html([(claimed(doc="One example per column."), REFUTED)]))
    for words in (
        "S9.1 · gradient of square by z",
        "✗ refuted",
        "One example per column.",
        "sign in z : the claim is the negative of the derivative",
        "gradient by params[0].weight, entry [0, 1]: claimed nan , true -inf",
        "proved: they differ by at least 0.25",
        "n = 2",
        "params[0].weight = [[1, 0.5]]",
        "10,000 random trials",
        "at &lt;n = 2&gt;",
    ):
        assert words in seen


def test_the_page_shows_both_sides_of_a_kink():
    kink = verdict(verdict="kink", worst=Worst("z", (), 1.0, 0.5, (0.0, 1.0)))
    assert "from the left 0 , from the right 1" in visible(to_html([(claimed(), kink)]))


def test_a_correction_stands_below_what_it_corrects():
    printed = claimed("printed")
    entries = [
        (printed, verdict("printed", "refuted")),
        (claimed("between"), verdict("between")),
        (claimed("put_right", corrects=printed), verdict("put_right")),
    ]
    headings = re.findall(r"<h[23][^>]*>([^<]*)<", to_html(entries))
    assert headings[:4] == ["Printed", "As printed", "Corrected", "Between"]


def test_a_correction_alone_is_a_claim_like_others():
    headings = re.findall(
        r"<h[23][^>]*>([^<]*)<", to_html([(claimed(corrects=claimed("printed")), verdict())])
    )
    assert headings[0] == "Double"


def test_refuted_claims_come_first_and_errors_before_what_holds():
    printed = claimed("printed")
    entries = [
        (claimed("holding"), verdict("holding")),
        (claimed("broken"), verdict("broken", "error")),
        (claimed("put_right", corrects=printed), verdict("put_right")),
        (claimed("edged"), verdict("edged", "kink")),
        (printed, verdict("printed", "refuted")),
    ]
    page = to_html(entries)
    table, sections = page.split("<main>")
    assert re.findall(r">(\w+)</a>(?:, (\w+))?", table) == [
        ("Printed", "as"),
        ("Broken", ""),
        ("Printed", "corrected"),
        ("Holding", ""),
        ("Edged", ""),
    ]
    assert re.findall("<h2[^>]*>(\\w+)<", sections) == ["Printed", "Broken", "Holding", "Edged"]


def test_a_choice_of_a_verdict_hides_all_other_rows_and_claims():
    printed = claimed("printed")
    page = to_html(
        [
            (printed, verdict("printed", "refuted")),
            (claimed("put_right", corrects=printed), verdict("put_right")),
            (claimed("other"), verdict("other", "holds_unstable")),
        ]
    )
    elements = re.findall(r'<(\w+) [^>]*data-verdict="([^"]*)"', page)
    assert sorted(elements) == [
        ("article", "holds"), ("article", "holds_unstable"), ("article", "refuted"),
        ("section", "holds_unstable"), ("section", "refuted holds"),
        ("tr", "holds"), ("tr", "holds_unstable"), ("tr", "refuted"),
    ]  # fmt: skip
    hidden = dict(
        re.findall(
            r"body:has\(#show-(\w+):checked\) \[data-verdict\]:not\(\[data-verdict~=\"(\w+)\"\]\)"
            r" { display: none; }",
            page,
        )
    )
    assert hidden == {name: name for name in VERDICTS}
    assert re.findall(r'<input type="radio" name="show" id="show-(\w+)"/>', page) == [
        "refuted",
        "holds",
        "holds_unstable",
    ]
    assert page.count('checked="checked"') == 1


def test_a_page_of_one_verdict_has_nothing_to_choose():
    assert "<input" not in to_html([(claimed(), verdict()), (claimed("b"), verdict("b"))])


def test_the_page_shows_the_code_of_formula_and_objective():
    codes = re.findall("<pre[^>]*><code>([^<]*)<", to_html([(claimed(), verdict())]))
    assert list(map(unescape, codes)) == [
        "def formula(z):\n    return 2 * z",
        "def square(z):\n    return jnp.sum(z**2)",
    ]


def test_a_line_with_formula_and_objective_is_shown_once():
    (same,) = claims.descriptions([claimed()])
    same = same._replace(formula_code="both", function_code="both")
    assert to_html([(same, verdict())]).count("<code>both<") == 1


def test_the_code_is_open_where_a_reader_looks_for_a_mistake():
    page = to_html([(claimed(name), verdict(name, name)) for name in VERDICTS])
    articles = [part.split("</article>")[0] for part in page.split("<article ")[1:]]
    opened = ['<details class="code" open="open">' in article for article in articles]
    # Refuted, error, not decided, misstated, another layout, three that hold.
    assert opened == [True, True, True, True, True, False, False, False]


class Scaled:
    """z times a factor, as an object."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, z):
        return self.factor * jnp.sum(z)


def without_file():
    space = {}
    exec("def square(z):\n    return z @ z", space)
    return space["square"]


def lying():
    """A function whose file has other lines."""
    return types.FunctionType(square.__code__.replace(co_firstlineno=10**6), globals())


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (jax.jit(square), "def square(z):"),
        (partial(square), "def square(z):"),
        (Scaled(2.0), "class Scaled:"),
        (lambda z: jnp.sum(z), "lambda z: jnp.sum(z)"),
        (without_file(), ""),
        (lying(), ""),
        (jnp.negative, ""),
        (len, ""),
    ],
    ids=["jit", "partial", "object", "lambda", "exec", "other lines", "ufunc", "builtin"],
)
def test_code_that_no_file_has_is_said_to_be_missing(function, code):
    shown = claims.code(function)
    assert (code in shown) if code else shown == ""
    described = claims.descriptions([claimed()])[0]._replace(function_code=shown)
    page = to_html([(described, verdict())])
    assert ("The code of the objective is in no file that can be read." in page) == (not code)


def test_the_page_names_the_file_of_a_claim():
    described = claims.descriptions([claimed()], "week 3/claims.py")[0]
    assert "week 3/claims.py · S9.1 · gradient of square by z" in visible(
        to_html([(described, verdict())])
    )


def test_the_table_names_the_files_if_there_are_several():
    entries = [
        (claims.descriptions([claimed()], file)[0], verdict(detail="no", file=file))
        for file in ("a.py", "b.py")
    ]
    cells = re.findall(r"<tr [^>]*><td>([^<]*)</td><td>([^<]*)<", to_html(entries))
    assert cells == [("a.py", "S9.1"), ("b.py", "S9.1")]
    assert "File" not in to_html(entries[:1])


def test_a_file_that_cannot_be_loaded_has_a_place_without_code():
    file = claims.Description("bad_file.py", "bad_file.py")
    failed = verdict("bad_file.py", "error", source="", kind="", trials=0, detail="line 1: no")
    page = to_html([(file, failed)])
    assert (
        "bad_file.py · a file that could not be judged bad_file.py ! error Note line 1: no"
        in visible(page)
    )
    assert "<details" not in page


def test_nothing_of_a_claim_becomes_markup():
    evil = "<script>alert(1)</script>"
    entry = claimed(evil, statement=evil, doc=evil, source=evil)
    page = to_html([(entry, verdict(evil, "error", detail=evil, source=evil))], title=evil)
    assert evil not in page


@pytest.mark.parametrize(
    "statement",
    [
        r"\nabla_z J = p - y",
        r"\frac{\partial p_j}{\partial z_i} = \begin{cases} p_i(1 - p_i) & j = i \\ -p_j p_i & "
        r"\text{otherwise} \end{cases}",
        r"\mathrm{diag}(p) - p p^\top",
        r"\delta_2 = W_2\delta_3 \odot \sigma'(f_2)",
        r"-\frac{1}{n} \sum_{i=1}^{n} x^{(i)} \left(y_l^{(i)} - \hat{y}_l^{(i)}\right)",
        r"\theta_j \leftarrow \theta_j - \alpha \lambda \theta_j",
        r"\begin{pmatrix} 1 & 2 \\ 0 & 1 \end{pmatrix} \in \mathbb{R}^{2 \times 2}",
        r"$\operatorname{vec}[W]$",
    ],
)
def test_statements_become_mathml(statement):
    converted = mathml(statement)
    assert converted is not None
    assert ElementTree.fromstring(converted).tag == "{http://www.w3.org/1998/Math/MathML}math"


def test_the_letters_of_a_word_are_one_identifier():
    assert '<mi mathvariant="normal">diag</mi>' in (mathml(r"\mathrm{diag}(p)") or "")


@pytest.mark.parametrize(
    ("statement", "spaces"),
    [(r"\log p", 1), (r"\operatorname{vec} W", 1), (r"\log(p)", 0), (r"\operatorname{vec}[W]", 0)],
)
def test_the_name_of_a_function_stands_off_a_bare_argument(statement, spaces):
    assert (mathml(statement) or "").count("<mspace") == spaces


@pytest.mark.parametrize("statement", ["", "{", r"\frac{1", r"\unheardof{x}", r"\begin{cases} x"])
def test_what_cannot_be_converted_is_no_mathml(statement):
    assert mathml(statement) is None


def test_a_statement_that_cannot_be_converted_is_shown_as_it_is_written():
    page = to_html([(claimed(statement=r"\unheardof{x} < 1"), verdict())])
    assert r"<code>\unheardof{x} &lt; 1</code>" in page
