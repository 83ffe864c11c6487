"""Metrics: counted as things happen (`figures`), read from live state when asked for (`collect`), shown as text (`page`)."""
