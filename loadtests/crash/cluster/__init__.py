"""The crash proof of several hosts on one database: ``python -m loadtests.crash --cluster``."""
