"""Planted faults: each is put into a copy of the code, and the tests that should catch it are run against it."""
