"""From pixels to words: the frozen network and its features, the attention model, and decoding by
greedy search, sampling or beam search."""
