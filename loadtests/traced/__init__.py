"""A gateway that counts which of its functions run, and its store's jobs: what one message crosses."""
