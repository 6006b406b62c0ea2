from pathlib import Path

import pytest

from store.errors import SourceError
from tasks.steps import pairs_file
from tasks.steps.pairs_file import Pair, PhotoName, parse_pairs, read_pairs, read_people

VIEW_1 = "2\nAnn\t1\t2\nBob_Bo\t3\t14\nAnn\t1\tBob_Bo\t3\nCy\t1\tDi\t2\n"
VIEW_2 = "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t3\nCy\t1\t2\nCy\t1\tDi\t2\n"
CSV = "first,second,same\na/1.jpg,a/2.jpg,1\na/1.jpg,b/1.png,0\n"


def parsed(text: str) -> pairs_file.PairsFile:
    return parse_pairs(text.encode(), where="/p")


def lfw(person: str, number: int) -> PhotoName:
    return PhotoName(f"{person}/{person}_{number:04d}", suffixed=False, person=person)


def test_view_1_is_read() -> None:
    file = parsed(VIEW_1)
    assert (file.format, file.people_unknown) == ("LFW, view 1", None)
    assert file.pairs == (
        Pair(2, lfw("Ann", 1), lfw("Ann", 2), same=True),
        Pair(3, lfw("Bob_Bo", 3), lfw("Bob_Bo", 14), same=True),
        Pair(4, lfw("Ann", 1), lfw("Bob_Bo", 3), same=False),
        Pair(5, lfw("Cy", 1), lfw("Di", 2), same=False),
    )


def test_view_2_has_its_folds() -> None:
    file = parsed(VIEW_2)
    assert file.format == "LFW, view 2"
    assert [(pair.fold, pair.same) for pair in file.pairs] == [(0, True), (0, False), (1, True), (1, False)]


def test_a_csv_is_read_whatever_its_columns_order_and_line_ends() -> None:
    text = '\ufeffnote,same,first,second,fold\r\nx,TRUE,a/1.jpg,./a//2.jpg,4\r\n\r\n"a,\nb",0,a/1.jpg,"b/1,2.jpg",7\r\n'
    file = parsed(text)
    assert file.format == "CSV"
    assert [(p.line, p.same, p.fold) for p in file.pairs] == [(2, True, 4), (5, False, 7)]
    assert file.pairs[0].second == PhotoName("a/2.jpg", suffixed=True, person="a")
    assert file.pairs[1].second.path == "b/1,2.jpg"


def test_folders_are_people_only_where_every_pair_agrees() -> None:
    assert parsed(CSV).people_unknown is None
    assert {photo.person for pair in parsed(CSV).pairs for photo in (pair.first, pair.second)} == {"a", "b"}
    loose = parsed(CSV + "c.jpg,b/1.png,0\n")
    assert loose.people_unknown == "line 4 names a photo that lies in no person's folder"
    assert {photo.person for pair in loose.pairs for photo in (pair.first, pair.second)} == {None}
    assert parsed(CSV + "a/3.jpg,a/4.jpg,0\n").people_unknown == (
        "folders are not people: on line 4 two people lie in one folder"
    )
    assert parsed(CSV + "a/3.jpg,b/4.jpg,1\n").people_unknown == (
        "folders are not people: on line 4 one person lies in two folders"
    )


@pytest.mark.parametrize(
    "path",
    ["../x.jpg", "a/../../x.jpg", "a/../b.jpg", "/etc/x.jpg", "~/x.jpg", "s3://b/x.jpg", "", ".", "..", "a\0.jpg"],
)
def test_a_path_out_of_the_folder_is_refused(path: str) -> None:
    with pytest.raises(SourceError, match="line 2: first is .*, wanted a path inside the folder of images"):
        parsed(f"first,second,same\n{path},a/2.jpg,0\n")


