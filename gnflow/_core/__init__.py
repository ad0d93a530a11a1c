"""What every layer uses: checks of input, errors, result codes, tree algebra, files, precision, named random streams."""

from ._arrays import Numbers as Numbers, is_key as is_key, is_traced as is_traced
from ._batches import in_batches as in_batches
from ._by_shape import by_shape as by_shape
from ._checks import (
    instance_field as instance_field,
    integer_field as integer_field,
    number_field as number_field,
    recheck as recheck,
    require_bool as require_bool,
    require_instance as require_instance,
    require_integer as require_integer,
    require_non_negative as require_non_negative,
    require_number as require_number,
    require_positive_int as require_positive_int,
)
from ._compilation_cache import (
    SHORTEST_COMPILATION as SHORTEST_COMPILATION,
    compilation_cache as compilation_cache,
    compilation_cache_folder as compilation_cache_folder,
)
from ._compile_clock import CompileClock as CompileClock
from ._compiled import (
    forget_compiled_programs as forget_compiled_programs,
    jit_for_states as jit_for_states,
    jit_for_steps as jit_for_steps,
)
from ._describe import digest_of as digest_of, settings_of as settings_of
from ._errors import (
    ConfigError as ConfigError,
    DataError as DataError,
    GnflowError as GnflowError,
    ModelError as ModelError,
    PrecisionError as PrecisionError,
    RunFolderError as RunFolderError,
)
from ._files import (
    cannot_write as cannot_write,
    draft_of as draft_of,
    is_temporary as is_temporary,
    make_writable as make_writable,
    remove_if_abandoned as remove_if_abandoned,
    sync_folder as sync_folder,
    write_whole as write_whole,
)
from ._foreign import (
    read_arrays as read_arrays,
    read_json as read_json,
    require_plain_netcdf as require_plain_netcdf,
)
from ._lapack import load_lapack as load_lapack
from ._machine import (
    available_memory_gib as available_memory_gib,
    num_cores as num_cores,
    require_memory as require_memory,
)
from ._names import look_up as look_up, nearest_name as nearest_name
from ._operations import count_operations as count_operations, has_operation as has_operation
from ._paths import as_path as as_path
from ._precision import require_float64 as require_float64
from ._results import Result as Result, ResultCode as ResultCode
from ._serialise import (
    class_name as class_name,
    decode as decode,
    encode as encode,
    first_difference as first_difference,
    is_opaque as is_opaque,
    is_own_class as is_own_class,
    known_classes as known_classes,
    legible as legible,
    opaque_classes as opaque_classes,
    opaque_names as opaque_names,
    short_name as short_name,
)
from ._streams import as_key as as_key, stream as stream
from ._text import (
    aligned_columns as aligned_columns,
    name_of as name_of,
    on_one_line as on_one_line,
    shown as shown,
)
from ._tree import (
    is_within as is_within,
    named_leaves as named_leaves,
    tree_add_scaled as tree_add_scaled,
    tree_dot as tree_dot,
    tree_multiply as tree_multiply,
    tree_norm as tree_norm,
    tree_rms as tree_rms,
    tree_scale as tree_scale,
    tree_size as tree_size,
    tree_subtract as tree_subtract,
)
from ._warn import DataWarning as DataWarning, warn as warn
