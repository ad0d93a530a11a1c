"""What `gnflow verify` does: certificates of every run in a folder, and a table of the verdicts."""

import sys
from collections.abc import Sequence
from pathlib import Path

from .._core import RunFolderError, aligned_columns, as_path, cannot_write, look_up, make_writable
from ..plots import save
from ..simulate import RUN_FILE, Trajectory
from ..sweeps import SweepStore
from ..theory import Certificates, theorem_kinds, verify
from ._failures import Failures
from ._own_parts import import_for, load_with_parts
from ._runs import read_runs


def check_theorems(
    folder: str,
    theorems: Sequence[str],
    out: str | None,
    full: bool,
    quiet: bool,
    *,
    imports: Sequence[str] = (),
    accept_digests: Sequence[str] = (),
) -> int:
    """Check theorems on the runs in `folder`, write the certificates and print the verdicts.

    The arguments are those of the command line.

    **Returns:** the exit code.
    """
    for name in theorems:
        look_up(name, {**theorem_kinds, "all": None}, "theorem")
    place = as_path(folder, "the folder", RunFolderError)
    target = place / "certificates" if out is None else as_path(out, "--out", RunFolderError)
    import_for([place], imports, accept_digests)
    runs = _runs(place, accept_digests)
    make_writable(target)
    rows: list[tuple[str, ...]] = []
    failures = Failures()
    violated = False
    for number, (label, trajectory) in enumerate(runs.items(), start=1):
        if not quiet:
            print(f"[{number}/{len(runs)}] {label}", file=sys.stderr)
        certificates = verify(trajectory, "all") if "all" in theorems else verify(trajectory, list(theorems) or None)
        _write(certificates, target / label, failures)
        rows += [(label, c.theorem, str(c.verdict), c.reason) for c in certificates]
        violated = violated or bool(certificates.violated)
        if full:
            print("\n\n".join(str(c) for c in certificates) + "\n")
    heading, *lines = aligned_columns([("run", "theorem", "verdict", "because"), *rows])
    print("\n".join([heading, "-" * max(map(len, lines)), *lines]))
    print(f"\ncertificates of {len(runs)} runs in {target}")
    return 1 if violated or failures.names else 0


def _runs(folder: Path, accepted: Sequence[str]) -> dict[str, Trajectory]:
    """The finished runs of a folder by label. **Raises:** `RunFolderError` if there are none."""
    if (folder / RUN_FILE).is_file():
        return {folder.resolve().name: load_with_parts(folder, accepted)}
    store = SweepStore(folder)
    spec = store.read_specification()
    found, left_out = read_runs(store, spec, lambda place, _: load_with_parts(place, accepted))
    finished = {cell.label: found[key] for key, cell in zip(spec.hashes, spec.cells, strict=True) if key in found}
    if left_out and not finished:
        raise RunFolderError(f"none of the {len(left_out)} runs in {folder} can be checked, for the reasons above.")
    if not finished:
        raise RunFolderError(
            f"{folder} holds no finished run whose trajectory was kept; give the folder "
            "that gnflow run wrote, or --resume it first."
        )
    return finished


def _write(certificates: Certificates, folder: Path, failures: Failures) -> None:
    """Write certificates.json, certificates.md, and a figure of each certificate that has curves."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "certificates.json").write_text(certificates.to_json() + "\n", encoding="utf-8")
        (folder / "certificates.md").write_text(certificates.to_markdown(), encoding="utf-8")
    except OSError as error:
        raise cannot_write(folder, error) from error
    for certificate in certificates:
        if certificate.curves:
            name = certificate.theorem.replace(" ", "-")
            try:
                save(certificate.plot(), folder / f"{name}.png")
            except Exception as error:  # a figure that fails must not cost the verdicts
                failures.tell(name, error)
