"""Every tutorial runs as it stands."""

from codeop import compile_command

import pytest

from tests.conftest import ROOT
from tests.pages import Session, read_blocks

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder, and a home without what is cached."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_a_tutorial_for_each_task():
    assert [page.stem for page in TUTORIALS] == [
        "asr", "diarization", "keyword_spotting", "pretraining",
        "superb_task", "verification",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, workplace):
    with Session(page) as session:
        session.run_page()


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_is_short_and_goes_from_data_to_a_service(page):
    assert 100 <= len(page.read_text("utf-8").splitlines()) <= 220
    blocks = [block for block in read_blocks(page) if block.is_run]
    text = "".join(block.text for block in blocks)
    parts = ("data check", "us.load(", "curl ", " serve ")
    for part in parts[page.stem == "superb_task" :]:  # it checks its corpora
        assert part in text, part
    left_out = [b for b in read_blocks(page) if b.comment.startswith("not")]
    assert all(b.comment.startswith("not run: ") for b in left_out)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_python_can_be_pasted_into_a_session(page):
    code = [b.text for b in read_blocks(page) if b.kind == "python"]
    assert code
    for text in code:
        lines = []
        for line in [*text.splitlines(), ""]:
            lines.append(line)  # a blank line ends a compound statement
            if compile_command("\n".join(lines), page.name, "single"):
                lines.clear()
        assert not "".join(lines), lines


PAGE = """\
# A page

```shell
echo one 1.5 \\
    more
# a comment
unispeech-sb --version
```

<!-- output varies -->
```text
two words 0.2 here
and no more
```

<!-- exit status 3 -->
```bash
true
exit 3
```

```python
number = 2
```

<!-- not run: never -->
```shell
exit 4
```

```python
print(number + 1)
```

```text
4
```
"""


def test_blocks_are_read_and_run_in_order(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    blocks = read_blocks(page)
    assert [b.kind for b in blocks if b.is_run] == [
        "shell", "bash", "python", "python",
    ]  # fmt: skip
    assert blocks[0].line == 3 and len(blocks[0].commands) == 2
    with Session(page) as session:
        printed = session.run(blocks[0])
        assert printed.startswith("one 1.5 more\n0.")
        session.run_page()
        page.write_text(PAGE.replace("two words", "two, words"))
        with pytest.raises(AssertionError, match="page.md:11: 'two, words"):
            session.run_page()
        page.write_text(PAGE.replace("exit status 3", "exit status 2"))
        with pytest.raises(AssertionError, match="page.md:17: exit 3: 3"):
            session.run_page()
        page.write_text(PAGE.replace("```text\n4", "```text\nfour"))
        with pytest.raises(AssertionError, match="page.md:35: 'four'"):
            session.run_page()
