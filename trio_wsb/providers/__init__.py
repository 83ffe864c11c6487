"""Sources of configuration that change while the daemon runs, and who notices that they do."""
