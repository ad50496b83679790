"""The crash proof: kills gateways and workers at every commit boundary, and audits what became of each message."""
