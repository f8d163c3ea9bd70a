"""Words and phrases that a search shall prefer."""

_BOUNDARY = None
"""Between the words of a phrase in the tree of letters."""


class HotWords:
    """Words and phrases, and how much they count.

    As in pyctcdecode, each word that is found adds ``weight`` to a text's
    score in nats, and its beginning the share of its letters. The words of a
    phrase count one after the other only; a phrase that breaks off gives
    back what its beginning got.

    Arguments
    ---------
    words : iterable of str
        Words and phrases.
    weight : float
        Nats for each word.

    Example
    -------
    >>> hot_words = HotWords(["new york"], weight=8.0)
    >>> state = hot_words.start()
    >>> for text in ("new", "yo"):
    ...     state = hot_words.add(state, text)
    ...     print(hot_words.score(state))
    ...     state = hot_words.end_word(state)
    8.0
    12.0
    >>> hot_words.score(state)
    0.0
    """

    def __init__(self, words, weight=10.0, split=str.split):
        self.words, self.weight = list(words), weight
        if isinstance(words, str) or not all(self.words):
            raise ValueError(
                f"hot words: expected a list of words; got {words!r:.60}"
            )
        self._root = _Letter()
        for phrase in self.words:
            self._root.insert(split(phrase))

    def split_by(self, split):
        """Splits phrases otherwise than at spaces.

        Arguments
        ---------
        split : callable
            Text -> list of words.

        Returns
        -------
        HotWords
            The same words with this rule.
        """
        return HotWords(self.words, self.weight, split)

    def start(self):
        """Begins a text.

        Returns
        -------
        tuple
            The state before the first word: words counted for good, and
            (place in the tree, words counted before it) of what may be found.
        """
        return 0, ((self._root, 0),)

    def add(self, state, text):
        """Adds letters to the word.

        Arguments
        ---------
        state : tuple
            Before them.
        text : str
            The letters.

        Returns
        -------
        tuple
            The state after them.
        """
        kept, places = state
        for letter in text:
            places = tuple(
                (place.after[letter], count)
                for place, count in places
                if letter in place.after
            )
        return kept, places

    def end_word(self, state):
        """Ends the word.

        Arguments
        ---------
        state : tuple
            After its letters.

        Returns
        -------
        tuple
            The state before the next word.
        """
        kept, places = state
        ended = [
            (place.after[_BOUNDARY], count)
            for place, count in places
            if _BOUNDARY in place.after
        ]
        found = [place.done + count for place, count in ended if place.final]
        kept = max([kept, *found])
        return kept, (*(p for p in ended if p[0].after), (self._root, kept))

    def score(self, state):
        """Gives the score of what is found so far, beginnings included.

        Arguments
        ---------
        state : tuple
            Of a text.

        Returns
        -------
        float
            In nats.
        """
        kept, places = state
        found = (place.share + count for place, count in places)
        return self.weight * max(kept, *found, 0)

    def final_score(self, state):
        """Gives the score of a text that ends after a word.

        Arguments
        ---------
        state : tuple
            Of the text.

        Returns
        -------
        float
            In nats.
        """
        return self.weight * state[0]


class _Letter:
    """A place in the tree of all phrases.

    ``done`` words lie before it; ``share`` adds the part of the current one,
    of which ``depth`` letters lie before it; ``shortest`` is the length of the
    shortest word that goes on from here. ``final``: a phrase ends here.
    """

    def __init__(self, done=0, depth=0):
        self.after, self.done, self.depth = {}, done, depth
        self.shortest, self.final = float("inf"), False

    @property
    def share(self):
        """Words before this place, and the share of the one it is in."""
        return self.done + (self.depth / self.shortest if self.depth else 0)

    def insert(self, words):
        """Adds a phrase below the root."""
        place = self
        for done, word in enumerate(words):
            for depth, letter in enumerate(word, 1):
                place = place.after.setdefault(letter, _Letter(done, depth))
                place.shortest = min(place.shortest, len(word))
            place = place.after.setdefault(_BOUNDARY, _Letter(done + 1))
        place.final = True
