"""The port to everything durable, and the door that opens an engine behind it."""
