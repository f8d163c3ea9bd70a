"""How the tokens of a CTC model make words.

Tokens are characters with a delimiter between words, pieces of which "▁"
begins a word, or words of their own: phones, and scripts without spaces.
"""

import numpy as np

BEGIN = "▁"
"""What SentencePiece writes before the first piece of a word."""


class Spelling:
    """What a decoder asks of a tokenizer, ready for use.

    Arguments
    ---------
    tokenizer : CTCTokenizer
        Of the model's outputs.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> spelling = Spelling(tokenizer)
    >>> spelling.split([2, 3, 1, 2])
    [[2, 3], [2]]
    >>> spelling.word([2, 3]), spelling.joint
    ('ab', ' ')
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.blank = tokenizer.blank_index
        names = [tokenizer.ind2lab[index] for index in range(len(tokenizer))]
        delimiter = tokenizer.lab2ind.get(tokenizer.word_delimiter)
        self.by_token = tokenizer.separator != "" or delimiter is None
        self.begins = set()
        if self.by_token and not tokenizer.separator:
            self.begins = {
                index
                for index, name in enumerate(names)
                if name.startswith(BEGIN)
            }
            self.by_token = not self.begins
        hidden = {tokenizer.lab2ind[name] for name in tokenizer.specials}
        if self.by_token and delimiter is not None:
            hidden.add(delimiter)
            delimiter = None
        self.delimiter, self.edges = delimiter, {delimiter, *self.begins}
        self.joint = " " if self.begins else tokenizer.delimiter_text
        if self.by_token:
            self.joint = tokenizer.separator
        self.hidden = sorted(hidden - {self.blank})
        self.silent = {self.blank, *self.hidden}
        self.texts = [
            tokenizer.decode([index]).removeprefix(BEGIN)
            for index in range(len(names))
        ]

    def fold(self, log_probs):
        """Counts tokens without text as blank, so that no text holds them.

        Arguments
        ---------
        log_probs : torch.Tensor
            Log-posteriors, [T, V].

        Returns
        -------
        numpy.ndarray
            The same in float64, [T, V]; -inf for tokens without text.

        Raises
        ------
        ValueError
            When there is not a number for each token.
        """
        rows = log_probs.detach().cpu().double().numpy()
        size = len(self.texts)
        if rows.ndim != 2 or rows.shape[1] != size:
            raise ValueError(
                f"log-posteriors: expected [T, {size}], one for each token; "
                f"got {list(rows.shape)}"
            )
        if not (rows.max(-1, initial=-np.inf) > -np.inf).all():
            raise ValueError(
                "log-posteriors: expected numbers; got NaN, or a frame of -inf"
            )
        if self.hidden:
            silent = rows[:, [self.blank, *self.hidden]]
            rows = rows.copy()
            rows[:, self.hidden] = -np.inf
            rows[:, self.blank] = np.logaddexp.reduce(silent, axis=1)
        return rows

    def split(self, items, token=lambda item: item):
        """Groups what has tokens by words.

        Arguments
        ---------
        items : iterable
            Tokens, or what stands for them, in order.
        token : callable, optional
            Gives the token of an item.

        Returns
        -------
        list of list
            The items of each word, without delimiters.
        """
        words = [[]]
        for item in items:
            index = token(item)
            if self.by_token or index in self.edges:
                words.append([])
            if index != self.delimiter:
                words[-1].append(item)
        return [word for word in words if word]

    def num_whole(self, tokens):
        """Counts the tokens of words that no further token can change.

        Arguments
        ---------
        tokens : list of int
            In order.

        Returns
        -------
        int
            How many, from the first on; delimiters included.
        """
        if self.by_token:
            return len(tokens)
        count = len(tokens)
        while count and tokens[count - 1] != self.delimiter:
            count -= 1
            if tokens[count] in self.begins:
                break
        return count

    def word(self, indices):
        """Spells a word.

        Arguments
        ---------
        indices : list of int
            Its tokens.

        Returns
        -------
        str
            Its text.
        """
        text = self.tokenizer.decode(indices)
        return text.replace(BEGIN, "") if self.begins else text

    def words_of(self, text):
        """Splits a text into words as a model would write them.

        Arguments
        ---------
        text : str
            Words, in upper or lower case where the model knows only one.

        Returns
        -------
        list of str
            Its words.

        Raises
        ------
        ValueError
            When the tokens cannot write it.
        """
        shown = "".join(self.texts)
        if shown == shown.upper():
            text = text.upper()
        elif shown == shown.lower():
            text = text.lower()
        if self.begins:
            return text.split()
        words = [text] if self.by_token else text.split()
        indices = [self.tokenizer.encode(word) for word in words]
        if not words or not all(
            row and self.silent.isdisjoint(row) for row in indices
        ):
            raise ValueError(
                f"words: expected symbols that have tokens; got {text!r:.60}"
            )
        if self.by_token:
            return [self.texts[index] for index in indices[0]]
        return [self.word(row) for row in indices]
