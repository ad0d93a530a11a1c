"""Which columns of a table are inputs and which are targets."""

from collections.abc import Sequence

from .._core import DataError, DataWarning, nearest_name, shown, warn

ColumnNames = str | list[str] | tuple[str, ...] | None


def choose_columns(
    header: Sequence[str], target: ColumnNames, features: ColumnNames, what: str
) -> tuple[list[int], list[int]]:
    """The places of the input columns and of the target columns.

    **Arguments:**

    - `header`: the names of the columns of a table.
    - `target`: the names of the targets.
    - `features`: the names of the inputs; all others by default.
    - `what`: the table, for messages.

    **Raises:** `DataError` for names that the table does not have or has twice, for columns named twice, and for no target or
    no input.
    """
    repeated = [name for name in header if list(header).count(name) > 1]
    if repeated:
        raise DataError(f"{what} has more than one column {repeated[0]!r}; rename them.")
    if target is None:
        raise DataError(f"name the target column(s) of {what} with target=...; its columns are {', '.join(header)}.")
    targets = _places(target, header, what)
    if features is None:
        inputs = [column for column in range(len(header)) if column not in targets]
        _warn_of_numbered_rows([header[column] for column in inputs], what)
    else:
        inputs = _places(features, header, what)
    if not inputs or not targets:
        raise DataError(f"{what} needs at least one target column and one other; its columns are {', '.join(header)}.")
    both = [header[column] for column in inputs if column in targets]
    if both:
        raise DataError(f"column {both[0]!r} of {what} is named as target and as feature; choose one.")
    return inputs, targets


def _warn_of_numbered_rows(names: Sequence[str], what: str) -> None:
    """A `DataWarning` if a column seems to be the row numbers that pandas writes, or reads, without a name."""
    numbers = next((name for name in names if name == "" or str(name).startswith("Unnamed: ")), None)
    if numbers is not None:
        rest = [name for name in names if name != numbers]
        warn(
            f"the column {numbers!r} of {what} has no name, as the row numbers that pandas writes, and is an input here. If it "
            f"holds them, leave it out: features = {rest}, or write the file with index=False.",
            DataWarning,
        )


def _places(names: ColumnNames, header: Sequence[str], what: str) -> list[int]:
    if not isinstance(names, str | list | tuple):
        raise DataError(f"columns = {shown(names)}; expected the name of a column of {what}, or several in a list.")
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"column {name!r} of {what} is named twice; name each column once.")
        if name not in header:
            raise DataError(f"{what} has no column {name!r}; {nearest_name(str(name), header)}")
    return [list(header).index(name) for name in names]
