from pathlib import Path

import pytest

pytestmark = pytest.mark.flow


def test_build_from_s3_to_s3_publishes_answers_and_then_finds_nothing_new(prefect_api, s3, drawn_people):
    from flows.build_index import build_index
    from store.storage import Storage
    from tasks.steps.query_photo import query_photo
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    bucket = Storage(s3)
    pictures = sorted(drawn_people.rglob("*.jpg"))[:6]
    for picture in pictures:
        bucket.upload(f"archive/{picture.parent.name}/{picture.name}", picture)
    bucket.write("archive/readme.md", b"no photo")
    store = f"{s3}/index"
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))

    first = build_index(
        source=f"{s3}/archive", store=store, encoder=encoder, labels="folder", shard_photos=3, workers=1
    )
    assert first["published"]
    assert first["photos"] == {"indexed": 6}
    assert first["plan"]["ignored"] == 1
    assert bucket.exists("index/versions/CURRENT")
    assert any(name.startswith("find-faces-") for name in bucket.names("index/runs/results"))

    again = build_index(source=f"{s3}/archive/", store=store, workers=1)
    assert not again["published"]
    assert again["plan"]["unchanged"] == 6

    asked = pictures[0]
    answer = query_photo(f"{s3}/archive/{asked.parent.name}/{asked.name}", store=store, k=2)
    assert answer.faces[0].matches[0].uri == f"{s3}/archive/{asked.parent.name}/{asked.name}"
    assert answer.faces[0].matches[0].label == Path(asked).parent.name
    assert answer.faces[0].matches[0].cosine > 0.99
