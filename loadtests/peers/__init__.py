"""What people would use instead, each in an environment of its own: ``make peers`` installs what can be had."""
