"""``python -m jaxnn.verify``: exit statuses, what is refused in one line, what is printed."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxnn.__main__
from jaxnn.verify import Counterexample, Finding, Verdict, Worst, __main__, report, runner
from jaxnn.verify.claims import Description

CLAIMS = """\
import jax.numpy as jnp
from jaxnn.verify import claim, real

def square(z):
    return jnp.sum(z**2)

@claim(of=square, wrt="z", kind="gradient", inputs={"z": real("n")}, source="S9.1")
def right(z):
    return 2 * z

@claim(of=square, wrt="z", kind="gradient", inputs={"z": real("n")}, statement=r"-2z [bold]")
def wrong(z):
    return -2 * z
"""

HOLDS = Verdict("right", "S9.1", "gradient", "holds", 10_000, 1.25, None, None, (), 0.1)

REFUTED = Verdict(
    "wrong",
    "",
    "gradient",
    "refuted",
    10_000,
    None,
    Worst("z", (1,), -1.0, 1.0),
    Counterexample({"n": 2}, {"z": np.array([0.0, 0.5])}),
    (Finding("sign", "z", "the claim is the negative of the derivative"),),
    0.1,
)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = jax.config.values["jax_platforms"]
    yield
    jax.config.update("jax_platforms", before)


@pytest.fixture
def claims(tmp_path) -> Path:
    path = tmp_path / "claims.py"
    path.write_text(CLAIMS)
    (tmp_path / "second.py").write_text(CLAIMS)
    return path


@pytest.fixture
def main(claims, monkeypatch):
    """The command line on the two claims, their verdicts given."""

    def main(*flags, right=HOLDS, wrong=REFUTED):
        module: Any = types.ModuleType("jaxnn.verify.verification")
        verdicts = {"right": right, "wrong": wrong}
        module.verify = lambda claimed, *, trials, seed: verdicts[claimed.name]
        monkeypatch.setitem(sys.modules, "jaxnn.verify.verification", module)
        return __main__.main([str(claims), "--workers", "0", *map(str, flags)])

    return main


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        ("holds", 0),
        ("holds_unstable", 0),
        ("holds_other_layout", 1),
        ("kink", 0),
        ("refuted", 1),
        ("error", 1),
    ],
)
def test_the_exit_status_says_whether_all_claims_hold(main, verdict, status):
    assert main(wrong=REFUTED._replace(verdict=verdict)) == status


BAD = [
    ([], "Parameter FILES requires an argument"),
    (["FILE", "--trials", "0"], 'Invalid value "0" for --trials. Must be >= 1.'),
    (["FILE", "--trials", "2.5"], "'2.5', expected a whole number"),
    (["FILE", "--seed", "-1"], 'Invalid value "-1" for --seed. Must be >= 0.'),
    (["FILE", "--workers", "-1"], 'Invalid value "-1" for --workers. Must be >= 0.'),
    (["FILE", "--timeout", "0"], '"0.0" for --timeout. Expected a positive number of seconds'),
    (["FILE", "--timeout", "nan"], '"nan" for --timeout. Expected a positive number of seconds'),
    (["FILE", "--bogus"], "--bogus"),
    (["FILE", "--json"], "--json"),
    (["FILE", "--json", "FOLDER"], "Expected a file to write to: it is a folder"),
    (["FILE", "--html", "FOLDER/no/x.html"], "Expected a file to write to: No such file"),
    (["FILE", "--json", "FILE"], "its claims would be overwritten"),
    (["FILE", "--json", "FOLDER/x", "--html", "FOLDER/x"], "expected two files"),
    (["FILE", "FOLDER/nowhere.py"], "nowhere.py: No such file or directory"),
    (["FOLDER"], "Is a directory"),
    (["FILE", "FOLDER/second.py", "--workers", "0"], "2 files and no worker processes"),
]


@pytest.mark.parametrize(("argv", "says"), BAD, ids=lambda case: " ".join(case)[:50])
def test_bad_usage_is_status_2_and_one_line(argv, says, claims, capsys):
    before = sorted(claims.parent.iterdir())
    words = [
        word.replace("FILE", str(claims)).replace("FOLDER", str(claims.parent)) for word in argv
    ]
    assert __main__.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("jaxnn.verify: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert sorted(claims.parent.iterdir()) == before


def test_help_explains_every_flag(capsys):
    assert __main__.main(["--help"]) == 0
    printed = capsys.readouterr().out
    for flag in ("--trials", "--json", "--html", "--timeout", "--seed", "--workers", "FILES"):
        assert flag in printed


def test_the_help_of_the_console_command_names_the_console_command(capsys):
    assert jaxnn.__main__.main(["verify", "--help"]) == 0
    assert "jaxnn verify" in capsys.readouterr().out


def test_the_console_command_verifies(claims, monkeypatch, capsys):
    entries = [(Description(verdict.name), verdict) for verdict in (HOLDS, REFUTED)]
    monkeypatch.setattr(runner, "judge", lambda *_, **__: entries)
    assert jaxnn.__main__.main(["verify", str(claims), "--workers", "0"]) == 1
    assert "refuted" in capsys.readouterr().out


def test_the_console_command_alone_prints_its_usage(capsys):
    assert jaxnn.__main__.main([]) == 0
    printed = capsys.readouterr().out
    assert "jaxnn verify FILE.py" in printed
    assert "jaxnn --version" in printed


def test_the_console_command_tells_the_version(capsys):
    assert jaxnn.__main__.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxnn {jaxnn.__version__}\n"


def test_an_unknown_command_is_status_2_and_one_line(capsys):
    assert jaxnn.__main__.main(["derive", "x.py"]) == 2
    assert capsys.readouterr() == (
        "",
        "jaxnn: 'derive' is no command, expected verify or --version\n",
    )


def test_a_table_that_is_no_terminal_wraps_at_100_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    stream = io.StringIO()
    report.print_verdicts([HOLDS._replace(verdict="error", detail="word " * 80)], stream)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert stream.getvalue().count("word") == 80


def test_the_table_has_a_row_for_every_claim(main, capsys):
    main()
    printed = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in printed]
    assert ["name", "source", "verdict", "trials", "bits", "lost", "what"] in rows
    assert ["right", "S9.1", "holds", "10,000", "1.2"] in rows
    assert ["wrong", "refuted", "10,000", "sign", "(z)"] in rows


def test_what_speaks_against_a_claim_is_below_the_table(main, capsys):
    main()
    printed = capsys.readouterr().out
    assert printed.endswith(
        "wrong: refuted\n"
        "  statement: -2z [bold]\n"
        "  gradient by z, entry [1]: claimed -1, true 1; by float64\n"
        "  counterexample: n = 2; z = [0, 0.5]\n"
        "  diagnosis: sign in z: the claim is the negative of the derivative\n\n"
    )


def test_the_input_of_an_unstable_claim_is_below_the_table(main, capsys):
    example = Counterexample({}, {"z": np.array(40.0)})
    unstable = HOLDS._replace(verdict="holds_unstable", detail="loses it", counterexample=example)
    assert main(right=unstable, wrong=HOLDS._replace(name="wrong")) == 0
    assert capsys.readouterr().out.endswith(
        "right (S9.1): holds, unstable\n  at the input: z = 40\n  note: loses it\n\n"
    )


def test_refuted_claims_come_first_then_errors(monkeypatch):
    kinds = ("holds", "error", "kink", "refuted")
    stream = io.StringIO()
    report.print_verdicts([HOLDS._replace(name=f"a_{k}", verdict=k) for k in kinds], stream)
    names = [line.split()[0] for line in stream.getvalue().splitlines() if " a_" in line]
    assert names == ["a_refuted", "a_error", "a_holds", "a_kink"]


def test_rows_of_several_files_name_the_file():
    stream = io.StringIO()
    bad = Verdict("bad.py", "", "", "error", detail="line 1: SyntaxError", file="bad.py")
    report.print_verdicts([HOLDS._replace(file="good.py"), bad], stream)
    rows = [line.split() for line in stream.getvalue().splitlines()]
    assert ["bad.py", "error", "line", "1:", "SyntaxError"] in rows
    assert ["good.py", "right", "S9.1", "holds", "10,000", "1.2"] in rows


def test_one_bad_file_leaves_the_others_their_verdicts(tmp_path, monkeypatch, capsys):
    (tmp_path / "bad.py").write_text("x = (\n")
    (tmp_path / "exits.py").write_text("import os\nos._exit(0)\n")
    (tmp_path / "good.py").write_text(CLAIMS)
    monkeypatch.chdir(tmp_path)
    names = ["bad.py", "exits.py", "good.py"]
    flags = ["--json", "out.json", "--html", "out.html", "--trials", "20"]
    assert __main__.main([*names, *flags]) == 1
    rows = [
        (row["file"], row["name"], row["verdict"])
        for row in json.loads(Path("out.json").read_text())
    ]
    assert rows == [
        ("bad.py", "bad.py", "error"),
        ("exits.py", "exits.py", "error"),
        ("good.py", "right", "holds"),
        ("good.py", "wrong", "refuted"),
    ]
    page = Path("out.html").read_text()
    assert all(f"<code>{name}</code>" in page for name in names)
    assert "good.py, wrong: refuted\n" in capsys.readouterr().out


def test_a_file_that_ends_its_process_is_status_1(tmp_path, capsys):
    (tmp_path / "exits.py").write_text("import os\nos._exit(0)\n")
    assert __main__.main([str(tmp_path / "exits.py")]) == 1
    assert "the process ended early (exit status 0)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"verdict": "error", "detail": "KeyError: 'w' (f.py, line 3)"}, "KeyError: 'w' (f.py, li"),
        ({"verdict": "holds_other_layout", "detail": "the transpose"}, "the transpose"),
        (
            {"verdict": "kink", "worst": Worst("z", (0,), 1.0, 0.5, (0.0, 1.0))},
            "gradient by z, entry [0]: 0 from the left, 1 from the right",
        ),
        (
            {
                "verdict": "holds_unstable",
                "detail": "loses 53 of 53 bits",
                "counterexample": Counterexample({"n": 1}, {"z": np.array([40.0])}),
            },
            "loses 53 of 53 bits, at n = 1; z = [40]",
        ),
        (
            {
                "verdict": "holds_unstable",
                "detail": "loses 53 of 53 bits",
                "counterexample": Counterexample({}, {"z": np.ones(40)}),
            },
            f"loses 53 of 53 bits, at z = [{18 * '1, '}1 ...",
        ),
    ],
)
def test_the_table_says_what_is_remarkable(fields, what, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    stream = io.StringIO()
    report.print_verdicts([HOLDS._replace(**fields)], stream)
    assert what in stream.getvalue()


def test_a_terminal_gets_a_bar_with_the_claims(main, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    main()
    assert "2/2" in stream.getvalue()
    assert "wrong" in stream.getvalue()


def test_json_and_html_are_written(main, tmp_path, capsys):
    assert main("--json", tmp_path / "out.json", "--html", tmp_path / "out.html") == 1
    assert [entry["name"] for entry in json.loads((tmp_path / "out.json").read_text())] == [
        "right",
        "wrong",
    ]
    assert "<h1>" in (tmp_path / "out.html").read_text()
    assert f"wrote {tmp_path / 'out.json'}" in capsys.readouterr().out


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "no reader"), ValueError("closed")])
def test_a_lost_standard_output_loses_no_report(error, main, tmp_path, monkeypatch):
    class Lost(io.StringIO):
        def write(self, _):
            raise error

    monkeypatch.setattr(sys, "stdout", Lost())
    assert main("--html", tmp_path / "out.html") == 1
    assert "<h1>" in (tmp_path / "out.html").read_text()


def test_a_full_standard_output_is_status_2_and_loses_no_report(
    main, tmp_path, monkeypatch, capsys
):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main("--html", tmp_path / "out.html") == 2
    assert "No space left on device: 'standard output'" in capsys.readouterr().err
    assert "<h1>" in (tmp_path / "out.html").read_text()


def test_a_standard_output_of_few_characters_gets_escapes(main, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert main(wrong=REFUTED._replace(detail="± θ")) == 1
    sys.stdout.flush()
    assert b"note: +- \\u03b8" in sys.stdout.buffer.getvalue()  # type: ignore


@pytest.mark.parametrize("name", ["\x1b[31mred.py", "two\nlines.py", "\x9b2J.py", "\udcff.py"])
def test_a_line_on_a_path_shows_escapes_as_text(name, capsys):
    assert __main__.main([name]) == 2
    line = capsys.readouterr().err
    assert line.startswith("jaxnn.verify: ")
    assert line.count("\n") == 1
    assert line.strip().isprintable()
    assert line.isascii()


def test_a_write_that_fails_leaves_what_was_there(main, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    out.write_text("before")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert main("--json", out) == 2
    assert "No space left" in capsys.readouterr().err
    assert out.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"claims.py", "second.py", "out.json"}


def test_an_interruption_is_status_130(claims, monkeypatch, capsys):
    def judge(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "judge", judge)
    assert __main__.main([str(claims)]) == 130
    assert capsys.readouterr().err == "jaxnn.verify: interrupted\n"


def test_the_interrupt_key_ends_all_processes_without_a_word_more(tmp_path):
    (tmp_path / "fake_endless.py").write_text(
        "import sys, types\n"
        "def verify(claimed, *, trials=None, seed=0):\n"
        "    print('judging', file=sys.stderr, flush=True)\n    while True:\n        pass\n"
        "if sys.argv == ['-c']:\n"
        "    module = sys.modules['jaxnn.verify.verification'] = types.ModuleType('fake')\n"
        "    module.verify = verify\n"
    )
    (tmp_path / "claims.py").write_text("import fake_endless\n" + CLAIMS)
    command = [sys.executable, "-m", "jaxnn.verify", "claims.py", "--workers", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "judging\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.stderr.read() == "jaxnn.verify: interrupted\n"
    assert process.returncode == 130
