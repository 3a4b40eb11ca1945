"""The page and the endpoints."""
