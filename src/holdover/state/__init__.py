"""State as a value: one declaration for each stateful class, one checkpoint, one rollback, one encoding."""

from holdover.state.composite import Composite, split_parts
from holdover.state.stateful import Owned, StateError, Stateful, undeclared_attributes

__all__ = ["Composite", "Owned", "StateError", "Stateful", "split_parts", "undeclared_attributes"]
