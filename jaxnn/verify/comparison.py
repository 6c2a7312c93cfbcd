"""Formula and reference: derivatives by autodiff, and both at the same inputs, in any layout.

The reference is the derivative of ``of`` by forward and by reverse mode. All trials of formula and
reference are one compiled program.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn.types import PyTree
from jaxnn.verify.black_box import BlackBox, black_box, has_values_of
from jaxnn.verify.claims import (
    Claim,
    at_path,
    call,
    learning_rate_name,
    refuse_complex,
    with_path,
)
from jaxnn.verify.graph import (
    LOOPED,
    OF_TORCH,
    Unsupported,
    by_primitives,
    equations,
    over_trials,
    parameter,
    primitives,
)
from jaxnn.verify.inputs import draw, named_leaves
from jaxnn.verify.translation import TooManyOperations, as_jax, is_numpy

Inputs = Mapping[str, PyTree]

CHUNK = 2**20
"""The most entries of a derivative computed at once; forward mode needs a multiple in memory."""

MOST_OPERATIONS = 2**27
"""The most scalar operations between two looks at the clock, a fraction of a second."""

MOST_EXACTLY = 4_000_000
"""The most scalar operations of formula and reference at an input in balls or residues."""

MOST_INTERMEDIATE = 2**24
"""The most entries of an array on the way of forward mode, which carries all parameters at once."""

MOST_EQUATIONS = 25_000
"""The most operations of a claim's programs, of which XLA compiles 1,000 or fewer in a second."""

MOST_TRANSLATED = 3000
"""The most operations in the translation of a formula; more are judged by their values."""

FEW_TRIALS = 64
"""Trials between two looks at the clock where the operations of a trial are not known."""

MOST_ENTRIES = 2**23
"""The most numbers in the inputs of all random trials."""


class FormulaError(Exception):
    """The formula cannot be evaluated; the cause is the formula's exception."""


class FunctionError(Exception):
    """``of`` cannot be evaluated or differentiated; the cause is the exception of ``of``."""


def reference(
    claim: Claim, mode: str = "reverse", of: Callable[..., PyTree] | None = None
) -> Callable[[Inputs], PyTree]:
    """Autodiff's result for a claim, as a function of the inputs.

    Args:
      claim: the claim; ``check_value_shape`` tells whether its ``of`` has a value to derive.
      mode: of autodiff, ``forward`` or ``reverse``.
      of: a function of the inputs in place of the claim's, such as one term of the objective.

    Returns:
      A function to arrays in jaxnn's layout, in a tuple if the claim has several ``wrt``; of a
      claim on some entries alone the other entries are 0.
    """
    every, entries = _every_entry(claim, mode, of or of_by_primitives(claim)), claim.entries
    return every if entries is None else lambda inputs: entries(inputs, every(inputs))


def _every_entry(
    claim: Claim, mode: str, function: Callable[..., PyTree]
) -> Callable[[Inputs], PyTree]:
    """``reference`` with every entry."""
    if claim.kind == "value":
        return function

    def derivative(inputs: Inputs) -> PyTree:
        parts = tuple(at_path(inputs, path) for path in claim.wrt)

        def of_parts(parts: tuple[PyTree, ...]) -> PyTree:
            replaced = inputs
            for path, part in zip(claim.wrt, parts, strict=True):
                replaced = with_path(replaced, path, part)
            return function(replaced)

        gradient = partial(_derivative, mode, jax.grad, of_parts)
        if claim.kind in ("gradient", "vjp"):
            result = claim.stated(inputs, gradient(parts))
        elif claim.kind == "jacobian":
            result = claim.stated(inputs, _derivative(mode, jax.jacrev, of_parts, parts))
        elif claim.kind == "hessian":
            rows = claim.stated(inputs, _derivative(mode, jax.jacrev, gradient, parts))
            result = tuple(row[0] for row in rows) if claim.single else rows
        elif is_rule(claim, inputs):
            return of_parts(parts)
        else:
            rate, slopes = inputs[_rate(claim)], claim.stated(inputs, gradient(parts))
            result = jax.tree.map(lambda part, slope: part - rate * slope, parts, slopes)
        return result[0] if claim.single else result

    return derivative


@lru_cache(maxsize=32)
def of_by_primitives(claim: Claim) -> Callable[[Inputs], PyTree]:
    """The claim's ``of`` without custom derivative rules, as a function of the inputs."""
    return by_primitives(lambda inputs: call(claim.of, inputs))


