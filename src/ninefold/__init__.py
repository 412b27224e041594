"""ninefold."""
