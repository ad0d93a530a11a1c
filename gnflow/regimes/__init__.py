"""Order parameters, regimes and their boundaries, from the data sets of sweeps."""

from ._boundary import boundary as boundary
from ._cell_states import cell_states as cell_states
from ._labels import label_regimes as label_regimes, regime_counts as regime_counts, regime_names as regime_names
from ._order_parameters import order_parameters as order_parameters
from ._scales import axis_scale as axis_scale
from ._summary import summarise_seeds as summarise_seeds
