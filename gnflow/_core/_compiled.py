"""Compiled programs: how much time their compiler may take, and when a long-lived process lets go of them."""

import functools
import gc
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

_DEFAULT_LIMIT = 65_530  # Linux's default of vm.max_map_count
_SHARE = 0.3  # of the limit: one more run may add several thousand

# XLA's newer code for loops over arrays takes longer to compile and is a few percent faster, and so is what it optimises
# (docs/devdocs/benchmarks.md, What compiling takes): most runs are shorter than their compilation. These options say nothing
# to other devices than CPUs.
_WITHOUT_EMITTERS = {"xla_cpu_use_fusion_emitters": False}
_LEAST_OPTIMISED = {**_WITHOUT_EMITTERS, "xla_backend_optimization_level": 1}

# As `equinox.filter_jit`: for programs that take the steps of a run, and for those that look at a few states of one. JAX
# refuses these options within another compiled program.
_jit: Any = eqx.filter_jit  # which passes on what its declaration does not have
jit_for_steps = functools.partial(_jit, compiler_options=_WITHOUT_EMITTERS)
jit_for_looks = functools.partial(_jit, compiler_options=_LEAST_OPTIMISED)


def forget_compiled_programs() -> bool:
    """Forget every compiled program if this process comes near its limit of memory maps.

    Each program is mapped into memory in several pieces, and beyond the kernel's limit (65530 maps by default on Linux) the
    compiler dies of a segmentation fault. A process that runs many configurations calls this between them; nothing is done
    where the maps cannot be counted.

    **Returns:** whether the programs were forgotten.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return False
    limit = Path("/proc/sys/vm/max_map_count")
    most = int(limit.read_text()) if limit.exists() else _DEFAULT_LIMIT
    if maps.read_bytes().count(b"\n") < _SHARE * most:
        return False
    jax.clear_caches()
    gc.collect()
    return True
