"""Model adapters: one port, one file a provider, and the chain that retries and falls back."""