@pytest.mark.parametrize("name", ["..", ".", "", ".hidden", "a/b", "../Ann", "/Ann"])
def test_a_name_out_of_the_folder_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match="line 2: .* is no name"):
        parsed(f"1\n{name}\t1\t2\nAnn\t1\tBob\t1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: it begins with .*wanted LFW's format"),
        ("hello\n", "line 1: it begins with .*hello.*or a CSV with the columns first, second and same"),
        ("first,second\na,b\n", "line 1: it begins with"),
        ("first,second,same\n", "no pair follows"),
        ("0\n", "no pair follows"),
        ("2\nAnn\t1\t2\n", "line 1: 4 pairs are announced, 1 lines follow"),
        ("9999999\n", "line 1: 19,999,998 pairs are announced, the limit is 1,000,000"),
        ("1\nAnn\t1\tBob\t2\nAnn\t1\t2\n", "line 2: got 4 columns, wanted a pair of one person: name n1 n2"),
        ("1\nAnn\t1\tx\nAnn\t1\tBob\t1\n", "line 2: 'x' is no photo's number"),
        ("1\nAnn\t1\t-2\nAnn\t1\tBob\t1\n", "line 2: '-2' is no photo's number"),
        ("1\nAnn\t1\t٢\nAnn\t1\tBob\t1\n", "line 2: '٢' is no photo's number"),
        ("1\nAnn\t1\t01\nAnn\t1\tBob\t1\n", "line 2: a photo is paired with itself"),
        ("1\nAnn\t1\t2\nAnn\t1\tAnn\t3\n", "line 3: 'Ann' is paired with themselves as two"),
        ("first,second,same\na.jpg,b.jpg,maybe\n", "line 2: same is 'maybe', wanted 0, 1, true or false"),
        ("first,second,same\na.jpg,./a.jpg,1\n", "line 2: a photo is paired with itself"),
        ("first,second,same\na.jpg,b.jpg\n", "line 2: got 2 columns, the header has 3"),
        ("first,second,same,fold\na.jpg,b.jpg,1,\n", "line 2: fold is '', wanted a whole number in every row"),
        ('first,second,same\n"a.jpg,b.jpg,1\n', "it is no CSV"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(SourceError, match=f"the pairs file /p cannot be used: .*{message}"):
        parsed(text)


def test_every_problem_is_in_one_message_and_the_first_few_are_told() -> None:
    rows = "".join(f"a{n}.jpg,/b.jpg,1\n" for n in range(8))
    with pytest.raises(SourceError, match=r"line 2: second .*line 6: second .*; and 3 more$"):
        parsed("first,second,same\n" + rows)


def test_limits_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(CSV)
    monkeypatch.setattr(pairs_file, "MAX_PAIRS", 1)
    with pytest.raises(SourceError, match="line 3: there are more than 1 pairs"):
        read_pairs(str(tmp_path / "p.csv"))
    monkeypatch.setattr(pairs_file, "MAX_BYTES", 10)
    with pytest.raises(SourceError, match="has more than 10 bytes"):
        read_pairs(str(tmp_path / "p.csv"))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"the pairs file {tmp_path}/none.txt does not exist"):
        read_pairs(str(tmp_path / "none.txt"))
    (tmp_path / "p.txt").write_bytes(b"1\nAnn\t\xff\n")
    with pytest.raises(SourceError, match="it is no UTF-8"):
        read_pairs(str(tmp_path / "p.txt"))
    with pytest.raises(SourceError, match="cannot be read"):
        read_pairs(str(tmp_path))


def test_people_are_read_from_plain_lists_and_from_lfw_s(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("Ann\n\n Bob Bo \n")
    (tmp_path / "lfw.txt").write_text("2\nAnn\t4\nBob_Bo\t1\n")
    assert read_people(str(tmp_path / "plain.txt")) == {"Ann", "Bob Bo"}
    assert {"Ann", "Bob_Bo"} == read_people(str(tmp_path / "lfw.txt"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(SourceError, match="names nobody: wanted one name a line"):
        read_people(str(tmp_path / "empty.txt"))


def test_lfw_s_own_files_are_read(real_data: Path) -> None:
    for name, pairs in (("pairsDevTest.txt", 1000), ("pairsDevTrain.txt", 2200)):
        file = read_pairs(str(real_data / "lfw" / name))
        assert len(file.pairs) == pairs
        assert sum(pair.same for pair in file.pairs) == pairs / 2
