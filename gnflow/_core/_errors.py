"""The exceptions that gnflow raises for bad input. Each message names the value, what was expected and the remedy."""


class GnflowError(Exception):
    """Base class of every error that gnflow raises on purpose."""


class DataError(GnflowError, ValueError):
    """Data from which no problem can be made: shapes that do not match, NaN, wrong targets for the loss."""


class ModelError(GnflowError, ValueError):
    """A model that cannot be trained on the problem: no trainable weights, wrong input or output size."""


class PrecisionError(GnflowError, TypeError):
    """float32 or less where the result needs float64."""


class ConfigError(GnflowError, ValueError):
    """A name or value in a configuration that gnflow does not know."""


class RunFolderError(GnflowError, OSError):
    """A run folder that cannot be written (it already holds a run) or read (it holds no run, or a damaged one)."""
