"""The running daemon: supervisor, runtime snapshot, reload, stop."""
