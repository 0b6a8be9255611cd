"""What the name of a column says about it. Values decide wherever they can; a name decides what values cannot tell."""

import re

LABELS = (
    "click", "clicked", "is_click", "is_clicked", "click_flag", "label", "target", "y", "converted", "is_converted",
    "conversion", "is_conversion", "purchased", "is_purchased", "purchase", "bought", "outcome", "response",
)  # fmt: skip
"""Names of a label, the likeliest first."""
_TIMES = (
    "event_time", "impression_time", "timestamp", "event_timestamp", "impression_timestamp", "ts", "time", "datetime",
    "event_ts", "event_at", "shown_at", "served_at", "occurred_at", "created_at",
)  # fmt: skip
_PEOPLE = ("user", "member", "visitor", "customer", "subscriber", "person", "client", "account", "profile", "household")
_VISITS = ("cookie", "device", "session", "visit", "anonymous")
_EVENTS = ("impression", "event", "exposure", "view", "request", "auction", "record", "log", "message", "bid")
_ID_WORDS = ("id", "uuid", "guid", "key", "hash", "no", "number")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_METADATA = re.compile(
    r"policy(_.*)?|.*propensity.*|p_?score|logging_.*|(source_|src_)?(row|line)(_?(number|num|no|nr|id|index|idx))?"
    r"|row_?index|index|unnamed_.*|index_level_.*|(source_|src_|input_)?(file|file_?name|file_?path|filename)|path"
    r"|.*batch_?(id|no|number|time|date|ts)?|ingest.*|.*_ingest(ed)?(_.*)?|load_?(id|time|date|ts)?|loaded(_.*)?|etl.*"
    r"|(ab|exp|experiment|test)(_?(test|group|bucket|variant|arm|name|id))+|experiment.*|variant|bucket|arm|treatment"
    r"|(created|updated|modified|inserted)_(at|on|by|time|date|ts)"
)
_PERSONAL = re.compile(
    r"(.*_)?(e?mails?|phones?|telephone|msisdn|ssn|iban|passport|imei|surname|username|ip|ipv4|ipv6|ip_?addr(ess)?"
    r"|(first|last|full|user|customer|family|given)_?name|street|address|birth_?(day|date)|dob)"
    r"(_(hash|hashed|number|no|address|text|md5|sha256))?"
)
_DISCREET = re.compile(r"(.*_)?(zip|zip_?code|post_?code|postal|latitude|longitude|lat|lon|lng|birth|born)(_.*)?")
_CODE_LAST = ("id", "code", "type", "class", "group", "bucket", "band", "bin", "level", "category", "flag", "index")
_AMOUNTS = {
    "age", "price", "amount", "count", "cnt", "num", "total", "sum", "avg", "mean", "score", "duration", "seconds",
    "minutes", "hours", "days", "distance", "length", "width", "height", "size", "weight", "views", "clicks", "balance",
    "income", "revenue", "cost", "budget", "quantity", "qty", "stock", "salary", "temperature", "rating", "impressions",
}  # fmt: skip
_PLACES = {"position", "pos", "rank", "slot", "placement"}


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: `userId`, `USER_ID` and `user id` are all (user, id)."""
    return tuple(word.lower() for word in _WORD.findall(name))


def is_usable(name: str) -> bool:
    """Whether a field can have this name: it becomes an argument of the consumer."""
    return name.isidentifier() and name != "probability"


def label_rank(name: str) -> int | None:
    """The place among the names of labels, 0 the likeliest; None for other names."""
    plain = "_".join(words_of(name))
    return LABELS.index(plain) if plain in LABELS else None


def time_rank(name: str) -> int:
    """The place among the names of event times; a large number for other names."""
    plain = "_".join(words_of(name))
    return _TIMES.index(plain) if plain in _TIMES else len(_TIMES)


def sounds_like_time(name: str) -> bool:
    """Whether a column of whole numbers may be one of instants."""
    return time_rank(name) < len(_TIMES) or bool({"time", "timestamp", "ts", "epoch"} & set(words_of(name)))


def group_rank(name: str) -> int | None:
    """The place among the names of users, people before visits; None for other names, `user_feature_0` among them."""
    words = words_of(name)
    for rank, thing in enumerate((*_PEOPLE, *_VISITS)):
        alone = words == (thing,) and thing in {*_PEOPLE[:5], "cookie"}
        if alone or words in {(thing, word) for word in _ID_WORDS} or "".join(words) == f"{thing}id":
            return rank
    return 0 if "".join(words) in {"uid", "userid"} else None


def is_visit(name: str) -> bool:
    """Whether a column's values end with a visit, so that tomorrow has others."""
    words = words_of(name)
    return any(words in {(thing, word) for word in _ID_WORDS} or words == (thing,) for thing in ("session", "visit"))


def is_event_key(name: str) -> bool:
    """Whether the name is that of an identifier of single impressions."""
    words = words_of(name)
    if words in {("id",), ("uuid",), ("guid",)}:
        return True
    return any(words in {(thing, word) for word in _ID_WORDS} or words == (f"{thing}id",) for thing in _EVENTS)


def is_metadata(name: str) -> bool:
    """Whether the column is about how the rows were logged, delivered or tested, not about what was shown."""
    return _METADATA.fullmatch("_".join(words_of(name))) is not None


def is_personal(name: str) -> bool:
    """Whether the values identify a person to anybody who reads them."""
    return _PERSONAL.fullmatch("_".join(words_of(name))) is not None


def is_discreet(name: str) -> bool:
    """Whether examples of the values are better not shown."""
    return is_personal(name) or _DISCREET.fullmatch("_".join(words_of(name))) is not None


def is_identifier(name: str) -> bool:
    """Whether the name says that values stand for things: ids, codes, kinds."""
    words = words_of(name)
    return bool(words) and (words[-1] in _CODE_LAST or words[-1].endswith("id"))


def is_amount(name: str) -> bool:
    """Whether the name says that larger values mean more of something."""
    return not is_identifier(name) and bool(_AMOUNTS & set(words_of(name)))


def is_place(name: str) -> bool:
    """Whether the name is that of a position on the page."""
    return bool(_PLACES & set(words_of(name)))
