"""The gateway that the crash proof runs: ``python -m loadtests.crash.gateway DIRECTORY``."""
