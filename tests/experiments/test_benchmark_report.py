"""The benchmark's pages: valid Markdown, in the right place, from published results alone."""

import json
import sys
from types import SimpleNamespace

import pytest
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from PIL import Image

from experiments.benchmark import report
from experiments.benchmark.main import PARTS, read
from experiments.benchmark.part import Goal, Part, Table
from experiments.benchmark.report import (
    BEGIN,
    END,
    HERE,
    NEWEST,
    body,
    command,
    compact,
    main,
    page,
    replace,
    section,
)


def grid(markdown):
    """The cells of a table, as an independent Markdown parser reads them."""
    tokens = MarkdownIt().enable("table").parse(markdown)
    assert tokens[0].type == "table_open"
    assert tokens[-1].type == "table_close"
    rows = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            assert {child.type for child in token.children or ()} <= {"text", "text_special"}
            rows[-1].append("".join(child.content for child in token.children or ()))
    return rows


def alignments(markdown):
    tokens = MarkdownIt().enable("table").parse(markdown)
    return [token.attrGet("style") for token in tokens if token.type == "th_open"]


HOSTILE = [
    "a | b", "|", "||", "\\", "\\|", "ends in \\", "*bold*", "**", "_under_ score", "a_b_c",
    "`code | pipe`", "<script>", "<!-- x -->", "[text](address)", "![x](y)", "~~gone~~", "&amp;",
    "$x$", "", "---", "1.5", "µs", "# no heading", "1. no list",
]  # fmt: skip


def test_cells_read_back_as_they_were():
    rows = [[text, "between", text] for text in HOSTILE]
    assert grid(body(Table("t", ["a|b", "", "*c*"], rows))) == [["a|b", "", "*c*"], *rows]


def test_a_cell_is_one_line():
    assert grid(body(Table("t", ["a"], [["two\nlines"], ["b"]])))[1:] == [["two lines"], ["b"]]


@pytest.mark.parametrize("row", [["a"], ["a", "b", "c"], []])
def test_a_row_of_another_width_is_refused(row):
    with pytest.raises(ValueError, match=r"the table 'times' has the row .*, expected 2 cells"):
        body(Table("times", ["x", "y"], [["a", "b"], row]))


@pytest.mark.parametrize(
    ("cells", "right"),
    [
        (["1", "2.5", "-3"], True),
        (["1,024", "1e-3", "1.2e+05"], True),
        (["1.5 x", "90 %", "3 µs"], True),
        (["1.2 to 3.4", "0.1 ± 0.02"], True),
        (["2.5", "3.5", "not reached"], True),
        (["2.5", "not reached", "not reached"], False),
        (["64 models 784-10", "64 models 784-50-50-10"], False),
        (["784-10", "784-50-50-10"], False),
        (["2 processes", "1 core"], False),
        (["", ""], False),
        ([], False),
    ],
)
def test_numbers_stand_right(cells, right):
    style = "text-align:right" if right else None
    assert alignments(body(Table("t", ["a"], [[cell] for cell in cells]))) == [style]


def test_the_section_goes_between_the_markers():
    found = replace(f"before\n{BEGIN}\nold\n{END}\nafter\n", "## New\n")
    assert found == f"before\n{BEGIN}\n\n## New\n\n{END}\nafter\n"


@pytest.mark.parametrize(
    "outside", ["", "\r\n  tabs\t\r\n", "µ ± \u2028 \x0b \x00", "\n\n\n", "\\1 \\g<0>"]
)
def test_all_the_rest_stays_byte_for_byte_and_twice_is_once(outside):
    section = "## New \\1\n\ntext\n"
    once = replace(f"{outside}{BEGIN}{outside}{END}{outside}", section)
    assert once.startswith(outside + BEGIN)
    assert once.endswith(END + outside)
    assert section.strip() in once
    assert replace(once, section) == once


@pytest.mark.parametrize(
    ("readme", "message"),
    [
        ("", f"0 times '{BEGIN}'"),
        (BEGIN, f"0 times '{END}'"),
        (END, f"0 times '{BEGIN}'"),
        (BEGIN + BEGIN + END, f"2 times '{BEGIN}'"),
        (BEGIN + END + END, f"2 times '{END}'"),
        (BEGIN + END + BEGIN + END, f"2 times '{BEGIN}'"),
        (END + BEGIN, f"'{END}' before '{BEGIN}'"),
        (BEGIN.upper() + END, f"0 times '{BEGIN}'"),
    ],
)
def test_markers_that_are_missing_double_or_reversed_are_refused(readme, message):
    with pytest.raises(ValueError, match=f"^the README has {message}, expected it"):
        replace(readme, "new")


