"""How a session log lies in memory and on disk; worker and parent both write it."""
