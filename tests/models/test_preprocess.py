import numpy as np
import pytest
import torch
from facenet_pytorch import fixed_image_standardization

from models.card import InputSpec
from models.encoder_error import EncoderError
from models.preprocess import check_faces, preprocess_faces
from models.preprocess_tensors import normalise_pixels

FACES = np.random.default_rng(0).integers(0, 256, (3, 17, 19, 3), dtype=np.uint8)
SPEC = InputSpec(height=17, width=19, colour="rgb", scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_every_pixel_is_scaled_shifted_and_put_into_its_channel(colour: str) -> None:
    spec = SPEC.model_copy(update={"colour": colour})
    inputs = preprocess_faces(FACES, spec)
    assert inputs.dtype == np.float32
    assert inputs.flags.c_contiguous
    wanted = np.empty((3, 3, 17, 19))
    for n, row, column, channel in np.ndindex(3, 17, 19, 3):
        source = channel if colour == "rgb" else 2 - channel
        pixel = float(FACES[n, row, column, source])
        wanted[n, channel, row, column] = (pixel / 255 - SPEC.mean[channel]) / SPEC.std[channel]
    np.testing.assert_allclose(inputs, wanted, atol=1e-5)


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_in_torch_the_numbers_are_the_same(colour: str) -> None:
    spec = SPEC.model_copy(update={"colour": colour})
    in_torch = normalise_pixels(torch.from_numpy(FACES).permute(0, 3, 1, 2).float(), spec)
    np.testing.assert_array_equal(in_torch.numpy(), preprocess_faces(FACES, spec))


def test_published_preprocessing_is_that_of_facenet_pytorch() -> None:
    spec = InputSpec(height=17, width=19, colour="rgb", scale=1, mean=(127.5,) * 3, std=(128,) * 3)
    wanted = fixed_image_standardization(torch.from_numpy(FACES).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(torch.from_numpy(preprocess_faces(FACES, spec)), wanted)


def test_read_only_and_mirrored_faces_are_taken() -> None:
    fixed = FACES.copy()
    fixed.flags.writeable = False
    np.testing.assert_array_equal(preprocess_faces(fixed, SPEC), preprocess_faces(FACES, SPEC))
    np.testing.assert_array_equal(preprocess_faces(FACES[:, :, ::-1], SPEC), preprocess_faces(FACES, SPEC)[..., ::-1])


@pytest.mark.parametrize(
    "faces",
    [FACES.astype(np.float32), FACES[0], FACES[:, :16], FACES.transpose(0, 3, 1, 2), FACES[..., :1]],
    ids=["float", "one", "short", "channels-first", "grey"],
)
def test_anything_but_a_batch_of_faces_is_refused(faces: np.ndarray) -> None:
    with pytest.raises(EncoderError, match=rf"got {faces.dtype} \({faces.shape[0]}.*wanted uint8 \(N, 17, 19, 3\)"):
        check_faces(faces, SPEC)


def test_a_list_of_faces_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"got list.*wanted uint8"):
        check_faces([1, 2], SPEC)  # type: ignore[arg-type]
