"""Agent turns: owns worker processes and models."""
