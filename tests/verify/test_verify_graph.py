"""Functions as primitive operations: custom derivative rules are dropped, calls inlined."""

from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.export import export
from samples import made, verdict_on

from jaxnn.verify import verify
from jaxnn.verify.comparison import trace_claim
from jaxnn.verify.graph import build_graph, by_primitives, evaluate, is_library
from jaxnn.verify.worker import load_claims

pytestmark = pytest.mark.usefixtures("x64")

X = np.array([1.5, -0.5, 2.0])


@jax.custom_jvp
def mistaken_square(x):
    """x^2 whose author says that the derivative is 3 x."""
    return x**2


@mistaken_square.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return x**2, 3 * x * t


@jax.custom_vjp
def square_by_vjp(x):
    """x^2 whose author says that the derivative is 3 x."""
    return x**2


square_by_vjp.defvjp(lambda x: (x**2, x), lambda x, g: (3 * x * g,))


def scanned(x):
    return lax.scan(lambda total, x: (total + mistaken_square(x), None), 0.0, x)[0]


def branched(x):
    square = mistaken_square
    return jnp.sum(lax.cond(x[0] > 0, lambda x: square(x), lambda x: 0 * square(x), x))


def switched(x):
    return jnp.sum(lax.switch(1, [jnp.sin, mistaken_square], x))


def looped(x):
    """Three times around: x^2 three times over."""
    step = (0, jnp.zeros_like(x))
    after = lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + mistaken_square(x)), step
    )
    return jnp.sum(after[1]) / 3


WAYS_TO_HIDE_A_RULE = {
    "as it is": lambda x: jnp.sum(mistaken_square(x)),
    "custom_vjp": lambda x: jnp.sum(square_by_vjp(x)),
    "jit": lambda x: jnp.sum(jax.jit(mistaken_square)(x)),
    "jit within jit": lambda x: jax.jit(lambda x: jnp.sum(jax.jit(mistaken_square)(x)))(x),
    "vmap": lambda x: jnp.sum(jax.vmap(mistaken_square)(x)),
    "checkpoint": lambda x: jnp.sum(jax.checkpoint(mistaken_square)(x)),
    "scan": scanned,
    "cond": branched,
    "switch": switched,
    "while": looped,
    "scan within scan": lambda x: lax.scan(lambda c, _: (c + scanned(x), None), 0.0, None, 1)[0],
}


@pytest.mark.parametrize("where", WAYS_TO_HIDE_A_RULE)
def test_custom_rules_are_dropped_wherever_they_are(where):
    function = WAYS_TO_HIDE_A_RULE[where]
    if where != "custom_vjp":
        np.testing.assert_allclose(jax.jit(jax.jacfwd(function))(X), 3 * X)  # it is in force
    plain = by_primitives(function)
    value, slopes = jax.jit(lambda x: (plain(x), jax.jacfwd(plain)(x)))(X)
    np.testing.assert_allclose(value, np.sum(X**2))
    np.testing.assert_allclose(slopes, 2 * X)


@pytest.mark.parametrize("where", sorted(set(WAYS_TO_HIDE_A_RULE) - {"while"}))
def test_custom_rules_are_dropped_in_reverse_mode_too(where):
    function = by_primitives(WAYS_TO_HIDE_A_RULE[where])
    np.testing.assert_allclose(jax.jit(jax.grad(function))(X), 2 * X)


@pytest.mark.parametrize("where", ["custom_vjp", "scan"])
def test_a_function_with_a_wrong_rule_does_not_mislead_the_verdict(where):
    of = WAYS_TO_HIDE_A_RULE[where]
    assert verdict_on(lambda x: 2 * x, of=of).verdict == "holds"
    assert verdict_on(lambda x: 3 * x, of=of).verdict == "refuted"


@pytest.mark.parametrize("wrong", [mistaken_square, square_by_vjp])
def test_second_derivatives_are_those_of_the_primitives(wrong):
    function = by_primitives(lambda x: jnp.sum(wrong(x)))
    second = jax.jit(jax.jacfwd(jax.grad(function)))(X)
    np.testing.assert_allclose(second, 2 * np.eye(3))


