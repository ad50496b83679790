"""What runs in the fork server, and in a worker before its first frame."""
