"""Items that are asked: from sources of the configuration and from task files."""
