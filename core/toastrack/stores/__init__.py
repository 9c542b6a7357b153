"""What an adapter for a database imports."""
