"""The WebSocket protocol without I/O: the opening handshake and a header-only frame scanner (RFC 6455)."""
