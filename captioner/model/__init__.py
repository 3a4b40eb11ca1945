"""From pixels to words: the frozen network and its features, the attention model, decoding."""
