"""Load tests as an operator runs them: each starts what it needs; its exit status says whether its thresholds held."""
