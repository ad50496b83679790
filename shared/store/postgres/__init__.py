"""The PostgreSQL engine behind the store's port: what many hosts share."""
