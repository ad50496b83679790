"""The embedded SQLite engine behind the store's port."""
