"""A demo backend, a demo client and the demo that puts them together with the daemon."""
