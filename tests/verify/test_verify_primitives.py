"""Primitives of JAX: known to the balls, or listed here as unknown, and named if met."""

import importlib
import pkgutil
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax._src
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Primitive
from samples import made, verdict_on

from jaxnn.verify import real, verify
from jaxnn.verify.exact import interpreter
from jaxnn.verify.exact.balls import FUNCTIONS, Balls, precision
from jaxnn.verify.graph import CALLS, Unsupported, parameter, scan_counts

HARDWARE = (
    "pallas", "cudnn", "mosaic", "thunky", "tpu", "triton", "export", "internal_test_util", "test",
    "debugger", "clusters", "interpreters", "distributed", "basearray", "deprecations", "profiler",
    "lax_reference",
)  # fmt: skip
"""Modules of JAX about kernels, devices, files and JAX's development."""

KNOWN = {
    *interpreter.RULES,
    *interpreter.INTEGER,
    *FUNCTIONS,
    *Balls.RULES,
    *CALLS,
    "iota",
}
"""Primitives with a rule for floating-point numbers, control flow, and calls."""

INTEGERS = {
    "clz", "mulhi", "population_count", "reduce_and", "reduce_or", "reduce_xor", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "threefry2x32", "threefry4x32", "philox2x32",
    "philox4x32", "lu_pivots_to_permutation", "empty", "platform_index", "axis_index",
    "iota_2x32_shape", "random_bits", "random_clone", "random_fold_in", "random_seed",
    "random_split", "random_unwrap", "random_wrap", "rng_bit_generator",
}  # fmt: skip
"""Primitives without operands in floating point: JAX itself computes the results."""

UNKNOWN = {
    "special functions": {
        "igamma_grad_a", "random_gamma", "nextafter",
    },
    "linear algebra": {
        "cholesky_update", "eig", "geqp3", "geqrf", "hessenberg", "householder_product", "ormqr",
        "schur", "symmetric_product", "tridiagonal", "tridiagonal_solve",
    },
    "windows, products and order": {
        "approx_top_k", "eq_to", "ragged_dot_general", "reduce", "reduce_window", "scaled_dot",
        "select_and_scatter", "top_k",
    },
    "other number formats": {"from_edtype", "to_edtype"},
    "random numbers": {"rng_uniform"},
    "several devices": {
        "all_gather", "all_gather_done", "all_gather_invariant", "all_gather_reduced",
        "all_gather_reduced_start", "all_gather_start", "all_to_all", "all_to_all_done",
        "all_to_all_start", "layout_constraint", "pbroadcast", "pbroadcast_done",
        "pbroadcast_dynamic", "pbroadcast_start", "pmax", "pmin", "ppermute", "ppermute_done",
        "ppermute_start", "precv", "preduced", "psend", "psum", "psum_done", "psum_invariant",
        "psum_invariant_start", "psum_start", "pvary", "ragged_all_to_all", "reduce_scatter",
        "reduce_scatter_done", "reduce_scatter_start", "reduced_vary_cast", "reduced_vary_cast_p",
        "relayout", "reshard", "shard_alike", "shard_map", "sharding_constraint", "unreduced_pmax",
        "unreduced_pmin", "unreduced_psum", "unreduced_psum_start", "unreduced_reduce_scatter",
        "unreduced_reduce_scatter_start", "vary_unreduced_cast", "vary_unreduced_cast_p",
        "with_memory_space_constraint",
    },
    "effects: references, callbacks, tokens": {
        "accum_grad_in_ref", "addupdate", "after_all", "box_get", "box_set", "buffer_callback",
        "check", "create_linear", "create_token", "debug_callback", "debug_print", "empty2",
        "empty_ref", "ffi_call", "free_ref", "freeze", "get", "inspect_sharding", "io_callback",
        "log_extend", "log_read", "new_box", "new_log", "new_ref", "pin", "program_order",
        "pure_callback", "run_state", "swap", "unpin",
    },
    "calls": {
        "call", "call_hi_primitive_linearized", "compute_on",
        "custom_jvp_call_jaxpr", "custom_partitioning", "custom_vmap_call", "eval_jaxpr",
        "linear_call", "remat_opt", "xla_metadata_call",
    },
    "inside JAX": {
        "broadcast_to", "dce_sink", "stage", "tie", "unreachable", "xla_metadata_value",
        "zeros_like",
    },
}  # fmt: skip


def excluded(module: str) -> bool:
    return any(part.startswith(HARDWARE) for part in module.split(".")[2:])


@pytest.fixture(scope="module")
def primitives() -> dict[str, str]:
    """The primitives of this JAX by name, with a module that defines or imports each."""

    def load(package):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if not excluded(module.name):
                loaded = importlib.import_module(module.name)
                if module.ispkg:
                    load(loaded)

    load(jax._src)
    return {
        value.name: name
        for name, module in list(sys.modules.items())
        if name.startswith("jax._src.") and not excluded(name)
        for value in list(vars(module).values())
        if isinstance(value, Primitive)
    }


def test_every_primitive_of_jax_is_known_or_listed_as_unknown(primitives):
    listed = KNOWN | INTEGERS | set().union(*UNKNOWN.values())
    new = {name: module for name, module in primitives.items() if name not in listed}
    assert len(primitives) > 200
    assert not new, f"primitives of JAX {jax.__version__} that no table names: {new}"


