"""Which backend gets a session: loads, strategies and what is known of each backend. No I/O."""
