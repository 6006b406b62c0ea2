"""Examples and responses that the API's description shows."""

from typing import Any

from app.service.questions import SearchOptions, SearchQuestion

__all__ = ["SEARCH_BODY", "SEARCH_RESPONSES"]

_FACE_ID = "6917529027641081856"

_ERROR = {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}


def _form_schema() -> dict[str, Any]:
    schema = SearchOptions.model_json_schema()
    photo = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC"}
    schema["properties"] = {"photo": photo} | schema["properties"]
    schema["required"] = ["photo"]
    return schema


SEARCH_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _form_schema()},
        "application/json": {
            "schema": SearchQuestion.model_json_schema(),
            "examples": {
                "a known face": {"value": {"face_id": _FACE_ID, "k": 10, "not_itself": True}},
                "a photo on the web": {"value": {"url": "https://photos.example/somebody.jpg", "min_cosine": 0.3}},
            },
        },
    },
}
"""What `/api/search` takes."""

_ANSWER = {
    "version": 7,
    "revision": 0,
    "warnings": [],
    "width": 4032,
    "height": 3024,
    "picture": "data:image/jpeg;base64,...",
    "searched": 13233,
    "calibrated": True,
    "faces": [
        {
            "number": 1,
            "face_id": "4611686018427387904",
            "box": [1204.5, 880.25, 1530.75, 1301.5],
            "score": 0.9998,
            "rotation": 0,
            "quality": 0.8312,
            "crop": "data:image/jpeg;base64,...",
            "matches": [
                {
                    "face_id": _FACE_ID,
                    "label": "Ann Lee",
                    "photo_name": "Ann_Lee/Ann_Lee_0003.jpg",
                    "more_photo_names": [],
                    "box": [71.0, 70.5, 178.25, 201.0],
                    "cosine": 0.7431,
                    "same_person": 0.981,
                    "grade": "very likely the same person",
                    "false_hits": 0.02,
                    "quality": 0.7714,
                }
            ],
            "people": [{"label": "Ann Lee", "cosine": 0.7431, "same_person": 0.981, "face_ids": [_FACE_ID]}],
        }
    ],
    "seconds": {"decode": 0.21, "detect": 0.18, "embed": 0.03, "search": 0.002},
}

SEARCH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": _ANSWER}}},
    **{
        status: {"description": description, "content": _ERROR}
        for status, description in {
            400: "the form cannot be read",
            404: "there is no such version or face",
            408: "the photo did not come in time",
            413: "the photo is too large",
            415: "neither a form nor JSON",
            422: "the photo cannot be decoded or shows no face, or an option does not fit",
            503: "too many queries at once, or nothing answers yet; Retry-After says when to come again",
        }.items()
    },
}
"""What `/api/search` may answer."""
