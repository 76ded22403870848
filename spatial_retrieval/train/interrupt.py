"""Ctrl-C (a notebook's stop button) that waits for the end of a step."""

import logging
import signal
import threading
from types import FrameType

__all__ = ["Interrupt"]

log = logging.getLogger(__name__)


class Interrupt:
    """Within the block, the first interrupt sets ``asked``; a second one raises as usual.

    A step is then never left half done, and its checkpoint is whole. Outside the main thread,
    where no interrupt arrives, this does nothing.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self._here = threading.current_thread() is threading.main_thread()
        if self._here:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._here:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        log.warning("stopping after this step; interrupt again to stop at once")
