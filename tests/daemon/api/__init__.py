"""Tests of the API and the dashboard."""