def is_rule(claim: Claim, inputs: Inputs) -> bool:
    """Whether the ``of`` of an update is the update rule, rather than an objective."""
    if claim.kind != "update":
        return False
    value = jax.eval_shape(lambda inputs: call(claim.of, inputs), inputs)
    parts = [at_path(inputs, path) for path in claim.wrt]
    shapes = [leaf.shape for leaf in jax.tree.leaves(value)]
    same = shapes == [jnp.shape(leaf) for leaf in jax.tree.leaves(parts)]
    return same and (learning_rate_name(claim) is None or shapes != [()])


def _derivative(
    mode: str, reverse: Callable[..., Any], function: Callable[..., Any], parts: PyTree
) -> PyTree:
    """The derivative in a mode; forward mode for functions with loops that cannot be reversed."""
    if mode == "reverse":
        try:
            return reverse(function)(parts)
        except ValueError as error:
            if "Reverse-mode differentiation does not work" not in str(error):
                raise
    return jax.jacfwd(function)(parts)


def check_value_shape(claim: Claim, one: Inputs) -> None:
    """Refuses an ``of`` whose value has the wrong shape for the claim's kind.

    Raises:
      ValueError: a gradient, Hessian or update needs a scalar, a Jacobian needs one array; real.
    """
    value = jax.eval_shape(of_by_primitives(claim), one)
    refuse_complex("of", value)
    shape = getattr(value, "shape", None)
    described = type(value).__name__ if shape is None else f"shape {shape}"
    if claim.kind == "jacobian" and shape is None:
        raise ValueError(f"of returns {described}, expected one array to take a Jacobian of")
    scalar = claim.kind in ("gradient", "hessian", "vjp") or (
        claim.kind == "update" and not is_rule(claim, one)
    )
    if scalar and shape != ():
        raise ValueError(f"of returns {described}, expected a scalar to take a gradient of")


def _rate(claim: Claim) -> str:
    name = learning_rate_name(claim)
    if name is None:
        raise ValueError(
            f"of is the objective of an update, expected rate= to name its learning rate among "
            f"the inputs {', '.join(claim.inputs)}"
        )
    return name


class TracedClaim(NamedTuple):
    """The jaxprs of a claim at fixed sizes."""

    claim: Claim
    sizes: dict[str, int]
    formula: core.ClosedJaxpr | None  # flat inputs -> leaves of the formula's value; see `read`
    forward: core.ClosedJaxpr  # flat inputs -> leaves of the reference by forward mode
    reverse: core.ClosedJaxpr  # flat inputs -> leaves of the reference by reverse mode
    names: tuple[str, ...]  # per leaf of the reference: the parameter of the derivative
    value_ranks: tuple[int, ...]  # per leaf of the reference: leading axes of the value of `of`
    value: core.ClosedJaxpr  # flat inputs -> leaves of the value of `of`
    run: Callable[..., Any]  # inputs [T, ...] -> leaves of formula, forward, reverse; finite [T]
    chunk: int  # the most trials of one run
    black_box: BlackBox | None = None  # the formula, where JAX does not trace the formula

    @property
    def read(self) -> core.ClosedJaxpr | None:
        """The formula's jaxpr; of a black box the translation's, if the values are equal."""
        return None if self.black_box and not self.black_box.is_translated else self.formula

    @property
    def formula_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the formula's leaves."""
        if self.black_box:
            return self.black_box.shapes
        return [aval.shape for aval in self.formula.out_avals] if self.formula else []


class Values(NamedTuple):
    """Leaves of formula and reference at every trial, each [T, ...]."""

    formula: list[np.ndarray]
    reference: list[np.ndarray]  # by reverse mode
    forward: list[np.ndarray]
    finite: np.ndarray  # [T], whether the value of `of` is finite


