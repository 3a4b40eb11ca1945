"""Captioned photos: data sets (listed in `datasets`), downloads, images, words."""
