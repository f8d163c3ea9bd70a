"""Options that fairseq would evaluate are read without running them."""

import pytest

from unispeech_sb.checkpoints.fairseq.literals import literal, read_layers


def test_layers_as_fairseq_writes_them():
    text = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] * 2"
    assert read_layers(text, "x") == eval(text)
    assert read_layers([[512, 10, 5]], "x") == [(512, 10, 5)]
    assert literal("(2, 0.5, 0.999995)", "x") == (2, 0.5, 0.999995)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch canary')",
        "[(512, 10, 5)] * 10**9",
        "[(512, 10, 5)] * 1000",
        "[(512, 10, 5)] * 60 * 60",
        "[(512, 10)]",
        "[(512, 10, 5.5)]",
        "[(512, 10, True)]",
        "[x for x in (1, 2)]",
        "lambda: 0",
        "[]",
        "[" * 500,
        "(" * 200 + ")" * 200,
        "[(1,1,1)]+" * 300,
        "9" * 999,
        "\0",
        None,
        3,
    ],
)
def test_anything_else_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="x: expected") as caught:
        read_layers(text, "x")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    assert list(tmp_path.iterdir()) == []
