"""The learning curve as TensorBoard reads it."""

from pathlib import Path

from deepfm.manifests import CurvePoint

EVENTS_FILE = "events.out.tfevents.learning-curve"
"""A fixed name: TensorBoard's own would carry the machine's."""


def write_events(folder: Path, curve: tuple[CurvePoint, ...]) -> Path:
    """One event file in `folder` with a scalar for every figure of every point."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(log_dir=str(folder)) as writer:
        for point in curve:
            for name, value in point.model_dump(exclude={"step"}, exclude_none=True).items():
                writer.add_scalar(name, value, point.step)
    written = next(iter(sorted(folder.glob("events.out.tfevents.*"))))
    return written.rename(folder / EVENTS_FILE)
