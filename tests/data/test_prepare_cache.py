from __future__ import annotations

from pathlib import Path

from dnl_video.data.prepare_cache import Journal


def test_what_is_added_is_there_again_while_its_stamp_holds(tmp_path: Path) -> None:
    file = tmp_path / "new" / "j.jsonl"
    with Journal(file) as journal:
        assert journal.get("a", [1, 2.5]) is None
        journal.add("a", [1, 2.5], {"x": 1})
        journal.add("ä\udcff\n", [0], "a name that is no UTF-8")
        journal.add("a", [1, 2.5], {"x": 2})
    with Journal(file) as journal:
        assert journal.get("a", [1, 2.5]) == {"x": 2}
        assert journal.get("a", [1, 2.6]) is None
        assert journal.get("ä\udcff\n", [0]) == "a name that is no UTF-8"
        journal.forget("a")
        assert journal.get("a", [1, 2.5]) is None
    assert len(file.read_text().splitlines()) == 3


def test_an_unused_journal_makes_no_file(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl"):
        pass
    assert not list(tmp_path.iterdir())


def test_half_a_line_of_a_killed_writer_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    with Journal(file) as journal:
        journal.add("a", 1, "kept")
        journal.add("b", 1, "torn")
    file.write_bytes(file.read_bytes()[:-9])
    with Journal(file) as journal:
        assert (journal.get("a", 1), journal.get("b", 1)) == ("kept", None)
        journal.add("c", 1, "after")
    with Journal(file) as journal:
        assert [journal.get(key, 1) for key in "abc"] == ["kept", None, "after"]
