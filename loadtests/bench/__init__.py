"""Side-by-side benchmarks, one a module; ``python -m loadtests.bench`` runs them all."""
