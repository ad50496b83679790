"""Turns as the parent sees them: claimed, run, settled."""