def content(results, **config):
    """A results.json whose machine is made up."""
    machine = {
        "processor": "Abacus | 9000", "cores": 2, "device": "1 x Loom", "system": "Linux x86_64",
        "date": "2026-02-03", "versions": {"torch": "2.13.0", "numpy": "2.4.0", "jax": "0.10.2"},
    }  # fmt: skip
    return {
        "experiment": "benchmark",
        "config": {"seeds": 3, "dataset": "mnist", "parts": list(PARTS), "quick": False} | config,
        "versions": {"python": "3.11.7", "jaxnn": "0.1.0", "jax": "0.10.2", "numpy": "2.4.0"},
        "device": {"platform": "cpu"},
        "results": {"machine": machine, **results},
    }


def part(monkeypatch, name, table=None, goals=lambda _: [], figures=lambda _: {}):
    """Puts a made-up part in the place of one."""
    tables = [] if table is None else [table]
    made = Part(lambda _: {}, lambda _: tables, goals, figures)
    module = SimpleNamespace(PARTS={name: made})
    monkeypatch.setitem(sys.modules, f"experiments.benchmark.parts.{PARTS[name]}", module)


def test_the_opening_says_where_when_and_with_what():
    text = section(content({}))
    assert text.startswith("Measured on 2026-02-03 on 2 cores (Abacus | 9000, ")
    assert "Linux x86_64), Python 3.11.7: jaxnn 0.1.0 on jax 0.10.2, beside torch 2.13.0, " in text
    assert "beside torch 2.13.0, numpy 2.4.0. " in text
    assert "medians of 3 repetitions in" in text
    assert "```sh\npython -m experiments.benchmark\n```" in text
    assert "Required" not in text
    assert "Loom" not in text


def test_an_accelerator_is_named():
    assert "(Abacus | 9000, 1 x Loom, Linux" in section(
        content({}) | {"device": {"platform": "gpu"}}
    )


@pytest.mark.parametrize(
    ("config", "flags"),
    [
        ({}, ""),
        ({"seeds": 5}, " --seeds 5"),
        ({"dataset": "digits", "quick": True}, " --dataset digits --quick"),
        ({"parts": ["one_model", "scale"]}, " --parts one_model scale"),
        ({"parts": list(PARTS), "data_dir": "/secret", "out": "/secret"}, ""),
    ],
)
def test_the_command_repeats_the_flags_but_no_folders(config, flags):
    default = {"dataset": "mnist", "seeds": 3}
    assert command(default | config) == "python -m experiments.benchmark" + flags


def test_goals_come_first_reached_or_not(monkeypatch):
    goals = [
        Goal("fast", 1.5, 1.49),
        Goal("share", 90.0, 90.0, "%"),
        Goal("mutants", 0, 2, "slipped", at_most=True),
        Goal("too fast", 2, 1.5, share=90),
    ]
    part(monkeypatch, "startup", Table("Start-up", ["a"], [["1"]], ["A note."]), lambda _: goals)
    texts = section(content({"startup": {}})).split("\n\n")
    title, table, where, limit, *rest = texts[2:]
    assert title == "**Required and measured**"
    assert where == "Measured on 2026-02-03 on 2 cores (Abacus | 9000, Linux x86_64)."
    assert limit.startswith("limit: at 100 % of the machine's peak")
    assert grid(table) == [
        ["what", "required", "measured", "reached"],
        ["fast", "at least 1.5 x", "1.49 x", "no"],
        ["share", "at least 90 %", "90 %", "yes"],
        ["mutants", "at most 0 slipped", "2 slipped", "no"],
        [
            "too fast",
            "2 x is above the peak",
            "1.5 x; 90.0 % of the peak: at 100 % it would be 1.67 x",
            "limit",
        ],
    ]
    assert rest == ["**Start-up**", "| a |\n| ---: |\n| 1 |", "A note.\n"]


