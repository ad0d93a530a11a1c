"""Options of the compiler, and when a long-lived process forgets its compiled programs."""

import functools
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

_DEFAULT_LIMIT = 65_530  # Linux's default of vm.max_map_count
_LARGEST_SHARE = 0.3  # of the limit, which leaves room for one more run: it may add several thousand maps

# XLA's fusion emitters and its higher levels of optimisation take longer to compile and make programs a few percent faster
# (docs/devdocs/benchmarks.md, What compiling takes). Most runs are shorter than their compilation, so they are turned off.
# These options concern CPUs only.
_WITHOUT_EMITTERS = {"xla_cpu_use_fusion_emitters": False}
_LEAST_OPTIMISED = {**_WITHOUT_EMITTERS, "xla_backend_optimization_level": 1}

_jit: Any = eqx.filter_jit  # it passes on the options, though its declaration does not list them


@functools.cache
def _is_known(option: str, value: Any) -> bool:
    """Whether this XLA has a compiler option: versions take options away (the emitters' after jaxlib 0.11.0)."""
    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _jit_with(options: dict[str, Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`equinox.filter_jit` with those of the options that XLA knows.

    They are tried at the first call: the module must not start a backend when it is imported. JAX refuses compiler options
    inside another compiled program.
    """

    @functools.cache
    def compiled() -> Any:
        known = {option: value for option, value in options.items() if _is_known(option, value)}
        return _jit(function, compiler_options=known)

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        return compiled()(*arguments, **keywords)

    return call


# For programs that take the steps of a run, and for programs that look at a few of its states.
jit_for_steps = functools.partial(_jit_with, _WITHOUT_EMITTERS)
jit_for_states = functools.partial(_jit_with, _LEAST_OPTIMISED)


def forget_compiled_programs() -> bool:
    """Forget every compiled program if this process comes near its limit of memory maps.

    Each program is mapped into memory in several pieces. Beyond the kernel's limit (65530 maps by default on Linux) the
    compiler dies of a segmentation fault. A process that runs many configurations calls this function between them. It does
    nothing where the maps cannot be counted.

    **Returns:** whether the programs were forgotten.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return False
    limit = Path("/proc/sys/vm/max_map_count")
    most = int(limit.read_text()) if limit.exists() else _DEFAULT_LIMIT
    if maps.read_bytes().count(b"\n") < _LARGEST_SHARE * most:
        return False
    jax.clear_caches()
    gc.collect()  # programs in reference cycles stay in memory until the collector finds them
    return True
