"""Python expressions in fairseq's options, read without running them."""

import ast

from unispeech_sb.checkpoints.safety.limits import shown

MOST_TEXT, MOST_LAYERS = 1000, 64


def read_layers(text, where):
    """Reads fairseq's text for convolutions, without running it.

    Arguments
    ---------
    text : str
        A Python expression of lists of (channels, kernel, stride), with
        ``+`` and ``*``.
    where : str
        What it is, for errors.

    Returns
    -------
    list of tuple
        Channels, kernel and stride of each layer.

    Raises
    ------
    ValueError
        When it is anything else.

    Example
    -------
    >>> read_layers("[(512, 10, 5)] + [(512, 3, 2)] * 2", "x.pt")
    [(512, 10, 5), (512, 3, 2), (512, 3, 2)]
    """
    layers = literal(text, where)
    right = isinstance(layers, list) and 0 < len(layers) <= MOST_LAYERS
    if not right or not all(
        isinstance(layer, (list, tuple))
        and len(layer) == 3
        and all(type(number) is int for number in layer)
        for layer in layers
    ):
        raise ValueError(
            f"{where}: expected a list of (channels, kernel, stride); got "
            f"{shown(text)}"
        )
    return [tuple(layer) for layer in layers]


def literal(text, where):
    """Reads lists, tuples and numbers, joined by ``+`` and ``*``.

    Arguments
    ---------
    text : str or list
        The expression; a list is returned as it is.
    where : str
        What it is, for errors.

    Returns
    -------
    list or tuple or int or float
        Its value.

    Raises
    ------
    ValueError
        When there is anything else in it.

    Example
    -------
    >>> literal("(2, 0.5, 0.999995)", "x.pt")
    (2, 0.5, 0.999995)
    """
    if isinstance(text, (list, tuple)):
        return text
    fault = ValueError(
        f"{where}: expected lists and numbers only; got {shown(text)}"
    )
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        raise fault
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise fault from error
    except MemoryError as error:  # of the parser, on deep nesting
        raise fault from error


def _value(node):
    """Value of a checked expression."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        left, right = _value(node.left), _value(node.right)
        if not isinstance(left, list):
            raise ValueError("only lists are added and repeated")
        if isinstance(node.op, ast.Add):
            return left + right
        if not isinstance(right, int) or len(left) * right > MOST_LAYERS:
            raise ValueError("too many layers")
        return left * right
    raise ValueError(type(node).__name__)
