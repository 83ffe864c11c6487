"""HTTP/1.1 without I/O: heads, bodies and what a proxy must do to them (RFC 9110, RFC 9112)."""
