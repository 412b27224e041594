"""The demo, smaller than it is."""

import numpy as np
import torch

from ninefold.segment import demo


def test_textures_have_a_row_for_each_step_and_pictures(tmp_path):
    torch.manual_seed(0)
    table, pairs = demo.textures_table(tmp_path, scenes=3, tested=2, epochs=1)
    assert [row[0] for row in table.rows] == ["step 1", "step 2", "step 3", "dense CRF"]
    assert all(0 < float(row[1]) < 1 for row in table.rows)
    assert all(row[2].endswith("]") for row in table.rows[1:])
    assert [pair.before.shape for pair in pairs] == [(96, 112, 3)] * 4


def test_coins_are_all_apart_after_the_field():
    table, (pair,) = demo.coins()
    assert [row[2] for row in table.rows] == ["26", "24"]
    assert not np.array_equal(pair.before, pair.after)


def test_what_is_printed_and_what_is_written(tmp_path, monkeypatch):
    part = demo.coins()
    monkeypatch.setattr(demo, "textures_table", lambda *_, **__: part)
    monkeypatch.setattr(demo, "objects_table", lambda *_, **__: part)
    *tables, last = demo.run(tmp_path)
    assert [table.title for table in tables] == ["Coins: there are 24"] * 3
    assert last == f"pictures and {tmp_path / 'index.html'}"
    assert (tmp_path / "index.html").read_text().count("<figure>") == 3
    assert (tmp_path / "coins-0.png").exists()


def test_otsu_parts_discs_that_touch():
    rows, columns = np.mgrid[:40, :60]
    discs = ((rows - 20) ** 2 + (columns - 20) ** 2 < 144) | ((rows - 20) ** 2 + (columns - 41) ** 2 < 144)
    found = demo.otsu_objects(discs.astype(np.float32))
    assert found[20, 20] != found[20, 41]
    assert len(np.unique(found)) == 3
