"""Listening sockets: addresses as people write them, and the sockets behind them."""