def test_what_other_machines_have_reached_comes_next(monkeypatch, files):
    results, readme = files
    part(monkeypatch, "startup", goals=lambda found: [Goal("fast", 2, found["startup"]["x"])])
    results.write_text(json.dumps(content({"startup": {"x": 1.0}})))
    peak = {"roofline": {"peak_gflops": {"median": 112.6}}}
    for name, speed in (("b", 4.0), ("a", 3.0)):
        other = content({"startup": {"x": speed}} | peak)
        other["results"]["machine"]["processor"] = f"Slide rule {name}"
        (results.parent / f"{name}.json").write_text(json.dumps(other))
    assert main([str(results), "--readme", str(readme)]) == 0
    texts = readme.read_text().split("\n\n")
    start = texts.index("**Required and measured**")
    assert grid(texts[start + 1])[1] == ["fast", "at least 2 x", "1 x", "no"]
    title = "**Required and measured, an earlier run on another machine**"
    assert texts[start + 3] == texts[start + 6] == title
    assert grid(texts[start + 4])[1] == ["fast", "at least 2 x", "3 x", "yes"]
    assert texts[start + 5] == (
        "Measured on 2026-02-03 on 2 cores (Slide rule a, Linux x86_64, 113 GFLOP/s in matrix "
        "products)."
    )
    assert grid(texts[start + 7])[1] == ["fast", "at least 2 x", "4 x", "yes"]
    names = [path.name for path in sorted(results.parent.iterdir())]
    assert names == ["a.json", "b.json", "newest.json"]


def test_parts_come_in_their_order_with_links_to_their_figures(monkeypatch):
    figures = {"x.png": 1, "y.png": 2}
    part(monkeypatch, "scale", Table("S", ["a"], [["b"]]), figures=lambda _: figures)
    part(monkeypatch, "startup", Table("U", ["a"], [["b"]]))
    text = section(content({"scale": {}, "startup": {}}), "there")
    assert text.index("**U**") < text.index("**S**")
    assert text.endswith("\n\nFigures: [x.png](there/x.png), [y.png](there/y.png)\n")
    assert text.count("Figures: ") == 1


def trained(contender, network, microseconds):
    sizes = [784, 10] if network == "softmax" else [784, 50, 50, 10]
    return {"network": network, "sizes": sizes, "contender": contender, "label": contender.title(),
            "models": 1, "cores": 2, "microseconds": {"median": microseconds}}  # fmt: skip


def roofline_results():
    rate = {"median": 100.0, "values": [100.0]}
    ceilings = {"platform": "cpu", "devices": 2, "training_examples": 10, "peak_gflops": rate,
                "bandwidth": [{"bytes": 2**20, "gigabytes_per_second": rate}]}  # fmt: skip
    return {"one_model": {"rows": [trained("jaxnn", "softmax", 40.0)]}, "roofline": ceilings}


def test_the_section_leads_to_the_roofline_page(monkeypatch):
    part(monkeypatch, "one_model")
    text = section(content(roofline_results()))
    assert text.endswith("[the roofline page](published/roofline.md).\n")
    assert "What the machine can do" not in text


def test_the_roofline_page_says_what_is_counted_and_shows_every_table():
    text = page(content(roofline_results()))
    assert text.startswith("# Roofline\n\nMeasured on 2026-02-03")
    for part_of_it in (
        "- parameters: read once and written once",
        "![roofline](roofline.png)",
        "**What the machine can do, 2 devices at once**",
        "**One model 784-10, per model and step**",
    ):
        assert part_of_it in text
    tokens = MarkdownIt().enable("table").parse(text)
    assert [token.type for token in tokens].count("table_open") == 2
    assert not any(token.type == "code_block" for token in tokens)


