"""The configuration: a YAML file to a checked, frozen model, with every problem found at once."""
