"""The tiny configuration as a file, for commands and flows that take a path."""

from pathlib import Path

TEXT = """
model = "tiny"
store = "{store}"
[data]
source = "{source}"
event_time = "time"
event_key = "id"
group = "user"
[fields]
user = {{ kind = "categorical" }}
item = {{ kind = "categorical", dtype = "int64" }}
price = {{ kind = "numeric", minimum = 0, maximum = 1e6 }}
[validation]
min_rows = 10
[window]
window_days = 3
[network]
embedding_dim = 4
hidden = [8]
[training]
batch_size = 32
epochs = 2
device = "cpu"
[gate]
min_auc = 0.5
min_calibration = 0.1
max_calibration = 10.0
"""


def write_toml(folder: Path, *, source: str, store: str) -> Path:
    """The file, `tiny.toml` in a folder."""
    path = folder / "tiny.toml"
    path.write_text(TEXT.format(source=source, store=store))
    return path
