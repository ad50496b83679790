"""The worker host that the crash proof runs: ``python -m loadtests.crash.worker DIRECTORY``."""
