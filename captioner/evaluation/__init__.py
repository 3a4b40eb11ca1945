"""Measures how good the captions are, and whether the attention is faithful."""