@lru_cache(maxsize=32)
def trace_claim(
    claim: Claim, sizes: tuple[tuple[str, int], ...], both_modes: bool = True
) -> TracedClaim:
    """Traces formula and reference at fixed sizes, pairs (name, number).

    A formula that JAX does not trace is a black box, in place of a program. Without
    ``both_modes``, or where forward mode needs too much memory, reverse mode also stands
    for forward mode.

    Raises:
      FormulaError: from the exception that the formula raised.
      FunctionError: from the exception that ``of`` raised.
    """
    if claim.truth is not None:
        return _with_formula_of(claim, trace_claim(claim.truth, sizes, both_modes))
    one = one_trial(claim, dict(sizes))
    with _raised_as(FunctionError):
        check_value_shape(claim, one)
    with _raised_as(FormulaError):
        formula, box = _formula(claim, one, dict(sizes))
    with _raised_as(FunctionError):
        reverse = _jaxpr(reference(claim, "reverse"), one)
        both_modes &= OF_TORCH not in primitives(reverse)  # whose autograd is the reference
        forward = _jaxpr(reference(claim, "forward"), one) if both_modes else reverse
        if _largest_array(forward) > MOST_INTERMEDIATE:
            forward = reverse
    names, ranks = _leaf_names(claim, one, [aval.shape for aval in reverse.out_avals])

    value = _jaxpr(of_by_primitives(claim), one)
    with _raised_as(FunctionError):
        _refuse_lost_writes(claim, value, dict(sizes))
        programs = [*filter(None, (forward, reverse, value, formula))]
        if (count := sum(len(program.jaxpr.eqns) for program in programs)) > MOST_EQUATIONS:
            raise TooManyOperations(
                f"loops in Python become {count:,} operations of JAX, expected at most "
                f"{MOST_EQUATIONS:,}: fixed sizes, such as real(2, 3), or code without loops"
            )
    functions = [core.jaxpr_as_fun(program) for program in programs]

    def run(*flat: jax.Array) -> tuple[Any, ...]:
        forward, reverse, numbers, *leaves = (function(*flat) for function in functions)
        finite = [jnp.all(jnp.isfinite(leaf)) for leaf in numbers]
        finite = jnp.all(jnp.stack([jnp.asarray(True), *finite]))
        return *leaves, forward, reverse, finite

    compiled = over_trials(run, programs)
    return TracedClaim(
        claim, dict(sizes), formula, forward, reverse, names, ranks, value,
        compiled if box is None else partial(box.beside, compiled),
        _trials_at_once(programs) if box is None else FEW_TRIALS, box,
    )  # fmt: skip


def _with_formula_of(claim: Claim, truth: TracedClaim) -> TracedClaim:
    """The claim, with the traced and compiled derivative of a claim that has the same."""
    with _raised_as(FormulaError):
        formula, box = _formula(claim, one_trial(claim, truth.sizes), truth.sizes)
    programs = [] if formula is None else [formula]
    compiled = [over_trials(core.jaxpr_as_fun(program), [program]) for program in programs]

    def run(*flat: jax.Array) -> tuple[Any, ...]:
        return *(leaves(*flat) for leaves in compiled), *truth.run(*flat)[1:]

    chunk = FEW_TRIALS if box else _trials_at_once((truth.forward, truth.reverse, *programs))
    run_all = run if box is None else partial(box.beside, run)
    return truth._replace(claim=claim, formula=formula, run=run_all, chunk=chunk, black_box=box)


def _refuse_lost_writes(claim: Claim, value: core.ClosedJaxpr, sizes: dict[str, int]) -> None:
    """Refuses an ``of`` in NumPy that JAX traces without an error to another function."""
    plain = replace(claim, kind="value", wrt=(), entries=None, conventions=())
    if is_numpy(claim.of) and not has_values_of(value, claim.of, plain, sizes):
        raise ValueError(
            "the NumPy code has other values than the program that JAX traces, as where a row of "
            "an array is written into, expected jax.numpy"
        )


def _formula(
    claim: Claim, one: Inputs, sizes: dict[str, int]
) -> tuple[core.ClosedJaxpr | None, BlackBox | None]:
    """The formula's jaxpr; a black box, with the translation's jaxpr, where JAX traces none."""
    reason, translation = None, as_jax(claim.formula, MOST_TRANSLATED)
    if not claim.black_box:
        try:
            program = _jaxpr(claim.evaluate, one)
        except Exception as error:
            reason = error
        else:
            if translation is claim.formula or has_values_of(program, claim.formula, claim, sizes):
                return program, None
    box = black_box(claim, sizes, reason)
    if not claim.black_box and translation is not claim.formula:
        with suppress(Exception):
            program = _jaxpr(replace(claim, formula=translation).evaluate, one)
            if equations(program) <= MOST_TRANSLATED:
                return program, box
    return None, box


def _largest_array(program: core.ClosedJaxpr) -> int:
    shapes = (v.aval.shape for equation in program.jaxpr.eqns for v in equation.outvars)
    return max(map(math.prod, shapes), default=0)


