"""What gradio keeps of each open page: only its State values.

Gradio also keeps a copy of every component's last value, pictures included, so that a page can be
linked to with its contents. This page offers no such links.
"""

from copy import copy
from typing import Any

from gradio import Blocks
from gradio.state_holder import SessionState, StateHolder

__all__ = ["LeanState", "LeanStateHolder"]


class LeanState(SessionState):
    """The State values of one page, and nothing of what it shows."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__(blocks)
        self.blocks_config = copy(blocks.default_config)
        self.config_values = {}

    def __setitem__(self, key: int, value: Any) -> None:
        """Keep a State value."""
        super().__setitem__(key, value)
        self.config_values.clear()

    def _update_config(self, key: int) -> None:
        """Keep nothing."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Keep nothing."""


class LeanStateHolder(StateHolder):
    """Holds a :class:`LeanState` for each page."""

    def __getitem__(self, session_id: str) -> SessionState:
        """The page's state."""
        if session_id not in self.session_data:
            self.session_data[session_id] = LeanState(self.blocks)
        return super().__getitem__(session_id)
