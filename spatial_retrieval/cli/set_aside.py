"""What commands say of files that could not be read."""

import sys
from pathlib import Path

__all__ = ["report_set_aside"]

_SHOWN = 20  # files that were set aside


def report_set_aside(failed: dict[str, str], file: Path | None = None) -> None:
    """Name the first files that were set aside, how many there are, and where the list is."""
    from spatial_retrieval.files import printable

    for name, reason in list(failed.items())[:_SHOWN]:
        print(f"set aside {printable(name)}: {printable(reason)}", file=sys.stderr)
    if failed:
        where = "" if file is None else f"; all are in {printable(str(file))}"
        print(f"set aside: {len(failed)} files{where}", file=sys.stderr)
