"""How much a function computes, counted in its program before anything is compiled or run."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend as jex

# In multiply-adds of a matrix product, which a processor does fastest: an entry that is merely moved or added; one of a
# transcendental function; and of decompositions of an n x n matrix, times n^3 (measured: docs/devdocs/solvers.md, Choosing).
_ELEMENTWISE, _TRANSCENDENTAL = 4.0, 40.0
_CUBIC = {"eigh": 8.0, "eig": 80.0, "svd": 60.0, "qr": 6.0, "cholesky": 1.0, "lu": 2.0}
_FUNCTIONS = {"tanh", "exp", "exp2", "log", "log1p", "expm1", "logistic", "erf", "sin", "cos", "pow", "erf_inv"}


def count_operations(function: Callable[..., Any], *arguments: Any) -> float:
    """About how long `function` takes, in multiply-adds of a matrix product: the same on every machine and in every run.

    What a loop does is counted as often as it is known to run, once where that depends on numbers.

    **Arguments:** `function`: of arrays, as JAX can trace it; `arguments`: arrays, or their shapes.
    """
    return _of_program(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_program(program: jex.core.Jaxpr) -> float:
    return sum((_of_equation(equation) for equation in program.eqns), start=0.0)


def _of_equation(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    inner = [_of_program(program) for program in _programs(parameters)]
    if name == "cond":
        return max(inner)
    if inner:
        return sum(inner) * (parameters["length"] if name == "scan" else 1)
    made = float(sum(math.prod(out.aval.shape) for out in equation.outvars))
    taken = [out.aval.shape for out in equation.invars]
    if name == "dot_general":
        (summed, _), _ = parameters["dimension_numbers"]
        return made * math.prod(taken[0][axis] for axis in summed)
    if name == "conv_general_dilated":
        features = parameters["dimension_numbers"].rhs_spec[0]
        return made * math.prod(taken[1]) / taken[1][features]
    if name in _CUBIC:
        *batch, rows, columns = taken[0]
        return _CUBIC[name] * math.prod(batch) * max(rows, columns) * min(rows, columns) ** 2
    if name == "triangular_solve":
        return made * taken[0][-1] / 2
    return made * (_TRANSCENDENTAL if name in _FUNCTIONS else _ELEMENTWISE)


def _programs(parameters: dict[str, Any]) -> list[jex.core.Jaxpr]:
    """The programs that an equation has within it."""
    values = [
        value for entry in parameters.values() for value in (entry if isinstance(entry, tuple | list) else [entry])
    ]
    closed = [getattr(value, "jaxpr", value) for value in values]
    return [value for value in closed if isinstance(value, jex.core.Jaxpr)]
