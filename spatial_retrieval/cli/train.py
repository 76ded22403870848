"""Command module, to be filled."""


def add_parser(subparsers: object) -> None:
    """Add this module's commands."""
