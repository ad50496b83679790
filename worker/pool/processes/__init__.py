"""Worker processes as their parent sees them."""