def figure():
    drawn = Figure(figsize=(4, 3), dpi=50)
    drawn.subplots().plot([1, 2])
    return drawn


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A results.json in a folder beside a README."""
    part(
        monkeypatch, "one_model", Table("T", ["a"], [["b"]]), figures=lambda _: {"t.png": figure()}
    )
    (tmp_path / "published").mkdir()
    results = tmp_path / "published" / "newest.json"
    results.write_text(json.dumps(content(roofline_results())))
    readme = tmp_path / "README.md"
    readme.write_bytes(f"# Title\r\n{BEGIN}\r\n{END}\r\nµ\r\n".encode())
    return results, readme


def test_readme_and_page_are_written(files, capsys):
    results, readme = files
    for _ in range(2):
        assert main([str(results), "--readme", str(readme)]) == 0
        text = readme.read_bytes().decode()
        expected = section(content(roofline_results()), "published").strip()
        assert text == f"# Title\r\n{BEGIN}\n\n{expected}\n\n{END}\r\nµ\r\n"
        assert "(published/t.png)" in text
    assert (results.parent / "roofline.md").read_text() == page(content(roofline_results()))
    names = sorted(path.name for path in results.parent.iterdir())
    assert names == ["newest.json", "roofline.md", "roofline.png", "t.png"]
    assert capsys.readouterr().out.count("wrote ") == 2 * 4
    with Image.open(results.with_name("t.png")) as image:
        assert image.size == (200, 150)


def test_everything_goes_to_another_folder(files, tmp_path):
    results, readme = files
    before = readme.read_bytes()
    (results.parent / "another.json").write_text("no results: read only for the README")
    assert main([str(results), "--out", str(tmp_path / "new")]) == 0
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["README.md", "history.csv", "roofline.md", "roofline.png", "t.png"]
    assert "[t.png](./t.png)" in (tmp_path / "new" / "README.md").read_text()
    history = (tmp_path / "new" / "history.csv").read_text()
    assert "roofline.peak_gflops,0,100.0" in history
    assert readme.read_bytes() == before
    assert {path.name for path in results.parent.iterdir()} == {"another.json", "newest.json"}


def test_published_results_are_compact_and_say_the_same(files, tmp_path, monkeypatch):
    results, _ = files
    monkeypatch.setattr(report, "HERE", tmp_path)
    assert main([str(results), "--publish", "abacus"]) == 0
    published = read(results.with_name("abacus.json"))
    assert published == json.loads(results.read_text())
    assert len(results.with_name("abacus.json").read_text()) < len(results.read_text())
    assert compact({"a": [1 / 3, 1, None, "b"]}) == '{"a":[0.33333333,1,null,"b"]}'


def test_without_a_roofline_there_is_no_page(files):
    results, readme = files
    results.write_text(json.dumps(content({})))
    assert main([str(results), "--readme", str(readme)]) == 0
    assert not (results.parent / "roofline.md").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory"),
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "has the experiment None, expected 'benchmark'"),
        ("{}", "has the experiment None, expected 'benchmark'"),
        ('{"experiment": "logistic"}', "has the experiment 'logistic', expected 'benchmark'"),
        ('{"experiment": "benchmark", "config": {}}', "has no device, results, versions"),
        (json.dumps(content({}) | {"results": {"peak_gflops": 1}}), "has no results.machine"),
        (json.dumps(content({}) | {"results": 3}), "has no results.machine"),
        ("[" * 100_000, "is not JSON"),
        ("\xff", "is not JSON"),
    ],
)
def test_what_is_no_results_json_is_refused(files, capsys, text, message):
    results, readme = files
    before = readme.read_bytes()
    results.unlink()
    if text is not None:
        results.write_bytes(text.encode("latin-1"))
    assert main([str(results), "--readme", str(readme)]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("experiments.benchmark.report: ")
    assert error.count("\n") == 1
    assert message in error
    assert str(results) in error
    assert readme.read_bytes() == before


@pytest.mark.parametrize("arguments", [["--readme", "nowhere.md"], ["--nonsense"], ["a", "b", "c"]])
def test_bad_usage_is_one_line(files, capsys, arguments):
    results, _ = files
    assert main([str(results), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_readme_without_markers_is_left_alone(files, capsys):
    results, readme = files
    readme.write_text("nothing here")
    assert main([str(results), "--readme", str(readme)]) == 2
    assert f"has 0 times '{BEGIN}', expected it once" in capsys.readouterr().err
    assert readme.read_text() == "nothing here"
    assert not (results.parent / "roofline.md").exists()


def test_the_readme_and_the_page_say_what_was_published():
    readme, published = (HERE / "README.md").read_bytes().decode(), read(NEWEST)
    others = [read(path) for path in sorted(NEWEST.parent.glob("*.json")) if path != NEWEST]
    assert replace(readme, section(published, others=others)) == readme
    assert NEWEST.with_name("roofline.md").read_text() == page(published)


def test_what_was_published_is_small():
    sizes = {path.name: path.stat().st_size for path in NEWEST.parent.iterdir()}
    assert sizes.pop(NEWEST.name) < 90_000
    assert {name for name in sizes if name.endswith(".png")} == {"scale.png", "roofline.png"}
    assert all(size < 100_000 for size in sizes.values())
