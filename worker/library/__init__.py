"""What AIAgent (worker.run_agent) alone uses: the agent in a process of its own user."""
