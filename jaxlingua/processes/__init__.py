"""Several processes as one run: who they are, how they agree, how they end."""
