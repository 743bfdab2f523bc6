"""srvd: a pre-fork application server that takes its orders over a control socket."""

__version__ = "0.1.0"
