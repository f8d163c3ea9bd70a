"""Pages of the documentation, run as a reader runs them: block after block,
pasted into one folder and one session of Python.

What a fenced block is, its first word says:

- ``shell``, ``bash`` or nothing: commands, one on a line; a line that ends in a
  backslash goes on in the next one. ``unispeech-sb`` runs in this process,
  ``unispeech-sb serve ... &`` until the end of the page, the rest by bash.
- ``python``: code of one session, which all such blocks of a page share.
- ``text`` right after one of these: what it prints, shortened. Its lines are
  there in this order, with other numbers maybe; ``...`` stands for any. Of a
  text that varies with the machine, its first line, with other words maybe.

Other kinds are only read. An HTML comment in the line above a block says how
it is taken: ``<!-- not run: REASON -->``; ``<!-- needs PACKAGE -->``, run where
that is installed; ``<!-- output varies -->``; ``<!-- exit status N -->`` of the
last command.
"""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from unispeech_sb.commands import main

_BLOCK = re.compile(
    r"(?:^<!-- (?P<comment>[^\n]*?) -->\n)?"
    r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SHELL = ("shell", "bash", "")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?(?: (?:s|min|h)\b)?")
"""With the unit of a time, which is another one on a slower machine."""
_PLACE = "http://127.0.0.1:8000"
"""Where the service answers on pages."""


class Block(NamedTuple):
    """A fenced block: kind, content, the comment above it, its first line."""

    kind: str
    text: str
    comment: str
    line: int

    @property
    def is_run(self) -> bool:
        """Whether a reader pastes it, and it can run."""
        is_code = self.kind in (*_SHELL, "python")
        needed = re.fullmatch(r"needs (\w+)", self.comment)
        is_missing = needed is not None and find_spec(needed[1]) is None
        is_left_out = self.comment.startswith("not run: ") or is_missing
        return is_code and not is_left_out

    @property
    def commands(self) -> list[str]:
        """Command lines of a block of these."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        return [ln for ln in lines if ln.strip() and not ln.startswith("#")]


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(
            found["kind"],
            found["text"],
            found["comment"] or "",
            text.count("\n", 0, found.start("kind")) + 1,
        )
        for found in _BLOCK.finditer(text)
    ]


class Session:
    """A shell and a Python in the current folder, for the blocks of a page.

    A context, at whose end the services are stopped. ``options`` of a recipe,
    by its name, follow those of the page, where a page asks for more than a
    test has time for.
    """

    def __init__(self, page: Path, options: dict[str, list[str]] | None = None):
        self.page = page
        self.options = options or {}
        self.names: dict[str, object] = {"__name__": "__main__"}
        self.address = _PLACE
        self.services = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        return self.services.__exit__(*raised)

    def run_page(self) -> None:
        """Runs all blocks, and compares what they print with what is shown."""
        printed = ""
        for block in read_blocks(self.page):
            if block.is_run:
                printed = self.run(block)
            elif block.kind == "text":
                assert_shown(block, printed, self.page)

    def run(self, block: Block) -> str:
        """Runs a block; what it prints."""
        if block.kind == "python":
            code = block.text.replace(_PLACE, self.address)
            lines = "\n" * block.line + code  # for numbers in tracebacks
            program = compile(lines, str(self.page), "exec")
            return _printed(lambda: exec(program, self.names))[1]
        expected = re.fullmatch(r"exit status (\d+)", block.comment)
        parts = []
        for command in block.commands:
            status, printed = self._run_command(command)
            wanted = int(expected[1]) if expected else 0
            if command != block.commands[-1]:
                wanted = 0
            place = f"{self.page.name}:{block.line}: {command}"
            assert status == wanted, f"{place}: {status}\n{printed}"
            parts.append(printed)
        return "".join(parts)

    def _run_command(self, command):
        """Exit status and output of a command line."""
        words = shlex.split(command)
        script = re.fullmatch(r"python recipes/(\w+)\.py", " ".join(words[:2]))
        if script:
            yaml = words[2].removeprefix("hparams/")
            words = ["unispeech-sb", "recipe", script[1], yaml, *words[3:]]
        if words[0] != "unispeech-sb":
            return self._run_bash(command)
        if words[1] == "serve" and words[-1] == "&":
            self.address = self.services.enter_context(_serving(words[2:-1]))
            return 0, ""
        assert not {"|", ">", "&&", ";", "&"} & {*words}, command
        if words[1] == "recipe" and words[2:]:
            words += self.options.get(words[2], [])
        return _printed(lambda: main(words[1:]))

    def _run_bash(self, command):
        """The same of a command of the system."""
        program = shlex.split(command)[0]
        if shutil.which(program) is None and program == "curl":
            pytest.skip("needs curl")
        done = subprocess.run(
            ["bash", "-c", command.replace(_PLACE, self.address)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        print(done.stdout)
        return done.returncode, done.stdout


def _printed(call):
    """Exit status, 0 for none, and standard output of a call."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            status = call()
        except SystemExit as end:
            status = end.code
    print(output.getvalue())  # for pytest's report
    return status or 0, output.getvalue()


@contextlib.contextmanager
def _serving(words):
    """The address of ``unispeech-sb serve`` in a thread, at any free port."""
    pytest.importorskip("fastapi", reason="needs fastapi")
    from tests.serve.conftest import running
    from unispeech_sb.commands import serve
    from unispeech_sb.inference import load
    from unispeech_sb.serve.app import create_app

    folders = serve._named(serve._parse(words).folders)
    models = {name: load(folder) for name, folder in folders.items()}
    with running(create_app(models)) as address:
        yield address


def assert_shown(block: Block, printed: str, page: Path) -> None:
    """Raises where a text shows what was not printed, numbers apart; of a text
    that varies, whose first line has no form of a printed line."""
    varies = block.comment == "output varies"
    lines = iter([_form(line, varies) for line in _whole_lines(printed)])
    shown = _whole_lines(block.text)
    for line in shown[:1] if varies else shown:
        if not line.replace("...", "").strip():
            continue
        parts = [re.escape(_form(p, varies)) for p in line.split("...")]
        pattern = re.compile(".*".join(parts))
        assert any(pattern.fullmatch(ln) for ln in lines), (
            f"{page.name}:{block.line}: {line!r} is not in\n{printed}"
        )


def _whole_lines(text):
    """Lines, those in one that a command has broken for the terminal."""
    return re.sub(r"\n {12}(?=\S)", " ", text).splitlines()


def _form(line, varies):
    """A line with # for each number, with A for words in a row where these
    vary, and one space for several."""
    line = _NUMBER.sub("#", line)
    if varies:
        line = re.sub(r"[^\W\d_]+(?: [^\W\d_]+)*", "A", line)
    return " ".join(line.split())
