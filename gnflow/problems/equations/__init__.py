"""Differential equations as residual problems, with exact or spectral references."""

from ._allen_cahn import allen_cahn as allen_cahn
from ._burgers import burgers as burgers
from ._derivatives import laplacian as laplacian, scalar as scalar, second_derivative as second_derivative
from ._errors import RelativeError as RelativeError
from ._heat import heat as heat
from ._helmholtz import helmholtz as helmholtz
from ._poisson import poisson as poisson
from ._quadrature import Box as Box
