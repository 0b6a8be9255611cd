"""Object keys: what is formatted can be parsed again, and no name can leave its folder."""

import datetime as dt
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfm import layout
from deepfm.errors import UsageError
from deepfm.storage.local import checked_key

DAY = dt.date(2026, 3, 4)
VERSION = f"{DAY}-0123456789abcdef"
names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)
files = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)
hexes = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)

_CLIMBS = [
    "../x",
    "..",
    "..\\x",
    "a/../../b",
    "/etc/passwd",
    "C:\\x",
    "./x",
    "a/b",
    "//x",
    ".hidden",
    "\\\\host\\share",
]
HOSTILE = [
    *_CLIMBS,
    *(quote(text, safe="") for text in _CLIMBS),
    *(quote(quote(text, safe=""), safe="") for text in _CLIMBS),
    "",
    " ",
    "a b",
    "a\x00b",
    "a\n",
    "a\r\nb",
    "\u202egpj.x",
    "a" * 300,
    "\uff12\uff10\uff12\uff16",
    "naïve",
    "a\u200b",
    "-rf",
]


@given(names, st.dates(), hexes)
def test_a_version_id_gives_back_its_date(model, date, key):
    version = layout.version_id(date, key)
    assert layout.version_date(version) == date
    assert layout.name_below(layout.version_prefix(model, version), layout.version_manifest(model, version)) == (
        layout.MANIFEST
    )


@given(names, st.integers(1, 10**12 - 1))
def test_a_log_entry_gives_back_its_number(model, sequence):
    assert layout.log_sequence(layout.log_entry(model, sequence)) == sequence


@given(names, st.lists(st.integers(1, 10**12 - 1), min_size=2, max_size=5))
def test_log_entries_sort_by_their_number(model, sequences):
    keys = [layout.log_entry(model, sequence) for sequence in sequences]
    assert [layout.log_sequence(key) for key in sorted(keys)] == sorted(sequences)


FOLDERS = [
    "dt={date}",
    "clicks/dt={date}",
    "raw/{date}/hour",
    "{date}",
    "a+b/({date})",
    "dt={date}/",
    "x%Y{date}",
    "year={date:%Y}/month={date:%m}/day={date:%d}",
    "{date:%Y/%m/%d}",
    "{date:%Y-%j}",
    "{date}/again-{date:%Y%j}",
    "spark-{date}.parquet/",
]
FILES = [
    "clicks-{date:%Y%m%d}.csv.gz",
    "{date}.parquet",
    "{date:%Y}/{date:%m.%d}/clicks.TSV",
    "a.b/{date:%d-%m-%Y}.Csv",
]


@given(st.sampled_from(FOLDERS + FILES), st.dates(), files)
def test_a_partition_gives_back_its_date(template, date, name):
    assert layout.checked_partition(template) == template
    key = layout.partition_prefix(template, date)
    assert layout.partition_is_file(template) == (template in FILES)
    if template in FOLDERS:
        assert layout.partition_date(template, key) is None
        key = layout.file_key(key, name)
    assert checked_key(key) == key
    assert layout.partition_date(template, key) == date
    assert layout.partition_date(template, f"x{key}") is None
    folder = layout.partitions_folder(template)
    assert not folder or key.startswith(f"{folder}/")


@given(st.sampled_from(FOLDERS + FILES), st.dates(), st.dates())
def test_two_days_have_two_names(template, one, other):
    names = {layout.partition_prefix(template, date) for date in (one, other)}
    assert len(names) == len({one, other})


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("dt={date}", "dt=2026-02-30/a"),
        ("dt={date}", "dt=2026-03-04"),
        ("dt={date}", "dt=\uff12\uff10\uff12\uff16-03-04/a"),
        ("dt={date}", "dt=2026-03-041/a"),
        ("dt={date}", "x"),
        ("{date:%Y}/{date}.csv", "2025/2026-03-04.csv"),  # the year twice, and not the same
        ("{date:%Y-%j}", "2025-366/a"),
        ("{date:%Y-%j}", "2026-000/a"),
        ("{date:%Y-%j}", "9999-999/a"),
        ("{date}-{date:%j}", "2026-03-04-064/a"),
        ("{date}.csv", "2026-03-04xcsv"),
        ("{date}.csv", "2026-03-04.csv/part"),
    ],
)
def test_other_objects_have_no_date(template, key):
    assert layout.partition_date(template, key) is None


