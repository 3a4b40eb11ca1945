"""How good the captions are, and whether the attention tells the truth."""
