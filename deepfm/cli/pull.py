"""`deepfm pull`: a verified model file for a service of one's own."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic_core import to_json
from rich.console import Console

from deepfm import layout
from deepfm.cli.options import (
    JsonOption,
    ModelOption,
    OptionalConfigOption,
    Place,
    StoreOption,
    not_an_option,
    place_of,
)
from deepfm.documents import sha256_hex
from deepfm.errors import IntegrityError, NotFoundError
from deepfm.manifests import InputSpec, VersionManifest
from deepfm.onnx_file import OUTPUT
from deepfm.promotion import find_version
from deepfm.row_schema import row_schema
from deepfm.storage.local import LocalStore

VersionOption = Annotated[
    str | None,
    typer.Option("--version", help="Id of a version, or its logical date; the champion if unset.", metavar="VERSION"),
]
_EXAMPLES = {
    "string": ('["some value", ""]', "object", '""'),
    "int64": ("[17, -(2**63)]", "np.int64", "-(2**63)"),
    "float32": ("[1.5, np.nan]", "np.float32", "NaN"),
}
"""Two values of a field, one of them missing; the type of its array; and the word for missing."""


def pull(
    config: OptionalConfigOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    version: VersionOption = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", callback=not_an_option, help="Folder; the files are put into DIR/<version>/.", metavar="DIR"
        ),
    ] = Path("pulled"),
    as_json: JsonOption = False,  # noqa: FBT002 - a typer flag
) -> None:
    """Copy the champion's model.onnx, the JSON Schema of its inputs and its manifest to this machine.

    The manifest is checked against the log, the file against the manifest, and the file is loaded once and has to
    answer the manifest's golden rows. What is there and equal already is left alone. Rights to read and list are
    enough. The printed program needs onnxruntime and numpy, nothing else.

    [bold]Example[/]: deepfm pull --config clicks.toml --out /srv/models

    [bold]For a script[/]: deepfm pull --store s3://bucket/prefix --model clicks --json
    """
    place = place_of(config, store=store, model=model)
    manifest, onnx_bytes, manifest_bytes = _verified(place, version)
    folder = LocalStore(out)
    schema = to_json(row_schema(manifest), indent=2) + b"\n"
    # The manifest last: where it is, the other files are whole.
    files = {layout.MODEL_FILE: onnx_bytes, layout.ROW_SCHEMA_FILE: schema, layout.MANIFEST: manifest_bytes}
    told = [_put(folder, f"{manifest.version}/{name}", data) for name, data in files.items()]
    for line in filter(None, told):
        typer.echo(line, err=True)
    path = out / manifest.version / layout.MODEL_FILE
    if as_json:
        typer.echo(to_json(_summary(manifest, path), indent=2).decode())
        return
    console = Console(highlight=False, emoji=False)
    for line in (
        f"# {path}",
        f"# {layout.ROW_SCHEMA_FILE} beside it says what a row may hold.",
        *_program(manifest.inputs, path),
    ):
        console.print(line, markup=False, soft_wrap=True)


def _verified(place: Place, version: str | None) -> tuple[VersionManifest, bytes, bytes]:
    """A version's manifest, its model file, which was loaded once, and the manifest's stored bytes."""
    from deepfm.loading import read_twice
    from deepfm.serving import VersionModel, read_version

    champion = place.registry.champion() if version is None else None
    name = champion.version if champion else find_version(place.registry, str(version))
    digest = champion.manifest_sha256 if champion else place.registry.manifest(name)[1]
    manifest, onnx_bytes = read_version(place.store, place.model, name, manifest_sha256=digest)
    VersionModel(manifest, onnx_bytes)

    def stored() -> bytes:
        key = layout.version_manifest(place.model, name)
        data = place.store.read(key)
        if sha256_hex(data) != digest:
            raise IntegrityError(
                "manifest does not hold the bytes that were verified", where=f"{place.store.url}/{key}"
            )
        return data

    return manifest, onnx_bytes, read_twice(stored)


def _put(folder: LocalStore, key: str, data: bytes) -> str:
    """What to say of a file that now holds the data; nothing if it was not there before, or held the same."""
    try:
        found = folder.read(key)
    except NotFoundError:
        folder.write(key, data)
        return ""
    if found == data:
        return ""
    folder.write(key, data)
    return f"{key} had other bytes and was replaced."


def _summary(manifest: VersionManifest, path: Path) -> dict[str, object]:
    return {
        "version": manifest.version,
        "path": str(path),
        "sha256": manifest.files[layout.MODEL_FILE].sha256,
        "inputs": [field.model_dump() for field in manifest.inputs],
    }


def _program(inputs: tuple[InputSpec, ...], path: Path) -> list[str]:
    """Python that scores two rows, the second of missing values alone, with the file and onnxruntime."""
    # A name is whatever the store says, and the program will be run: it is quoted, as what it is.
    names = [ascii(field.name) for field in inputs]
    width = max(map(len, names)) + 1
    columns = []
    for name, field in zip(names, inputs, strict=True):
        values, dtype, missing = _EXAMPLES[field.dtype]
        columns.append(f"    {f'{name}:':{width}} np.array({values}, dtype={dtype}),  # missing: {missing}")
    return [
        "import numpy as np",
        "import onnxruntime",
        "",
        f"session = onnxruntime.InferenceSession({str(path)!r})",
        "rows = {",
        *columns,
        "}",
        "feed = {name: column.reshape(-1, 1) for name, column in rows.items()}",
        f'print(session.run(["{OUTPUT}"], feed)[0][:, 0])',
    ]