@pytest.mark.parametrize(
    "template",
    ["", "all", "/dt={date}", "dt={date}/../x", "./{date}", "a//{date}", "{date}\n", "{day}", "{date", "{{date}}",
     "{date}}", "{date}{x}", "{date:}", "{date:%Y-%m}", "{date:%m-%d}", "{date:%H}{date}", "{date!r}{date}",
     "{date.__class__}", "{date:%Y-%m-%d%%}", "{date:{date}}"],
)  # fmt: skip
def test_a_template_that_does_not_tell_the_day_is_refused(template):
    with pytest.raises(UsageError, match="template of a day is not allowed"):
        layout.checked_partition(template)


@given(names, st.dates(), hexes, files)
def test_every_key_stays_below_its_store(model, date, key, name):
    version = layout.version_id(date, key)
    prefixes = [
        layout.validated_prefix(model, date, key),
        layout.prepared_prefix(model, date, key),
        layout.window_prefix(model, date, key),
        layout.training_prefix(model, version),
        layout.attempt_prefix(model, version, name),
        layout.decision_prefix(model, date, version, entry=0, gate_key=key),
    ]
    assert len(set(prefixes)) == len(prefixes)
    for prefix in prefixes:
        whole = layout.file_key(prefix, name)
        assert checked_key(whole) == whole
        assert layout.name_below(prefix, whole) == name


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_names_become_no_key(text):
    for make in (
        lambda: layout.checked_name(text),
        lambda: layout.log_entry(text, 1),
        lambda: layout.champion_cache(text),
        lambda: layout.checked_version(text),
        lambda: layout.checked_version(f"{text}-0123456789abcdef"),
        lambda: layout.version_id(DAY, text),
        lambda: layout.file_key("models", text + "/x"),
        lambda: layout.log_sequence(f"models/{text}/log/000000000001.json"),
    ):
        with pytest.raises(UsageError) as caught:
            make()
        assert str(caught.value).isprintable()
        assert str(caught.value).isascii()


@pytest.mark.parametrize("text", [text for text in HOSTILE if "%" not in text], ids=ascii)
def test_hostile_file_names_become_no_key(text):
    for make in (
        lambda: layout.checked_file(text),
        lambda: layout.attempt_prefix("m", VERSION, text),
        lambda: layout.validated_prefix("m", DAY, text),
        lambda: layout.prepared_prefix("m", DAY, text),
        lambda: layout.window_prefix("m", DAY, text),
        lambda: layout.decision_prefix("m", DAY, VERSION, entry=1, gate_key=text),
    ):
        with pytest.raises(UsageError):
            make()


@given(st.text(max_size=80))
def test_whatever_is_accepted_is_one_plain_part(text):
    for check in (layout.checked_name, layout.checked_file, layout.checked_version):
        try:
            accepted = check(text)
        except UsageError:
            continue
        assert accepted == text
        assert text.isascii()
        assert "/" not in text
        assert not text.startswith(".")


@pytest.mark.parametrize("version", ["2026-02-30-0123456789abcdef", "9999-99-99-0123456789abcdef", VERSION.upper()])
def test_a_version_of_a_day_that_does_not_exist_is_refused(version):
    with pytest.raises(UsageError):
        layout.version_date(version)


def test_the_keys_of_results_are_read_back():
    validated = layout.file_key(layout.validated_prefix("m", DAY, "v1"), layout.VALIDATION_FILE)
    prepared = layout.file_key(layout.prepared_prefix("m", DAY, "p1"), layout.MANIFEST)
    decided = layout.file_key(layout.decision_prefix("m", DAY, VERSION, entry=7, gate_key="g1"), layout.DECISION_FILE)
    assert layout.day_result(validated) == (DAY, "v1", "")
    assert layout.day_result(prepared) == (DAY, "", "p1")
    assert layout.version_result(layout.version_manifest("m", VERSION)) == VERSION
    assert layout.decision_result(decided) == (VERSION, 7, "g1")


@pytest.mark.parametrize("read", [layout.day_result, layout.version_result, layout.decision_result])
@pytest.mark.parametrize(
    "key",
    [
        "",
        "days/m/2026-02-30/validated-a/validation.json",
        f"days/m/{DAY}/validated-a/profile.parquet",
        "models/m/versions/latest/manifest.json",
        f"models/m/versions/{VERSION}/attempt/model.onnx",
        f"models/m/decisions/{DAY}/{VERSION}-vs-x-g/decision.json",
        f"models/m/decisions/{DAY}/{'0' * 27}-vs-1-g/decision.json",
    ],
)
def test_other_keys_are_no_results(read, key):
    assert read(key) is None
