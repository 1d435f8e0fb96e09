import json

import numpy as np
import pytest

from rayalign.evaluation.image_set import ImageSet, read_index, require_same_rows, slug, spread


def make(n=4, **scores):
    images = np.random.default_rng(0).integers(0, 256, (n, 5, 6, 3), dtype=np.uint8)
    prompts = [f"prompt {i // 2}" for i in range(n)]
    return ImageSet(
        prompts, [2**62 + i for i in range(n)], images, {k: np.float32(v) for k, v in scores.items()}
    )


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    saved = make(jpeg=[0.1, 1 / 3, -2e-8, np.nan])
    saved.save(tmp_path / "set")
    loaded = ImageSet.load(tmp_path / "set")
    assert (loaded.prompts, loaded.seeds) == (saved.prompts, saved.seeds)
    np.testing.assert_array_equal(loaded.images, saved.images)
    np.testing.assert_array_equal(loaded.scores["jpeg"], saved.scores["jpeg"])  # NaN equals NaN here
    assert loaded.scores["jpeg"].dtype == np.float32


def test_the_index_is_strict_json_without_nan(tmp_path):
    make(1, jpeg=[np.inf]).save(tmp_path)
    text = (tmp_path / "scores.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["images"][0]["scores"] == {"jpeg": None}


def test_saving_again_leaves_nothing_of_the_first_and_nothing_else_is_touched(tmp_path):
    make(4).save(tmp_path)
    (tmp_path / "mine.png").write_bytes(b"not ours")
    make(2).save(tmp_path)
    assert len(read_index(tmp_path)) == 2
    assert len(list(tmp_path.glob("0*.png"))) == 2
    assert (tmp_path / "mine.png").exists()


def test_a_folder_without_index_is_not_a_set(tmp_path):
    with pytest.raises(FileNotFoundError):
        ImageSet.load(tmp_path)


def test_file_names_are_never_paths(tmp_path):
    assert slug("../../etc/passwd; A  Cat!") == "etc-passwd-a-cat"
    assert slug("猫") == "prompt"
    assert len(slug("x" * 500)) == 40


def test_spread_shows_every_prompt_before_any_twice():
    # Rows 0, 2, 3 hold the first seeds of a, b, c; rows 1 and 4 the second ones.
    assert spread(["a", "a", "b", "c", "c"], 4) == [0, 2, 3, 1]


def test_shapes_are_checked():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="uint8"):
        ImageSet(["a"], [0], image.astype(np.float32))
    with pytest.raises(ValueError, match="do not match"):
        ImageSet(["a", "b"], [0], image)
    with pytest.raises(ValueError, match="scores of jpeg"):
        ImageSet(["a"], [0], image, {"jpeg": np.zeros(2)})
    with pytest.raises(ValueError, match="row by row"):
        require_same_rows(ImageSet(["a"], [0], image), ImageSet(["a"], [1], image))
