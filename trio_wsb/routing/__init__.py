"""Which router answers a request."""
