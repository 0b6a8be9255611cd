"""Whether the champion can be judged on a holdout beside the challenger, and with which columns."""

from deepfm.config import FieldConfig, RetrainConfig
from deepfm.data.partitions import read_schemas
from deepfm.data.schema import check_schema
from deepfm.manifests import ValidationReport, VersionManifest
from deepfm.storage import LocalCache, ObjectStore


def comparable(
    source: ObjectStore,
    holdout: ValidationReport,
    challenger: VersionManifest,
    champion: VersionManifest | None,
    *,
    config: RetrainConfig,
    cache: LocalCache,
) -> tuple[RetrainConfig, str | None]:
    """The configuration that reads the inputs of both models, and why they cannot be compared, if they cannot.

    A field that was taken out of the configuration is still in the raw rows: the champion gets it from there.

    Args:
        source: Where the raw rows are.
        holdout: The day.
        challenger: The version under test.
        champion: The version that it is compared with, if there is one.
        config: The model's configuration, which made the challenger.
        cache: The local cache.
    """
    if champion is None:
        return config, None
    if champion.logical_date > holdout.logical_date:
        return config, (
            f"The champion is of {champion.logical_date}, later than {holdout.logical_date}: it may have trained on "
            "this day, and an older date never replaces a newer one by itself."
        )
    ours = {spec.name: spec.dtype for spec in challenger.inputs}
    changed = [spec.name for spec in champion.inputs if ours.get(spec.name, spec.dtype) != spec.dtype]
    extra = {
        spec.name: FieldConfig(kind=spec.kind, dtype=spec.dtype) for spec in champion.inputs if spec.name not in ours
    }
    widened = config.model_copy(update={"fields": {**config.fields, **extra}})
    for key, schema in read_schemas(source, holdout.partition, widened, cache=cache).items():
        changed += [finding.column for finding in check_schema(schema, widened, where=key)]
    if not changed:
        return widened, None
    names = ", ".join(sorted(set(changed)))
    return config, (
        f"The champion {champion.version} needs inputs that the holdout does not bring as it knew them ({names}): "
        "deliver them again as they were, or train under a new model name."
    )
