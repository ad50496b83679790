"""The command line: one file a command, and what they share: the running gateway, the database, the terminal."""