def test_calls_are_inlined():
    graph = build_graph(jax.jit(lambda x: jax.jit(jnp.exp)(jax.checkpoint(jnp.sin)(x))), X)
    assert [node.primitive.name for node in graph.nodes] == ["sin", "exp"]


def test_what_is_written_twice_is_one_value():
    graph = build_graph(lambda x: jnp.exp(x) + jnp.exp(x) * jax.jit(jnp.exp)(x), X)
    assert sorted(node.primitive.name for node in graph.nodes) == ["add", "exp", "mul"]


def test_operations_with_other_parameters_are_not_one_value():
    graph = build_graph(lambda x: jnp.sum(x, axis=0) @ jnp.sum(x, axis=1), np.ones((3, 3)))
    assert [node.primitive.name for node in graph.nodes].count("reduce_sum") == 2


def test_a_graph_keeps_what_does_not_depend_on_the_inputs():
    table = np.arange(3.0)
    graph = build_graph(lambda x: (x * table + 2.0, table), X)
    products, kept = evaluate(graph, [X])
    np.testing.assert_array_equal(products, X * table + 2.0)
    np.testing.assert_array_equal(kept, table)


def test_operations_know_the_line_they_were_written_on():
    graph = build_graph(lambda x: jnp.sin(x), X)
    line = test_operations_know_the_line_they_were_written_on.__code__.co_firstlineno + 1
    assert [node.where for node in graph.nodes] == [f"line {line} of test_verify_graph.py"]


def test_trees_go_in_and_come_out_as_they_were():
    function = by_primitives(lambda tree: {"sum": tree["a"] + tree["b"][0], "a": (tree["a"],)})
    value = function({"a": X, "b": [2 * X]})
    np.testing.assert_array_equal(value["sum"], 3 * X)
    np.testing.assert_array_equal(value["a"][0], X)


def test_a_loop_that_has_no_reverse_mode_is_judged_by_forward_mode():
    assert verdict_on(lambda x: 2 * x, of=looped).verdict == "holds"
    assert verdict_on(lambda x: -2 * x, of=looped).verdict == "refuted"


FOLDERS = ("jax/jaxlib/numpy", "jaxnn/verify", "numpy/jax")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_claim_file_below_a_folder_named_like_a_library_is_the_users(folder, tmp_path):
    file = tmp_path / folder / "claims.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import jax.numpy as jnp\n"
        "from jaxnn.verify import claim, real\n"
        "\n"
        "def f(w, x):\n"
        "    return jnp.sum(jnp.tanh(w @ x) ** 2)\n"
        "\n"
        '@claim(of=f, wrt="x", kind="gradient", inputs={"w": real("m", "n"), "x": real("n")})\n'
        "def gradient(w, x):\n"
        "    return w.T @ (2 * jnp.tanh(w @ x))\n"
    )
    (claim,) = load_claims(file)
    judged = verify(claim, trials=100)
    assert judged.verdict == "refuted"
    assert [finding.code for finding in judged.diagnosis] == ["activation_derivative_missing"]
    assert "line 5" in judged.diagnosis[0].where + judged.diagnosis[0].detail


@pytest.mark.parametrize("module", ["jax.numpy", "jax._src.lax.lax", "numpy", "jaxnn.verify.graph"])
def test_files_of_the_libraries_are_not_the_users(module):
    assert is_library(str(import_module(module).__file__))


def test_files_of_jaxnn_outside_of_verification_are_functions_like_the_users():
    assert not is_library(str(import_module("jaxnn.losses").__file__))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_program_of_the_random_trials_lowers_for_every_platform(platform):
    claim = made(lambda x: 3 * x**2, of=lambda x: jnp.sum(x**3))
    traced = trace_claim(claim, (("n", 3),))
    exported = export(
        traced.run,  # pyright: ignore[reportArgumentType]
        platforms=[platform],
    )(jnp.ones((100, 3)))
    assert exported.platforms == (platform,)
    assert [aval.shape for aval in exported.out_avals] == [(100, 3)] * 3 + [(100,)]
