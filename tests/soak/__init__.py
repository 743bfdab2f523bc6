"""Everything that may happen to a server, at random, for minutes: `python -m tests.soak`."""
