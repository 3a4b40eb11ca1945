"""Attention over the photo: overlays, the printable grid, the film, and a fast PNG encoder."""
