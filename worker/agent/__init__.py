"""The child wing: what runs inside a worker process."""