def test_no_primitive_is_listed_as_both_known_and_unknown():
    assert not KNOWN & set().union(*UNKNOWN.values())


def used(closed: Any) -> set[str]:
    """The names of the primitives of a jaxpr and of every jaxpr in a parameter."""
    jaxpr = closed.jaxpr if isinstance(closed, ClosedJaxpr) else closed
    names = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                if hasattr(inner, "eqns") or isinstance(inner, ClosedJaxpr):
                    names |= used(inner)
    return names


def public_functions() -> dict[str, Any]:
    """Functions of the public API of one array, by qualified name."""
    return {
        f"{module.__name__}.{name}": function
        for module in (jnp, jax.nn, jax.lax, special)
        for name, function in sorted(vars(module).items())
        if callable(function) and not name.startswith("_") and not isinstance(function, type)
    }


def traced_of_one_array(function) -> set[str]:
    """The primitives of a function of [3, 3] and of the gradient; none if it takes no array."""
    names: set[str] = set()
    x = np.full((3, 3), 0.3)
    try:
        names |= used(jax.make_jaxpr(function)(x))
        names |= used(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(function(x))))(x))
    except Exception:  # functions of other arguments raise all kinds of errors
        pass
    return names


@pytest.mark.slow
def test_every_primitive_that_public_functions_produce_is_in_a_table(x64):
    listed = KNOWN | INTEGERS | set().union(*UNKNOWN.values())
    found: dict[str, str] = {}
    for name, function in public_functions().items():
        found |= dict.fromkeys(traced_of_one_array(function), name)
    assert len(found) > 80
    new = {name: function for name, function in found.items() if name not in listed}
    assert not new, f"primitives of JAX {jax.__version__} that no table names: {new}"


EVERYDAY = {
    jnp: "abs arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil cos cosh cumprod cumsum diag "
    "diff dot exp exp2 expm1 floor log log10 log1p log2 max mean median min negative prod "
    "reciprocal sign sin sinc sinh sort sqrt square std sum tan tanh trace tril var",
    jax.nn: "celu elu gelu glu hard_sigmoid hard_swish hard_tanh leaky_relu log_sigmoid "
    "log_softmax logsumexp mish relu relu6 selu sigmoid silu soft_sign softmax softplus "
    "squareplus standardize",
    special: "entr erf erfc erfinv expit log_ndtr logit logsumexp ndtr xlogy",
}


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module, names in EVERYDAY.items() for name in names.split()],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_the_balls_know_everyday_functions_and_their_gradients(module, name, x64):
    function = getattr(module, name)
    x = np.full((4, 4), 0.3)
    call = (lambda x: function(x, x)) if name in ("dot", "xlogy") else function
    for differentiated in (call, jax.grad(lambda x: jnp.sum(call(x)))):
        interpreter.compile(jax.make_jaxpr(differentiated)(x), Balls())


def test_a_verdict_names_a_primitive_unknown_to_the_balls():
    judged = verdict_on(lambda x: jnp.nextafter(x, x), of=lambda x: x, kind="value")
    assert judged.verdict == "holds"
    assert "'nextafter' is unknown to jaxnn" in judged.detail


def equation(**params) -> Any:
    return SimpleNamespace(primitive=SimpleNamespace(name="scan"), params=params, invars=[1, 2])


def test_a_parameter_is_found_under_any_of_its_names():
    assert parameter(equation(new=3), "old", "new") == 3


@pytest.mark.parametrize("read", [lambda e: parameter(e, "axes"), scan_counts])
def test_a_parameter_that_is_missing_is_named_with_its_primitive(read):
    with pytest.raises(Unsupported, match=r"'scan' without a parameter .* is unknown to jaxnn"):
        read(equation(length=3))


def test_a_scan_without_known_parameters_is_named_in_the_verdict(monkeypatch):
    def missing(_):
        return scan_counts(equation())

    def total(x):
        return jax.lax.scan(lambda carried, entry: (carried + entry**2, None), 0.0, x)[0]

    claim = made(lambda x: 2 * x, of=total, inputs={"x": real("n")})
    assert verify(claim, trials=10).detail == ""
    monkeypatch.setattr(interpreter, "scan_counts", missing)
    judged = verify(claim, trials=10)
    assert judged.verdict == "holds"
    assert "'scan' without a parameter num_consts or ft_in is unknown" in judged.detail


def test_a_polynomial_is_evaluated_in_any_precision(x64):
    polynomial = getattr(jax.lax, "polynomial", None)
    if polynomial is None:
        pytest.skip("this JAX has no polynomial")
    closed = jax.make_jaxpr(lambda x: polynomial(x, [1.0, 0.0, 1.0]))(0.0)
    (value,) = evaluated(closed, np.float64(2.0**-100))
    with precision(400):
        assert value.item() - 1 == 2.0**-200


def evaluated(closed, x):
    balls = Balls()
    with precision(400):
        return interpreter.compile(closed, balls)([balls.exactly(x)])


def test_bits_of_a_number_are_those_of_float64(x64):
    def high_half(x):
        bits = jax.lax.bitcast_convert_type(x, np.uint64) & np.uint64(0xFFFFFFFFF8000000)
        return jax.lax.bitcast_convert_type(bits, np.float64)

    x = np.array([0.1, -3.7])
    (values,) = evaluated(jax.make_jaxpr(high_half)(x), x)
    np.testing.assert_array_equal(values.astype(float), jax.jit(high_half)(x))