def _trials_at_once(programs: Sequence[core.ClosedJaxpr]) -> int:
    """As many trials as fit into memory, and take no longer than a fraction of a second."""
    names = set().union(*map(primitives, programs))
    chunk = CHUNK // max(1, _entries(programs[1].out_avals))
    if names & {*LOOPED, "while", OF_TORCH}:
        chunk = min(chunk, FEW_TRIALS)
    return max(1, min(chunk, MOST_OPERATIONS // max(1, sum(map(_operations, programs)))))


@contextmanager
def _raised_as(failure: type[Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise failure from error


def _jaxpr(function: Callable[..., PyTree], one: PyTree) -> core.ClosedJaxpr:
    """The program from flat inputs to flat real numbers; booleans and integers are converted."""
    leaves, structure = jax.tree.flatten(one)

    def flat(*leaves):
        values = map(jnp.asarray, jax.tree.leaves(function(jax.tree.unflatten(structure, leaves))))
        return [v if jnp.issubdtype(v.dtype, jnp.floating) else v.astype(float) for v in values]

    return jax.make_jaxpr(flat)(*leaves)


def one_trial(claim: Claim, sizes: dict[str, int]) -> dict[str, PyTree]:
    """The shapes of the inputs of one trial."""
    drawn = draw(dict(claim.inputs), sizes, 1, np.random.default_rng(0))
    return jax.tree.map(lambda value: jax.ShapeDtypeStruct(value.shape[1:], value.dtype), drawn)


def evaluate(
    traced: TracedClaim, inputs: PyTree, seconds: float = math.inf, least: int = 0
) -> Values:
    """Formula and reference at every trial of the inputs, [T, ...].

    The trials after the first ``least`` are left out where all take more than so many seconds.
    """
    flat = jax.tree.leaves(inputs)
    trials = len(flat[0])
    chunk = min(trials, traced.chunk)
    chunks, deadline = [], math.inf
    for start in range(0, trials, chunk):
        if start == chunk:  # the first chunk is compiled
            deadline = time.perf_counter() + seconds
        if start >= least and time.perf_counter() > deadline:
            break
        # The last chunk overlaps the chunk before: equal shapes share a program.
        first = min(start, trials - chunk)
        results = traced.run(*(value[first : first + chunk] for value in flat))
        chunks.append(
            jax.tree.map(lambda leaf, skip=start - first: np.asarray(leaf)[skip:], results)
        )
    formula, forward, reverse, finite = (
        chunks[0] if len(chunks) == 1 else jax.tree.map(lambda *all: np.concatenate(all), *chunks)
    )
    return Values(formula, reverse, forward, finite)


def affordable_trials(traced: TracedClaim, trials: int) -> int:
    """The number of trials that fit into memory: fewer than requested for large inputs."""
    return min(trials, max(100, MOST_ENTRIES // max(1, _entries(traced.reverse.in_avals))))


def _entries(arrays: Sequence[Any]) -> int:
    return sum(math.prod(array.shape) for array in arrays)


def operations(traced: TracedClaim) -> int:
    """Roughly how many scalar operations formula and reference take at one trial."""
    return sum(map(_operations, filter(None, (traced.read, traced.reverse))))


def refuse_large(traced: TracedClaim) -> None:
    """Refuses a claim whose operations at a point need gigabytes, or minutes, in exact numbers.

    Raises:
      Unsupported: formula and reference take more than ``MOST_EXACTLY`` operations.
    """
    count = operations(traced)
    if count > MOST_EXACTLY:
        raise Unsupported(
            f"about {count:,} operations at an input, exact numbers take {MOST_EXACTLY:,}"
        )


def _operations(program: core.ClosedJaxpr) -> int:
    """Roughly how many scalar operations a program takes; of a loop without a length one step."""
    count = 0
    for equation in program.jaxpr.eqns:
        inner = 1
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = parameter(equation, "dimension_numbers")
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif equation.primitive.name in LOOPED:  # as many operations as a product of matrices
            inner = max((max(v.aval.shape, default=1) for v in equation.invars), default=1)
        count += inner * _entries([variable.aval for variable in equation.outvars])
        if equation.primitive.name == "scan":
            body = parameter(equation, "jaxpr")
            count += parameter(equation, "length") * _operations(body)
    return count


def norms(array: np.ndarray) -> np.ndarray:
    """The Euclidean norm of every trial's entries."""
    flat = array.reshape(len(array), math.prod(array.shape[1:]))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.einsum("te,te->t", flat, flat))


def relative_errors(value: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """||value - reference|| / (||reference|| + 0.001 median ||reference||) of every trial, [T].

    The median keeps cancellation in a nearly vanishing reference from counting as an error. The
    error is NaN where value or reference, [T, ...], is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        distances, sizes = norms(value - reference), norms(reference)
        finite = sizes[np.isfinite(sizes)]
        usual = float(np.median(finite)) if len(finite) else 0.0
        floor = 1e-3 * usual or np.finfo(float).tiny
        return distances / (sizes + floor)


class Layout(NamedTuple):
    """An arrangement of a derivative's entries."""

    code: str  # transpose, vec_order or shape
    name: str
    arrange: Callable[[np.ndarray], np.ndarray]  # of one trial


def declared_layout(layout: str | None, value_rank: int) -> Callable[[np.ndarray], np.ndarray]:
    """The arrangement of one trial's derivative in jaxnn's layout to a claim's ``layout``.

    The first ``value_rank`` axes of the derivative belong to the function's value.
    """
    if layout in ("vec", "vec_rows"):
        return partial(_vec, value_rank, "F" if layout == "vec" else "C")
    return np.transpose if layout else np.asarray


def alternative_layouts(shape: tuple[int, ...], value_rank: int) -> Iterator[Layout]:
    """Every arrangement of a derivative of a shape apart from jaxnn's, the plainest first."""
    rank = len(shape)
    if rank >= 2:
        yield Layout("transpose", "the transpose", np.transpose)
    if 0 < value_rank < rank and rank > 2:
        axes = (*range(value_rank, rank), *range(value_rank))
        name = "the parameter's axes before the value's"
        yield Layout("transpose", name, partial(np.transpose, axes=axes))
    if rank - value_rank >= 2 or value_rank >= 2:
        for order, lines in (("C", "rows"), ("F", "columns")):
            name, vec = f"vec, {lines} one after the other", partial(_vec, value_rank, order)
            yield Layout("vec_order", name, vec)
            yield Layout("vec_order", f"{name}, transposed", lambda a, vec=vec: vec(a).T)


def reshaped(layout: Layout, shape: tuple[int, ...]) -> Layout:
    """A layout with axes of length 1 dropped or added to reach a shape."""
    return layout._replace(arrange=lambda array: layout.arrange(array).reshape(shape))


def same_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether two shapes are equal apart from axes of length 1."""
    return [n for n in shape if n != 1] == [n for n in expected if n != 1]


def _vec(value_rank: int, order: Any, array: np.ndarray) -> np.ndarray:
    """[value, parameter]: the value's axes and the parameter's axes, each joined to one."""
    rows, columns = math.prod(array.shape[:value_rank]), math.prod(array.shape[value_rank:])
    flat = array.reshape(rows, columns, order=order)
    return flat if value_rank else flat[0]


def arranged(arrange: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """An arrangement applied to every trial of an array [T, ...]."""
    first = arrange(array[0])
    # An array of positions shows the target of every entry.
    index = arrange(np.arange(array[0].size).reshape(array[0].shape))
    return array.reshape(len(array), -1)[:, index.reshape(-1)].reshape(len(array), *first.shape)


def find_layout(
    claim: Claim, value: np.ndarray, reference: np.ndarray, value_rank: int
) -> Layout | None:
    """The layout in which formula and reference agree at every trial where both are finite.

    The formula's value is [T, ...], the reference, in jaxnn's layout, [T, ...].
    """
    code, name = "shape", "other axes of length 1"
    if claim.layout is not None:
        code = "transpose" if claim.layout == "transpose" else "vec_order"
        name = f"the layout, jaxnn's own rather than {claim.layout!r}"
    unchanged = Layout(code, name, np.asarray)
    for layout in (unchanged, *alternative_layouts(reference.shape[1:], value_rank)):
        expected = arranged(layout.arrange, reference)
        if not same_shape(value.shape[1:], expected.shape[1:]):
            continue
        errors = relative_errors(value.reshape(expected.shape), expected)
        errors = errors[np.isfinite(errors)]
        if len(errors) and np.all(errors <= claim.tolerance):
            return reshaped(layout, value.shape[1:])
    return None


def _leaf_names(
    claim: Claim, one: dict[str, PyTree], shapes: Sequence[tuple[int, ...]]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Per leaf of the reference: the parameter's name, and the leading axes of the value."""
    parts: list[tuple[str, int]] = []
    for path in claim.wrt:
        for inside, leaf in named_leaves(at_path(claim.inputs, path)):
            parts.append((path + inside, len(leaf.shape)))
    names, ranks = [name for name, _ in parts], [0] * len(shapes)
    if claim.kind == "hessian":
        names, ranks = zip(
            *((f"{a}, {b}", rank) for a, rank in parts for b, _ in parts), strict=True
        )
    elif claim.kind == "jacobian":
        ranks = [len(shape) - rank for shape, (_, rank) in zip(shapes, parts, strict=True)]
    elif claim.kind == "value" and len(shapes) == 1:
        names = ["value"]
    elif claim.kind == "value" or (is_rule(claim, one) and len(parts) != len(shapes)):
        names = [f"value[{i}]" for i in range(len(shapes))]
    return tuple(names), tuple(ranks)
