"""Trio and sockets: byte channels, dialling and listening. Knows nothing of proxying."""
