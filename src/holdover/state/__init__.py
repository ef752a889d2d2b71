"""State as a value: one declaration for each stateful class, one checkpoint, one rollback, one encoding."""

from holdover.state.stateful import Owned, StateError, Stateful, undeclared_attributes

__all__ = ["Owned", "StateError", "Stateful", "undeclared_attributes"]
