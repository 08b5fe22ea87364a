"""Which column is what, by title, by the user's word, and by the first values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn.errors import EdgernnError
from edgernn.layout import (
    Columns,
    Layout,
    Row,
    find_layout,
    join_unit,
    parse_label,
    parse_number,
    read_rows,
    split_unit,
)

NAMES = st.text(st.sampled_from("ab[]()°/_"), min_size=1)
UNITS = st.text(st.sampled_from("mms/°C²%·h "), max_size=6).map(str.strip)


def layout(header: str, *rows: str, columns: Columns | None = None) -> Layout:
    return find_layout(header, rows, columns or Columns(), where="x.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found_and_quoted_ones_do_not_count(delimiter: str) -> None:
    header = delimiter.join(["time", f'"flow{delimiter} left"', "heat"])
    found = layout(header, delimiter.join(["0", "1.5", "2"]))
    assert (found.delimiter, found.names) == (delimiter, (f"flow{delimiter} left", "heat"))


def test_delimiter_is_the_one_that_cuts_all_rows_alike() -> None:
    assert layout("time;a;b", "0;1,5;2,5", "1;2,5;3,5").delimiter == ";"
    assert layout("time,a;b;c;d", "0,1", "1,2").delimiter == ","


def test_delimiter_may_be_named() -> None:
    assert layout("time a:b", "0:1", columns=Columns(delimiter=":", time="time a")).names == ("b",)


@pytest.mark.parametrize("title", ["time", "Timestamp", "DateTime", "date", "TS", "t", "Time [s]"])
def test_time_is_found_by_name_in_any_case_and_place(title: str) -> None:
    assert layout(f"a,{title}", "1,0").time == 1


def test_of_several_times_the_plainest_name_is_taken() -> None:
    found = layout("t,a,time", "20.5,1,0")
    assert (found.time, found.names) == (2, ("t", "a"))


def test_time_is_the_first_column_if_its_values_are_iso_times() -> None:
    assert layout("when,a", "2020-03-01 10:00:00,1").time == 0


def test_label_and_stream_are_found_by_name() -> None:
    found = layout("Stream_ID,time,a,Anomaly", "p,0,1,0")
    assert (found.stream, found.label, found.names) == (0, 3, ("a",))


def test_columns_may_be_named_with_or_without_their_unit() -> None:
    found = layout(
        "when [s],what,who,a [V],b",
        "0,x,p,1,2",
        columns=Columns(time="when", label="what", stream="who", ignore=("a",)),
    )
    assert (found.time, found.label, found.stream, found.ignored) == (0, 1, 2, (3,))
    assert found.names == ("b",)


def test_an_ignored_label_is_neither_label_nor_channel() -> None:
    found = layout("time,a,label", "0,1,0", columns=Columns(ignore=("label",)))
    assert (found.label, found.names) == (None, ("a",))


def test_changepoint_column_of_skab_is_ignored() -> None:
    found = layout("datetime;a;anomaly;changepoint", "2020-03-01 10:00:00;1;0.0;0.0")
    assert (found.names, found.label, found.ignored) == (("a",), 2, (3,))


def test_byte_order_mark_is_not_part_of_the_first_title() -> None:
    assert layout("\ufefftime,a", "0,1").header == ("time", "a")


@pytest.mark.parametrize(
    ("title", "name", "unit"),
    [
        ("vibration [mm/s]", "vibration", "mm/s"),
        ("flow (l/h)", "flow", "l/h"),
        ("pressure[bar]", "pressure", "bar"),
        ("pump (left) [°C]", "pump (left)", "°C"),
        ("pump (left) []", "pump (left)", ""),
        ("[x]", "[x]", ""),
        (" a ", "a", ""),
    ],
)
def test_unit_is_what_stands_in_brackets_at_the_end(title: str, name: str, unit: str) -> None:
    assert split_unit(title) == (name, unit)


@given(NAMES, UNITS)
def test_joined_units_split_into_what_they_were(name: str, unit: str) -> None:
    assert split_unit(join_unit(name, unit)) == (name, unit)


def test_rows_are_read_with_missing_values_labels_and_streams() -> None:
    found = layout("time;stream;a;b;label", "0;p;1,5;;leak")
    lines = ["0;p;1,5;2;leak\r\n", "\r\n", ";;;;\r\n", "1970-01-01T00:00:01Z; p ;-1.5e3;3;0\r\n"]
    assert list(read_rows(lines, found, where="x.csv")) == [
        Row(0.0, "p", (1.5, 2.0), "leak"),
        Row(1.0, "p", (-1500.0, 3.0), ""),
    ]


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "null", "NA", "n/a"])
def test_missing_cells_are_nan(cell: str) -> None:
    assert math.isnan(parse_number(cell, has_decimal_commas=False))


@pytest.mark.parametrize("cell", ["abc", "inf", "-Infinity", "1e39", "1_000", "1,5", "1.2.3"])
def test_other_cells_are_not_numbers(cell: str) -> None:
    with pytest.raises(ValueError):
        parse_number(cell, has_decimal_commas=False)


def test_thousands_points_before_a_decimal_comma_are_refused() -> None:
    with pytest.raises(ValueError):
        parse_number("1.234,5", has_decimal_commas=True)


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        *((cell, "") for cell in ("0", "0.0", "False", "normal", "Healthy", " ", "nan")),
        *((cell, "anomaly") for cell in ("1", "1.0", "TRUE")),
        (" leak ", "leak"),
        ("2", "2"),
    ],
)
def test_labels_are_empty_when_healthy_and_keep_their_words(cell: str, label: str) -> None:
    assert parse_label(cell) == label


@pytest.mark.parametrize(
    ("header", "row", "columns", "sentence"),
    [
        ("", "0,1", {}, "line 1: expected a header, got an empty line"),
        ("time,a,a", "0,1,2", {}, 'line 1: two columns are named "a"'),
        ("time,a [V],a [A]", "0,1,2", {}, 'line 1: two columns are named "a"'),
        ("time,,b", "0,1,2", {}, "line 1: column 2 has no name"),
        ("time,a,", "0,1,", {}, "line 1: column 3 has no name"),
        ("1,2.5,3", "4,5,6", {}, "line 1: expected a header, got only values"),
        ("2020-01-01 00:00:00,3", "", {}, "line 1: expected a header, got only values"),
        ("time", "0", {}, 'found one column, "time"; expected a time and at least one channel'),
        ("time,label", "0,1", {}, 'no channels: "time", "label" have other purposes'),
        ("a,b", "1,2", {}, 'no column of times among "a", "b"; name it with --time'),
        ("time,a", "0,1", {"time": "T0"}, 'no column "T0" (--time) among "time", "a"'),
        ("time,a", "0,1", {"label": "L"}, 'no column "L" (--label) among "time", "a"'),
        ("time,a", "0,1", {"stream": "S"}, 'no column "S" (--stream-column) among "time", "a"'),
        ("time,a", "0,1", {"ignore": ("z",)}, 'no column "z" (--ignore) among "time", "a"'),
        ("time,a,b", "0,1,2", {"label": "time"}, "one column is named for two purposes"),
        ("time,a", "0,1", {"delimiter": "::"}, "delimiter: expected one character, got '::'"),
        ('time,"a', "0,1", {}, "line 1: a quotation mark is not closed"),
        ("time,a\r0,1\r1,2", "", {}, "not a CSV file: new-line character seen"),
        (
            "time,a,label,fault",
            "0,1,0,0",
            {},
            '"label", "fault": name one with --label, leave others out with --ignore',
        ),
    ],
)
def test_a_doubtful_header_is_refused_with_a_sentence(
    header: str, row: str, columns: dict[str, str], sentence: str
) -> None:
    with pytest.raises(EdgernnError) as caught:
        layout(header, row, columns=Columns(**columns))  # type: ignore[arg-type]  # one dict, two types
    assert str(caught.value).startswith(f"x.csv: {sentence}")


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["0,p,abc"], 'line 2, column "a [V]": expected a number, got "abc"'),
        (["0,p,1", "1,p,inf"], 'line 3, column "a [V]": expected a number, got "inf"'),
        (["0,p,1", "", "1,p"], "line 4: expected 3 cells, got 2"),
        (["0,p,1,2"], "line 2: expected 3 cells, got 4"),
        (['0,"p\n', 'q",1\n', "1,p,x\n"], 'line 4, column "a [V]": expected a number, got "x"'),
        (["0,,1"], 'line 2, column "stream": expected a stream, got ""'),
        (
            ["noon,p,1"],
            'line 2, column "time": expected a time (ISO 8601, or seconds or milliseconds since '
            '1970), got "noon"',
        ),
    ],
)
def test_a_wrong_row_is_refused_with_its_line_and_column(lines: list[str], sentence: str) -> None:
    found = layout("time,stream,a [V]", "0,p,1")
    with pytest.raises(EdgernnError) as caught:
        list(read_rows(lines, found, where="x.csv"))
    assert str(caught.value) == f"x.csv: {sentence}"
