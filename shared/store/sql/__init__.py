"""Statements and tables of the store, the same for every engine."""
