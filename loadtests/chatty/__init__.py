"""A gateway that tells its pages many events a second, for measuring what its readers cost."""
