"""Tables as people write them: headers, separators, columns that are left out, users and items."""

from __future__ import annotations

import ast
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers import rows_of, unusable
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from evoae.data import datasets
from evoae.data.datasets import load, summary
from evoae.data.tables import looks_like_names

VALUES = np.random.default_rng(0).random((40, 8)).round(3)


def write(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    content = text.encode(encoding) if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def table(values: np.ndarray = VALUES, first: str | None = None, separator: str = ",") -> str:
    lines = [] if first is None else [first]
    return "".join(f"{line}\n" for line in [*lines, *(separator.join(map(str, r)) for r in values)])


def in_order(values: np.ndarray) -> list[list[float]]:
    return sorted(values.astype(np.float32).tolist())


def message(path: Path, **options) -> str:
    text = unusable(path, **options)
    assert text.startswith(f"{path}: ")
    return text


# A first line that holds numbers

COUNTS = np.random.default_rng(1).integers(0, 5000, (40, 8))
PIXELS = np.random.default_rng(2).integers(0, 256, (40, 8))


@pytest.mark.parametrize(
    ("first", "values"),
    [
        ("400,402,404,406,408,410,412,414", VALUES),  # wavelengths
        ("414,412,410,408,406,404,402,400", VALUES),
        ("400.0,402.5,405.0,407.5,410.0,412.5,415.0,417.5", VALUES),
        ("400,402,404", VALUES[:, :3]),
        ("400,402", VALUES[:, :2]),
        ("400", VALUES[:, :1]),
        ("0.40,0.41,0.42,0.43,0.44,0.45,0.46,0.47", VALUES),  # in micrometres
        ("9.9975,9.9949,9.9924,9.9898,9.9873,9.9847,9.9822,9.9796", VALUES),  # ppm
        ("50.1,51.3,60.9,70.22", VALUES[:, :4]),  # m/z
        ("1990,1991,1992,1993,1994,1995,1996,1997", COUNTS),  # years among counts
        ("1990,1995,2000,2010", COUNTS[:, :4] % 900),
        ("1,2,3,4,5,6,7,8", PIXELS),
        ("1,2,3,4,5,6,7,8", VALUES),
        ("0,1,2,3,4,5,6,7", PIXELS),
        ("1034,998,1201,77", VALUES[:, :4]),  # numbers of stations
    ],
)
def test_numbers_that_name_columns_are_no_row(
    first: str, values: np.ndarray, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", table(values, first))
    for options in ({}, {"scale": True}, {"scale": "columns"}):
        text = message(path, **options)
        assert "values must" not in text
        assert "line 1" in text
        assert "header=yes" in text
        assert "header=no" in text
    assert summary(path, scale=True, header="yes").size[1:3] == values.shape
    assert summary(path, scale=True, header="yes").described["columns"] == first.split(",")
    assert summary(path, scale=True, header="no").size.rows == len(values) + 1


@pytest.mark.parametrize(
    "values",
    [
        VALUES,
        np.array([[0, 1], [0.5, 0.2], [0.3, 0.7]]),  # begins with the extremes
        (VALUES > 0.5).astype(int),
        np.eye(8, dtype=int),
        PIXELS,
        COUNTS,
        np.sort(VALUES, axis=1),
        -np.sort(-VALUES, axis=1),
        np.linspace(0, 1, 160).reshape(20, 8),  # every row rises by even steps
        np.arange(160).reshape(20, 8) + 1,
        np.vstack([VALUES[:1] * 10, VALUES]),  # the first is an outlier
        PIXELS[:, :2],
        PIXELS[:, :1],
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_ordinary_rows_are_no_header(values: np.ndarray, named: bool, tmp_path: Path) -> None:
    first = ",".join("abcdefgh"[: values.shape[1]]) if named else None
    path = write(tmp_path / "a.csv", table(values, first))
    assert summary(path, scale=True).size[1:3] == values.shape


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.sampled_from(["uniform", "normal", "pixels", "bits", "skewed"]),
)
def test_random_rows_hardly_ever_look_like_names(seed: int, width: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    rows = {
        "uniform": lambda: random.random((60, width)),
        "normal": lambda: random.normal(size=(60, width)),
        "pixels": lambda: random.integers(0, 256, (60, width)),
        "bits": lambda: random.integers(0, 2, (60, width)),
        "skewed": lambda: np.exp(random.normal(size=(60, width))),
    }[kind]()
    assert not looks_like_names(rows[0].astype(float), rows[1:].astype(float))


def test_quotes_around_the_numbers_of_the_first_line_alone_make_it_a_header(tmp_path: Path) -> None:
    quoted = ",".join(f'"{400 + n}"' for n in range(8))
    assert rows_of(write(tmp_path / "a.csv", table(first=quoted))) == in_order(VALUES)
    everywhere = table(VALUES.astype(str)).replace(",", '","').replace("\n", '"\n"')[:-1]
    assert rows_of(write(tmp_path / "b.csv", f'"{everywhere}')) == in_order(VALUES)


@pytest.mark.parametrize("first", ["id,400,402,404,406,408,410,412", "1,2,3,4,x,6,7,8"])
def test_names_and_numbers_in_a_first_line_are_refused_with_a_cure(
    first: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", table(first=first))
    text = message(path)
    assert "row 0" in text
    assert "if line 1 holds the names of the columns, say header=yes" in text
    assert rows_of(path, header="yes") == in_order(VALUES)


def test_a_column_that_is_left_out_by_its_name_makes_the_line_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", table(first="id,400,402,404,406,408,410,412"))
    assert rows_of(path, leave_out="id") == in_order(VALUES[:, 1:])


def test_row_numbers_without_a_name(tmp_path: Path) -> None:
    pd.DataFrame(VALUES, columns=range(400, 408)).to_csv(tmp_path / "a.csv")
    text = message(tmp_path / "a.csv")
    assert "index=False" in text
    assert rows_of(tmp_path / "a.csv", leave_out="Unnamed: 0") == in_order(VALUES)
    pd.read_csv(tmp_path / "a.csv").to_csv(tmp_path / "b.csv", index=False)
    assert "index=False" in message(tmp_path / "b.csv")


def test_a_second_line_of_names_is_refused(tmp_path: Path) -> None:
    first = "a,b,c,d,e,f,g,h\n400,402,404,406,408,410,412,414"
    path = write(tmp_path / "a.csv", table(first=first))
    assert "line 2" in message(path, scale=True)
    assert summary(path, scale=True, header="yes").size.rows == 41


def test_a_header_is_of_tables_as_text(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    pd.DataFrame(VALUES, columns=list("abcdefgh")).to_parquet(tmp_path / "a.parquet")
    for name in ("a.npy", "a.parquet"):
        assert "header=yes" in message(tmp_path / name, header="yes")
    with pytest.raises(ValueError, match="header must be auto, yes or no, not True"):
        summary(tmp_path / "a.npy", header=True)
    for options in ({"header": "no"}, {"leave_out": "3"}):
        for name in ("digits", "binary-clusters"):
            with pytest.raises(ValueError, match=f"not to .*{name}"):
                summary(name, **options)


# How text is written

NAMES = "a,b,c,d,e,f,g,h"


@pytest.mark.parametrize("first", [None, NAMES])
@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        (".csv", lambda text: text.replace(",", ";")),
        (".csv", lambda text: text.replace(",", "; ")),
        (".csv", lambda text: text.replace(",", ";").replace(".", ",")),  # decimal commas
        (".csv", lambda text: text.replace(",", "\t").replace(".", ",")),
        (".tsv", lambda text: text.replace(",", "\t")),
        (".tsv.gz", lambda text: text.replace(",", "\t")),
        (".csv.gz", lambda text: text),
        (".txt", lambda text: "  " + text.replace(",", "   ").replace("\n", " \n  ")),
        (".txt.gz", lambda text: text.replace(",", "|")),
        (".csv", lambda text: "# by me\n#, too\n\n" + text.replace("\n", "\n# and here\n", 9)),
        (".csv", lambda text: text.replace("\n", "\r")),
        (".csv", lambda text: text.replace("\n", ",\r\n")),  # what ends a line separates nothing
        (".csv", lambda text: text.replace(",", ";").replace("\n", ";\n")),
        (".csv", lambda text: text.replace(",", '","').replace("\n", '"\n"')[:-1].join(['"', ""])),
        (".csv", lambda text: "\ufeff" + text),
        (".CSV", lambda text: text.rstrip("\n")),
    ],
)
def test_text_is_read_as_it_is_written(
    first: str | None, suffix: str, change, tmp_path: Path
) -> None:
    path = write(tmp_path / f"a{suffix}", change(table(first=first)))
    assert rows_of(path) == in_order(VALUES)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    text = table(VALUES[:, :2], "année;été", ";")
    path = write(tmp_path / "a.csv", text, encoding)
    assert rows_of(path) == in_order(VALUES[:, :2])
    assert summary(path).described["columns"] == ["année", "été"]


def test_a_decimal_comma_far_down_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "1;0\n" * 300 + "0,5;0,25\n")
    assert [0.5, 0.25] in rows_of(path)


def test_a_wide_table(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 8_000))
    path = write(tmp_path / "a.csv", table(values, ",".join(f"g{n}" for n in range(8_000))))
    assert rows_of(path) == in_order(values)
    assert "line 1" in message(
        write(tmp_path / "b.csv", table(values, ",".join(map(str, range(8_000)))))
    )


def test_only_rows_end_in_a_separator(tmp_path: Path) -> None:
    text = table(first="a;b;c;d;e;f;g;h", separator=";").replace("\n", ";\n")
    path = write(tmp_path / "a.csv", text.replace("h;\n", "h\n"))
    assert rows_of(path) == in_order(VALUES)


# Columns


def test_a_column_that_stands_twice_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", table(first="a,b,c,a,d,e,f,g"))
    assert "column 'a' occurs twice (columns 0, 3" in message(path)
    assert rows_of(path, leave_out="a") == in_order(VALUES[:, [1, 2, 4, 5, 6, 7]])
    column = pa.array([0.5, 0.25, 1.0])
    for names, word in ((["b", "a", "b"], "'b'"), (["user", "item", "user"], "'user'")):
        parquet.write_table(pa.table([column] * 3, names=names), tmp_path / "a.parquet")
        assert f"column {word} occurs twice (columns 0, 2" in message(tmp_path / "a.parquet")
    path = write(tmp_path / "b.csv", "user,item,item\n" + "1,2,3\n" * 9)
    assert "column 'item' occurs twice (columns 1, 2" in message(path)


TABLE = "id,f,g,label,species\n" + "".join(
    f"{n},{a},{b},{n % 2},setosa\n" for n, (a, b) in enumerate(VALUES[:, :2].tolist())
)


@pytest.mark.parametrize("leave", ["id,label,species", " species , label,id"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_are_left_out_by_name(leave: str, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", TABLE)
    if suffix == ".parquet":
        path = tmp_path / "a.parquet"
        pd.read_csv(tmp_path / "a.csv").to_parquet(path)
    assert "leave_out=species" in message(path)
    assert rows_of(path, leave_out=leave) == in_order(VALUES[:, :2])
    assert summary(path, leave_out=leave).described["columns"] == ["f", "g"]
    assert "'lable', which is not a column (did you mean label?)" in message(
        path, leave_out="lable"
    )
    assert "leaves out every column" in message(path, leave_out="id,f,g,label,species")


def test_all_columns_without_a_number_are_named_at_once() -> None:
    values = pd.DataFrame(VALUES[:, :2], columns=["f", "g"])
    texts = {"a": ["x"] * 40, "b": [None] * 39 + ["y"], "c": pd.date_range("2026", periods=40)}
    some = {"d": ["x", *VALUES[1:, 2].tolist()]}  # a bad cell: the column may be of use
    frame = values.assign(**texts, **some, e=pd.Categorical(["u", "v"] * 20))
    assert unusable(frame).endswith("or be left out: leave_out=a,b,c,e")
    text = unusable(frame, leave_out="b,f")
    assert text.endswith("leave_out=b,f,a,c,e")
    assert unusable(frame, leave_out="a,b,c,e").endswith("leave_out=a,b,c,e,d")
    assert summary(frame, leave_out="a,b,c,e,d").columns == ("f", "g")
    assert unusable(pd.DataFrame(texts)).endswith("values must be numbers")
    many = values.assign(**{f"text {n}": "x" for n in range(40)})
    assert unusable(many).endswith("leave_out=text 0")


def test_columns_without_names_are_left_out_by_number(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    write(tmp_path / "a.csv", table())
    for name in ("a.npy", "a.csv"):
        assert rows_of(tmp_path / name, leave_out="0,7") == in_order(VALUES[:, 1:7])
        assert "'8', which is not a column" in message(tmp_path / name, leave_out="8")
    np.save(tmp_path / "i.npy", VALUES.reshape(40, 2, 4))
    assert "the shape is (40, 2, 4)" in message(tmp_path / "i.npy", leave_out="1")


def test_a_name_that_holds_a_comma_stands_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", table(VALUES[:, :3], '"a, left",b,c'))
    assert rows_of(path, leave_out='"a, left",c') == in_order(VALUES[:, 1:2])


def test_what_is_probably_no_measurement_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", TABLE)
    numbers, labels = summary(path, leave_out="species", scale="columns").notes
    assert "column 'id' counts up" in numbers
    assert "leave_out=id" in numbers
    assert "column 'label' is trained on" in labels
    assert summary(path, leave_out="id,label,species").notes == ()
    values = VALUES.copy()
    values[:, 3] = np.random.default_rng(0).permutation(40) + 1  # in any order
    values[:, 5] = np.linspace(0, 1, 40)  # scaled already
    for start, array in (("s", values), ("t", values.astype(np.float32))):
        np.save(tmp_path / f"{start}.npy", array)
        (text,) = summary(tmp_path / f"{start}.npy", scale="columns").notes
        assert "columns '3', '5' count up" in text
        assert "leave_out=3,5" in text
    np.save(tmp_path / "ordinary.npy", VALUES)
    assert summary(tmp_path / "ordinary.npy").notes == ()


# Users and items


@pytest.mark.parametrize(
    ("first", "separator", "found"),
    [
        ("userId,movieId,rating,timestamp", ",", ("userId", "movieId")),  # MovieLens
        ("userID\tartistID\tweight", "\t", ("userID", "artistID")),  # Last.fm
        ('"User-ID";"ISBN";"Book-Rating"', ";", ("User-ID", "ISBN")),  # Book-Crossing
        ("reviewerID,asin,overall", ",", ("reviewerID", "asin")),  # Amazon
        ("InvoiceNo,StockCode,Quantity,CustomerID", ",", ("CustomerID", "StockCode")),
        ("timestamp,visitorid,event,itemid", ",", ("visitorid", "itemid")),
        ("customer_id|product_id|n", "|", ("customer_id", "product_id")),
        ("USER ID,TRACK ID", ",", ("USER ID", "TRACK ID")),
        ("song_id,user_id,play_count", ",", ("user_id", "song_id")),
    ],
)
def test_common_names_of_users_and_items(
    first: str, separator: str, found: tuple[str, str], tmp_path: Path
) -> None:
    random, names = np.random.default_rng(0), first.replace('"', "").split(separator)
    rows = random.integers(1, 9, (60, len(names)))
    path = write(tmp_path / "a.csv", table(rows, first, separator))
    columns = [names.index(name) for name in found]
    plain = write(tmp_path / "b.csv", table(rows[:, columns], "user,item"))
    assert rows_of(path) == rows_of(plain)
    assert summary(path).size.held_out
    (text,) = summary(path).notes
    assert f"users are in column {found[0]}, items in {found[1]}" in text
    assert f"leave_out={found[0]},{found[1]}" in text
    assert summary(plain).notes == ()
    pd.DataFrame(rows, columns=names).to_parquet(tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == rows_of(plain)
    if len(names) > 2:
        as_numbers = summary(path, leave_out=",".join(found), scale=True).size
        assert (as_numbers.dimension, as_numbers.held_out) == (len(names) - 2, False)


def test_two_columns_that_may_both_be_the_items(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(1, 9, (60, 3))
    path = write(tmp_path / "a.csv", table(rows, "user_id,song_id,artist_id"))
    text = message(path)
    assert "columns 'song_id', 'artist_id' may each hold the items" in text
    assert "leave_out=artist_id" in text
    assert summary(path, leave_out="artist_id").size.held_out
    path = write(tmp_path / "b.csv", table(rows, "user,item,movie_id"))
    assert summary(path).size.held_out  # those names say it


def test_users_alone_are_no_interactions_and_the_message_says_what_would_be(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(1, 9, (60, 3))
    path = write(tmp_path / "a.csv", table(rows, "user_id,f,g"))
    assert "call the columns user and item" in message(path)
    assert any("'user_id' is trained on" in text for text in summary(path, scale=True).notes)


def test_a_user_may_be_called_by_a_sign_of_comments(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "# pairs\nuser,item\n#1,a\n#2,b\nc,a\n")
    assert summary(path).size.rows == 3


def test_interactions_are_not_scaled(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,item\n" + "".join(f"{n},x\n{n},{n}\n" for n in range(9)))
    for scale in (True, "columns"):
        assert rows_of(path, scale=scale) == rows_of(path)


# Values


def test_rounding_beyond_0_and_1_is_0_and_1(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[0, 0], values[1, 1] = 1.0000000000000002, -1e-17
    values[2, 2], values[3, 3] = 1 + 9e-7, np.float32(1) + np.float32(2**-22)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", values.astype(np.float32))
    write(tmp_path / "c.csv", table(values))
    for name in ("a.npy", "b.npy", "c.csv"):
        assert rows_of(tmp_path / name) == in_order(values.clip(0, 1))
    for value in (1.01, 1 + 2e-6, -2e-6):
        values[5, 5] = value
        np.save(tmp_path / "d.npy", values)
        assert "row 5 holds" in message(tmp_path / "d.npy")


def test_columns_of_different_ranges(tmp_path: Path) -> None:
    values = VALUES * [1, 10, 1e6, 1e-6, 0, 1, 1, 1] + [0, -5, 3e6, 0, 7, 0, 0, 0]
    np.save(tmp_path / "a.npy", values)
    data = load(tmp_path / "a.npy", seed=0, trial=0, scale="columns")
    rows = np.vstack([data.train, data.validation, data.test])
    np.testing.assert_array_equal(rows.min(0), np.zeros(8))
    np.testing.assert_array_equal(rows.max(0), [1, 1, 1, 1, 0, 1, 1, 1])  # constant: defined
    back = data.scaling.raw(rows)
    np.testing.assert_allclose(sorted(back.tolist()), sorted(values.tolist()), rtol=1e-5, atol=1e-5)
    assert (back[:, 4] == 7).all()
    whole = load(tmp_path / "a.npy", seed=0, trial=0, scale=True)
    expected = (values - values.min()) / (values.max() - values.min())
    assert sorted(np.vstack([whole.train, whole.validation, whole.test]).tolist()) == in_order(
        expected
    )
    assert load("digits", seed=0, trial=0).scaling is None


def test_a_column_beyond_floats_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b\n1,-1e308\n2,1e308\n4,0\n")
    assert "column 'b' cannot be scaled" in message(path, scale="columns")


def test_splits_are_scaled_by_the_same_numbers(tmp_path: Path) -> None:
    parts = {"train": VALUES[:20], "validation": VALUES[20:30], "test": VALUES[30:] * 9}
    np.savez(tmp_path / "a.npz", **parts)
    data = load(tmp_path / "a.npz", seed=0, trial=0, scale="columns")
    np.testing.assert_array_equal(data.scaling.maximum, np.vstack(list(parts.values())).max(0))
    assert data.test.max() == 1


# Read once


def test_a_file_is_read_once_for_each_state_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = write(tmp_path / "a.csv", table()), []
    text = datasets.SUFFIXES[".csv"]

    def counted(*given):
        read.append(given)
        return text(*given)

    monkeypatch.setitem(datasets.SUFFIXES, ".csv", counted)
    for seed in range(3):
        summary(path)
        load(path, seed=seed, trial=0)
    assert len(read) == 1
    write(path, table(VALUES[::-1]))  # as many bytes, within one tick of the clock perhaps
    assert rows_of(path) == in_order(VALUES)
    assert len(read) == 2


def test_content_that_changes_within_a_tick_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for values in (np.eye(8), 1 - np.eye(8), np.eye(8)):
        np.save(path, values)
        assert rows_of(path) == in_order(values)


def test_paths_may_be_paths_and_begin_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path / "a.csv", table())
    assert rows_of(path) == rows_of("~/a.csv") == rows_of(str(path))


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("sep=;\na;b\n0;1\n1;0\n1;1\n", ["a", "b"]),  # as Excel is told the separator
        ("#,a\n0,1\n1,0\n1,1\n", ["#", "a"]),
    ],
)
def test_first_lines_of_other_programs(text: str, columns: list[str], tmp_path: Path) -> None:
    assert summary(write(tmp_path / "a.csv", text)).described["columns"] == columns


def test_whole_numbers_of_any_size_are_numbers(tmp_path: Path) -> None:
    rows = "\n".join(f"{10**30 * n},{n}" for n in range(4))
    assert summary(write(tmp_path / "a.csv", f"a,b\n{rows}\n"), scale="columns").size.dimension == 2


@pytest.mark.parametrize(
    "name", ["plain", "a, left", 'a "quoted" one', "a\nb", "é,\tb", " padded "]
)
def test_the_cure_for_a_column_can_be_followed_whatever_its_name(name: str) -> None:
    counting = np.arange(40.0)
    for column in (["x"] * 40, counting):
        frame = pd.DataFrame(VALUES[:, :2], columns=["f", "g"]).assign(**{name: column})
        if column is counting:
            (text,) = summary(frame, scale="columns").notes
        else:
            text = unusable(frame)
        assert text.isprintable()
        written = text.partition("leave_out=")[2]
        leave = ast.literal_eval(written) if written.startswith("'") else written
        assert summary(frame, leave_out=leave).columns == ("f", "g")
        assert "'other', which is not a column" in unusable(frame, leave_out="other")
