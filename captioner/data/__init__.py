"""Captioned photos: readers of data sets, downloads, images, words."""
