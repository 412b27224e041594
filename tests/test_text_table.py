import pytest

from ninefold.text_table import Printable, TextTable


def table():
    shown = TextTable("layers")
    shown.add_column("layer", fold=True)
    shown.add_column("milliseconds", right=True)
    shown.add_row("features.stem.first and more words", "1.5")
    shown.add_section()
    shown.add_row("all", "12")
    return shown


def test_numbers_stand_to_the_right_and_heads_above_their_columns():
    lines = table().text(100).splitlines()
    assert lines[0] == "layers"
    assert lines[1] == "layer                              │ milliseconds"
    assert lines[3].endswith(" │          1.5")
    assert len({line.index("│") for line in (lines[1], lines[3], lines[5])}) == 1
    assert lines[2] == lines[4]


def test_a_narrow_table_folds_what_may_be_folded_and_nothing_else():
    lines = table().text(30).splitlines()
    assert max(map(len, lines)) == 30
    assert [line.split(" │")[0].rstrip() for line in lines[3:6]] == ["features.stem.f", "irst and more", "words"]
    assert max(map(len, table().text(5).splitlines())) == 10 + 3 + len("milliseconds")  # a folded column keeps 10


def test_a_table_without_rows_has_its_head():
    shown = TextTable("nothing")
    shown.add_column("layer")
    assert shown.text(40).splitlines() == ["nothing", "layer", "─────"]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        table().add_row("one")


def test_a_console_of_rich_shows_brackets_and_its_own_width():
    from io import StringIO

    from rich.console import Console

    class Words(Printable):
        def text(self, width):
            return f"[bold]{width}"

    out = StringIO()
    Console(file=out, width=44).print(Words())
    assert out.getvalue() == "[bold]44\n"
    assert str(Words()) == "[bold]150"
