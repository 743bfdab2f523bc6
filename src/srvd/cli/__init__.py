"""The command `srvd`."""
