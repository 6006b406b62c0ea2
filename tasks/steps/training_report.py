"""A training's outcome as markdown, for Prefect's UI."""

import base64

from store.layout import open_store
from tasks.steps.train_encoder import TrainedEncoder

__all__ = ["markdown_of_training"]


def markdown_of_training(trained: TrainedEncoder, *, store: str) -> str:
    """The gate's table and the curves, the picture inside; no person is named.

    Args:
        trained: what the training gave.
        store: its uri.
    """
    storage = open_store(store)
    picture = base64.b64encode(storage.read(storage.path_of(trained.curves["png"]))).decode()
    lines = [
        f"# Encoder `{trained.encoder}`",
        "",
        f"{trained.why[0].upper()}{trained.why[1:]}.",
        "",
        f"| on {len(trained.held_out)} people nothing was learnt from | precision@1 |",
        "| --- | --- |",
        *(
            f"| {row['role']} (`{row['encoder']}`) | {row['precision_at_1']:.4f} |"
            for row in trained.promotion["table"]
        ),
        "",
        f"Epoch {trained.best_epoch} of {trained.epochs} was kept; the training ended by {trained.stopped_by}. "
        f"All figures: `{trained.curves['csv']}`",
        "",
        f"![losses and precision by epoch](data:image/png;base64,{picture})",
    ]
    return "\n".join(lines)
