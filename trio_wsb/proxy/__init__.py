"""Client connections: from the accepted socket to the end of the session."""
