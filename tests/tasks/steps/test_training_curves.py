import csv
import io

from PIL import Image

from models.people import PeopleMetrics
from models.training import EpochRecord
from tasks.steps.training_curves import curves_csv, curves_png

EPOCHS = [
    EpochRecord(
        n, 8, 1 / n, 0.1 / n, 0.5 / n, PeopleMetrics(n / 10, 0.5 + n / 20), 0.01 / n, 2.0 * n, 96.0, 6.0 - 2 * n
    )
    for n in (1, 2, 3)
]


def test_the_table_has_every_figure_of_every_epoch() -> None:
    rows = list(csv.DictReader(io.StringIO(curves_csv(EPOCHS).decode())))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["validation_precision_at_1"]) for row in rows] == [0.1, 0.2, 0.3]
    assert [float(row["loss"]) for row in rows] == [1.0, 0.5, 1 / 3]
    assert {"steps", "reconstruction_loss", "validation_loss", "learning_rate", "seconds"} <= set(rows[0])


def test_the_curves_are_a_picture_and_the_same_epochs_give_the_same_bytes() -> None:
    picture = curves_png(EPOCHS, best_epoch=3, title="inception $x_0")
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(100_000)) > 50
    assert curves_png(EPOCHS, best_epoch=3, title="inception $x_0") == picture
    assert curves_png(EPOCHS, best_epoch=1, title="inception $x_0") != picture
