"""What a language model and hot words add to the scores of prefixes."""

from typing import Any, NamedTuple


class TextState(NamedTuple):
    """What scoring remembers of a prefix.

    Arguments
    ---------
    word : str
        Letters of the word that it ends in.
    score : float
        Score of the words before, by the language model, in nats.
    model : kenlm.State or None
        The language model's memory of them.
    hot : tuple or None
        State of the hot words.

    Example
    -------
    >>> TextState("y", 0.0, None, None).word
    'y'
    """

    word: str
    score: float
    model: Any
    hot: Any


class TextScorer:
    """Scores prefixes token by token.

    Arguments
    ---------
    spelling : Spelling
        Of the tokens.
    language_model : LanguageModel, optional
        Scores words.
    hot_words : HotWords, optional
        Words to prefer.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> from unispeech_sb.decoding.hot_words import HotWords
    >>> from unispeech_sb.decoding.spelling import Spelling
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> spelling = Spelling(tokenizer)
    >>> scorer = TextScorer(spelling, hot_words=HotWords(["ab"], weight=4.0))
    >>> state = scorer.extend(scorer.start(), 2)
    >>> scorer.score(state)
    2.0
    """

    def __init__(self, spelling, language_model=None, hot_words=None):
        self.language_model, self.hot_words = language_model, hot_words
        self._texts, self._delimiter = spelling.texts, spelling.delimiter
        self._begins, self._whole = spelling.begins, spelling.by_token

    @property
    def headroom(self):
        """The most nats by which one more token can raise a score."""
        room = 0.0
        if self.language_model is not None:
            room += max(self.language_model.beta, 0.0)
        if self.hot_words is not None:
            room += max(self.hot_words.weight, 0.0)
        return room

    def start(self):
        """Begins a text.

        Returns
        -------
        TextState
            Of the empty prefix.
        """
        model, hot = self.language_model, self.hot_words
        return TextState(
            "",
            0.0,
            None if model is None else model.start(),
            None if hot is None else hot.start(),
        )

    def extend(self, state, token):
        """Adds a token.

        Arguments
        ---------
        state : TextState
            Of the prefix without it.
        token : int
            Its index.

        Returns
        -------
        TextState
            Of the prefix with it.
        """
        if token == self._delimiter:
            return self._end_word(state)
        if token in self._begins:
            state = self._end_word(state)
        text, hot = self._texts[token], state.hot
        if hot is not None:
            hot = self.hot_words.add(hot, text)
        state = TextState(state.word + text, state.score, state.model, hot)
        return self._end_word(state) if self._whole else state

    def score(self, state):
        """Gives the score of a prefix, the word that it ends in included.

        Arguments
        ---------
        state : TextState
            Of the prefix.

        Returns
        -------
        float
            In nats.
        """
        score = state.score
        if state.word and self.language_model is not None:
            score += self.language_model.score_beginning(state.word)
        if state.hot is not None:
            score += self.hot_words.score(state.hot)
        return score

    def context(self, state):
        """Gives what the scores of all further tokens depend on.

        Arguments
        ---------
        state : TextState
            Of a prefix.

        Returns
        -------
        tuple
            Equal for prefixes that go on equally.
        """
        if state.hot is None:
            return state.word, state.model
        kept, places = state.hot
        hot = tuple((id(place), count - kept) for place, count in places)
        return state.word, state.model, hot

    def finish(self, state):
        """Gives the score of a text that ends here.

        Arguments
        ---------
        state : TextState
            Of the text.

        Returns
        -------
        float
            In nats.
        """
        state = self._end_word(state)
        score = state.score
        if self.language_model is not None:
            score += self.language_model.score_end(state.model)
        if state.hot is not None:
            score += self.hot_words.final_score(state.hot)
        return score

    def _end_word(self, state):
        """Ends the word, if there is one."""
        if not state.word:
            return state
        score, model, hot = state.score, state.model, state.hot
        if model is not None:
            added, model = self.language_model.score(model, state.word)
            score += added
        if hot is not None:
            hot = self.hot_words.end_word(hot)
        return TextState("", score, model, hot)
