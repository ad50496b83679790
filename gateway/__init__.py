"""HTTP in, replies out: owns the webhook routes and the platform tokens."""
