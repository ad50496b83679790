"""Load tests, scripted counterparts for the test suite, and benchmarks."""
