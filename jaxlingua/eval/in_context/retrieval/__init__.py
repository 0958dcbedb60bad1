"""Which records of a pool are near a query."""
