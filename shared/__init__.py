"""What both sides speak: messages, settings, errors, events and the store; imports neither side."""
