"""The API and the dashboard: read-only pages over the daemon's state."""
