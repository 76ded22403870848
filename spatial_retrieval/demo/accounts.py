"""Who may use the page: names and passwords from a file or the environment."""

import asyncio
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["VARIABLE", "Accounts"]

VARIABLE = "SPATIAL_RETRIEVAL_AUTH"


class Accounts:
    """Names with their passwords.

    Args:
        passwords: by name.
        delay: seconds that a wrong password takes.
    """

    def __init__(self, passwords: Mapping[str, str], *, delay: float = 1.0) -> None:
        self._passwords = {name: word.encode() for name, word in passwords.items()}
        self._delay = delay

    @classmethod
    def read(cls, file: Path | None) -> "Accounts | None":
        """From a file of lines ``USER:PASSWORD``, or else from the environment; None: neither.

        Raises:
            ValueError: if the file cannot be read or a line is something else. The message never
                repeats the line.
        """
        if file is None:
            text = os.environ.get(VARIABLE)
            return None if text is None else cls(_parsed(text, VARIABLE))
        try:
            return cls(_parsed(file.read_text(encoding="utf-8"), str(file)))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ValueError(f"{file}: cannot be read ({reason})") from error

    async def check(self, name: str, password: str) -> bool:
        """Whether name and password belong together; a no takes its time."""
        known = self._passwords.get(name, b"")
        same = hmac.compare_digest(known, password.encode()) and name in self._passwords
        if not same:
            await asyncio.sleep(self._delay)
        return same


def _parsed(text: str, where: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.partition(":") for line in lines]
    if not pairs or not all(name.strip() and password for name, _, password in pairs):
        raise ValueError(f"{where}: expected lines USER:PASSWORD")
    return {name.strip(): password for name, _, password in pairs}
