"""The watcher: a process beside the daemon that orders a reload when a file of an application changes (`reload`)."""
