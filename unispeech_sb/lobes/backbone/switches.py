"""Options on which the publishers of checkpoints differ."""

SWITCHES = {"last_state": ("normed", "raw"), "mask_rule": ("hf", "fairseq")}
"""Option of ``Backbone`` -> its choices, the default first."""


def check_switch(name, value):
    """Refuses what is not among the choices of an option.

    Arguments
    ---------
    name : str
        A key of ``SWITCHES``.
    value : str
        The choice.

    Returns
    -------
    str
        The choice.

    Raises
    ------
    ValueError
        When there is no such choice.

    Example
    -------
    >>> check_switch("last_state", "raw")
    'raw'
    """
    choices = SWITCHES[name]
    if value not in choices:
        raise ValueError(
            f"{name}: expected {' or '.join(choices)}; got {value!r}"
        )
    return value
