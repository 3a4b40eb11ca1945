"""The English function words of captions, which do not name anything that a photo shows."""

from __future__ import annotations

from captioner.data.vocabulary import SPECIAL_TOKENS, Vocabulary


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _words("a an the")
CONJUNCTIONS = _words("and or but nor as than that which who while because if")
PREPOSITIONS = _words("""
    about above across against along amid among around at atop before behind below beneath beside
    between beyond by during for from in inside into like near next of off on onto outside over past
    through to toward towards under underneath until upon via with within without
""")
# Particles of verbs ("jump up") and adverbs of place, which may end a caption. Each of them is the
# last word of dozens to hundreds of Flickr8k's 40,000 captions.
PARTICLES = _words("around behind below down inside off out outside up")
PRONOUNS = _words("""
    he her hers herself him himself his i it its itself me my one others our she some someone their
    them themselves they this these those there we what where another each other you your
""")
AUXILIARIES = _words("""
    am are be been being can do does has have having is not was were will would
""")

# A caption that ends in one of these is unfinished.
UNFINISHED = (ARTICLES | CONJUNCTIONS | PREPOSITIONS) - PARTICLES
# All other words are content words, including numbers.
FUNCTION_WORDS = ARTICLES | CONJUNCTIONS | PREPOSITIONS | PARTICLES | PRONOUNS | AUXILIARIES

# The most frequent words of captions are function words in other languages, too.
FREQUENT = 30


def repeatable_ids(vocabulary: Vocabulary) -> list[int]:
    """The ids of the words that a caption may say more than once.

    These are the function words if the vocabulary is English, and otherwise its 30 most frequent
    words. It is English if at least half of its ten most frequent words are function words. (Other
    languages share a few of them: "in" and "an" are German, too.)
    """
    frequent = vocabulary.words[len(SPECIAL_TOKENS) :][:FREQUENT]
    top = frequent[:10]
    english = 2 * len(FUNCTION_WORDS.intersection(top)) >= len(top)
    return vocabulary.ids(FUNCTION_WORDS if english else frequent)
