"""The exponential Runge-Kutta solver: no stiffness limits its steps, and it is exact for models linear in their weights."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._core import tree_add_scaled, tree_multiply, tree_scale
from ..geometry import Decomposition, Linearisation
from ._exponential_interpolation import ExponentialInterpolation, PackedTree, StepPath
from ._linearised import AbstractLinearisedSolver, remainder_at
from ._reduced import ReducedVector, apply_functions, combination, reduce
from ._term import LinearisedTerm


class ExponentialRungeKutta(AbstractLinearisedSolver):
    """Krogstad's exponential Runge-Kutta method of order 4, which linearises the flow at each step with its low-rank W.

    With the vector field F, D_i = F(t_i, U_i) - F(t_n, w_n) - W (U_i - w_n) and z = h W:

        U_2 = w + h/2 phi_1(z/2) F
        U_3 = w + h/2 phi_1(z/2) F + h phi_2(z/2) D_2
        U_4 = w + h phi_1(z) F + 2 h phi_2(z) D_3
        w+  = w + h phi_1(z) F + h (2 phi_2 - 4 phi_3)(z) (D_2 + D_3) + h (4 phi_3 - phi_2)(z) D_4

    The last line is the exact integral with the parabola through 0, (D_2 + D_3)/2 and D_4 for the remainder. The error estimate
    is the difference to the method with D_3 in the place of this mean, which has order 2 for any W, and order 4 if W is the
    whole Jacobian. The order 4 of the method holds for any W, because the D_i contain what W leaves out; a better W only allows
    longer steps. If the model is linear in its weights and the loss is quadratic, all D_i vanish and one step of any length is
    exact. A step costs one linearisation (the Gram matrix and its eigendecomposition), three further velocities, three J and
    eight J^T products.

    Sources: Krogstad, "Generalized integrating factor methods for stiff PDEs", J. Comput. Phys. 2005, ETDRK4-B; Hochbruck and
    Ostermann, Acta Numerica 2010, Section 2, where its stiff order is 3 in the worst case and 4 for a smooth remainder. The
    reduction to NC dimensions is derived in docs/theory.md, Exponential steps.

    The solver integrates a `LinearisedTerm`. Dense output is the same formula at intermediate times, of order 3, so that saves
    and events inside a long step see the fast modes decay. With `dense=True` each step keeps its linearisation, O(N M + NC^2)
    numbers.

    **Arguments:**

    - `decomposition`: how the modes of the Gram matrix are found. Beyond its dense limit only the leading modes are integrated
      exponentially, and the rest explicitly.
    """

    interpolation_cls: ClassVar = ExponentialInterpolation

    decomposition: Decomposition = Decomposition()

    def linearised_step(
        self, terms: LinearisedTerm, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: None, made_jump: Any
    ) -> tuple[tuple[PyTree, PyTree, dict[str, Any], None, diffrax.RESULTS], Linearisation]:
        """One step from t0 to t1, and the linearisation that it used."""
        weights, integrals = terms.split(y0)
        length = t1 - t0
        half = length / 2
        linearisation = terms.linearise(t0, weights, self.decomposition)
        coefficients = linearisation.direction.coefficients.reshape(-1)
        rates = terms.decay(weights)
        rest = None if rates is None else tree_scale(-1.0, tree_multiply(rates, weights))
        start = reduce(linearisation, rest, -coefficients)

        def remainder(previous: ReducedVector, stage: Any) -> tuple[ReducedVector, ReducedVector]:
            """D at w + s (phi_1(s W) F + share phi_2(s W) x), where x is the D of the stage before."""
            span, share = stage
            ((increment, amplitudes),) = apply_functions(
                linearisation, span, [[({1: 1.0}, start), ({2: share}, previous)]]
            )
            found = remainder_at(terms, linearisation, t0 + span, weights, span, increment, span * amplitudes)
            return found, found

        # A scan, so that the program contains the velocity only once and compiles faster.
        nothing = ReducedVector(
            jax.tree.map(jnp.zeros_like, weights), jnp.zeros_like(coefficients), jnp.zeros_like(linearisation.rates)
        )
        stages = jnp.stack([half, half, length]), jnp.asarray([0.0, 2.0, 2.0])
        found = jax.lax.scan(remainder, nothing, stages)[1]
        second, third, fourth = (jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(3))
        path = StepPath(
            linearisation=linearisation,
            start=start,
            slope=combination((second, third, fourth), (2.0, 2.0, -1.0)),
            bend=combination((second, third, fourth), (-2.0, -2.0, 2.0)),
            integrands=terms.integrands,
        )
        difference = combination((second, third), (1.0, -1.0))
        # The increment of the weights and its error share one J^T product.
        sums = [path.parts(1.0), [({2: 2.0, 3: -4.0}, difference)]]
        (increment, _), (error, _) = apply_functions(linearisation, length, sums)
        y1 = terms.join(tree_add_scaled(weights, length, increment), path.integrate(integrals, length, length))
        y_error = terms.join(tree_scale(length, error), jax.tree.map(jnp.zeros_like, integrals))
        dense_info = {"y0": y0, "path": PackedTree(path)}
        return (y1, y_error, dense_info, None, diffrax.RESULTS.successful), linearisation
