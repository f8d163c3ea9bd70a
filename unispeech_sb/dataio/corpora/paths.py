"""Where the files are that the lists of corpora name."""

from pathlib import Path


def find_file(name, folder, where):
    """Finds a file from a folder on, else from one of its parents.

    Arguments
    ---------
    name : str
        Path as the list has it.
    folder : str or path-like
        Where the list is.
    where : str
        The list, and the line, for messages.

    Returns
    -------
    pathlib.Path
        The absolute path.

    Raises
    ------
    ValueError
        When there is no such file.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "a.wav").touch()
    >>> find_file("a.wav", folder / "lists" / "new", "new.csv").name
    'a.wav'
    """
    folder = Path(folder).absolute()
    for place in (folder, *folder.parents):
        if name and (place / name).is_file():
            return place / name
    raise ValueError(
        f"{where}: no such file, from {folder} or a folder above it: {name!r}"
    )
