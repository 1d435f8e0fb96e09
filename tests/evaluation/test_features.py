import sys
import types
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F
from torchvision.models import inception_v3

from rayalign.errors import ConfigError
from rayalign.evaluation.features import INCEPTION_FILE, build_extractor, extract
from rayalign.toy import toy_path

torch.set_num_threads(1)
LOCAL_TOY = f"local-dir:{toy_path('toy-clip')}"


def pictures(n=5, side=64):
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


class MeanColour:
    """A user's own extractor."""

    def __init__(self, scale=1.0):
        self.name, self.scale, self.calls = "mean colour", scale, []

    def __call__(self, images_BCHW):
        self.calls.append(len(images_BCHW))
        return self.scale * images_BCHW.mean(axis=(2, 3))


class Wrong:
    name = "wrong"

    def __call__(self, images_BCHW):
        return np.zeros(3)


class NotFinite(Wrong):
    def __call__(self, images_BCHW):
        return np.full((len(images_BCHW), 2), np.nan)


class Nameless:
    def __call__(self, images_BCHW):
        return np.zeros((len(images_BCHW), 1))


@pytest.fixture
def own(monkeypatch):
    """The path of a class of this file, as a user would give that of their own."""
    module = types.ModuleType("my_features")
    vars(module).update(MeanColour=MeanColour, Nameless=Nameless)
    monkeypatch.setitem(sys.modules, "my_features", module)
    return lambda name: f"my_features:{name}"


def test_pictures_arrive_in_order_in_batches_and_in_0_to_1(own):
    extractor, images = build_extractor(own("MeanColour"), {"scale": 2.0}), pictures(7)
    features = extract(images, extractor, batch=3)
    assert extractor.calls == [3, 3, 1]
    assert features.dtype == np.float64
    np.testing.assert_allclose(features, 2 * images.mean(axis=(1, 2)) / 255, rtol=1e-5)


def test_clip_features_are_open_clips_embeddings():
    model = open_clip.create_model(LOCAL_TOY).eval()
    cfg = open_clip.get_model_preprocess_cfg(model)
    mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    images = pictures(3, side=cfg["size"] if isinstance(cfg["size"], int) else cfg["size"][0])  # nothing to resize
    inputs = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        embedding = model.encode_image(inputs)
    expected = F.normalize(embedding, dim=-1).numpy() * embedding.shape[1] ** 0.5
    np.testing.assert_allclose(extract(images, build_extractor("toy-clip")), expected, atol=1e-4)
    np.testing.assert_allclose(extract(images, build_extractor("clip", {"model": LOCAL_TOY})), expected, atol=1e-4)
    assert np.std(expected, axis=0).max() > 0.01  # they differ by picture


def test_features_do_not_depend_on_the_company():
    extractor, images = build_extractor("toy-clip"), pictures(5, side=50)
    np.testing.assert_allclose(extract(images, extractor, batch=5), extract(images, extractor, batch=2), atol=1e-4)


def test_a_name_says_model_and_scaling():
    assert build_extractor("toy-clip").name == "toy-clip, unit embedding x sqrt(D)"
    named = build_extractor("clip", {"model": LOCAL_TOY}).name
    assert named == f"clip {LOCAL_TOY}, unit embedding x sqrt(D)"


def test_inception_is_pooled_from_the_users_weights(tmp_path: Path):
    torch.manual_seed(0)
    model = inception_v3(weights=None, init_weights=False, transform_input=True).eval()
    path = tmp_path / "mine.pth"
    torch.save(model.state_dict(), path)
    extractor = build_extractor("inception", {"weights": str(path), "device": "cpu"})
    images = pictures(2, side=299)  # nothing to resize
    features = extract(images, extractor)
    assert features.shape == (2, 2048)
    assert extractor.name == "inception v3 of torchvision, mine.pth, pooled"

    # Torchvision's own path: ImageNet's mean and std outside, undone inside; what enters the last layer.
    seen = []
    model.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        model(((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2))
    np.testing.assert_allclose(features, seen[0].numpy(), atol=1e-4 * float(seen[0].abs().max()))
    assert float(seen[0].abs().max()) > 0


def test_inception_without_weights_says_where_to_put_them(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ConfigError, match=f"no Inception weights at {tmp_path}.*{INCEPTION_FILE}.*another extractor"):
        build_extractor("inception")
    (tmp_path / "other.pth").write_bytes(b"not weights")
    with pytest.raises(ConfigError, match=r"other\.pth is no state dict"):
        build_extractor("inception", {"weights": str(tmp_path / "other.pth")})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("incepton", {}, "did you mean inception"),
        ("toy-clip", {"weights": 1}, "the options are: device"),
        ("no_such_module:Mine", {}, "importing no_such_module failed"),
        ("my_features:Missing", {}, "has no class 'Missing'"),
        ("my_features:Nameless", {}, "makes no FeatureExtractor"),
        ("clip", {"model": "ViT-B-33"}, "ViT-B-33"),
    ],
)
@pytest.mark.usefixtures("own")
def test_what_cannot_be_built_is_a_setting_to_mend(name, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_extractor(name, options, field="style.features")
    assert caught.value.field.startswith("style.features")


def test_refuses_what_is_no_set_of_features():
    with pytest.raises(ValueError, match=r"wrong gave \(3,\) for 2 images"):
        extract(pictures(2), Wrong())
    with pytest.raises(ValueError, match="not finite"):
        extract(pictures(2), NotFinite())
    with pytest.raises(ValueError, match="uint8"):
        extract(pictures(2) / 255, MeanColour())
    with pytest.raises(ValueError, match="no images"):
        extract(pictures(0), MeanColour())
