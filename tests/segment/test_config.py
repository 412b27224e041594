"""Settings are checked when they are made, and read back as they were."""

import pytest

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.segment.config import TrainConfig


@pytest.mark.parametrize(
    ("others", "error", "words"),
    [
        ({"task": "pixels"}, ArgumentError, "task is 'pixels': it must be one of labels, objects"),
        ({"width": 2.5}, ArgumentTypeError, "width is 2.5, a float: it must be int"),
        ({"width": True}, ArgumentTypeError, "width is True, a bool"),
        ({"classes": "3"}, ArgumentTypeError, "classes is '3', a str: it must be int or None"),
        ({"classes": 1}, ArgumentError, "classes is 1"),
        ({"epochs": 0}, ArgumentError, "epochs is 0: it must be 1 or more"),
        ({"learning_rate": -1.0}, ArgumentError, "learning_rate is -1.0"),
        ({"learning_rate": float("nan")}, ArgumentError, "learning_rate is nan"),
        ({"validation": 1}, ArgumentError, "validation is 1"),
        ({"kernel": 4}, ArgumentError, "kernel is 4: it must be odd"),
        ({"crop": 0}, ArgumentError, "crop must be at least 1, got 0"),
        ({"crop": [16, 0]}, ArgumentError, r"crop\[1\] must be at least 1, got 0"),
        ({"crop": []}, ArgumentError, r"crop is \[\]: it must be one number, or one for each axis"),
        ({"crop": [16, 2.5]}, ArgumentTypeError, r"crop\[1\]"),
        ({"crop": "16,8"}, ArgumentTypeError, "crop is '16,8', a str: it must be int or list"),
        ({"clip": -0.5}, ArgumentError, "clip is -0.5: it must be 0 or more"),
        ({"clip": float("nan")}, ArgumentError, "clip is nan"),
        ({"loss": "malis"}, ArgumentError, "needs task='objects'"),
    ],
)
def test_values_that_mean_nothing_are_refused(others, error, words):
    with pytest.raises(error, match=words):
        TrainConfig("a", "b", "c", **others)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("images: [a", "are no YAML"),
        ("- a\n- b", "are a list: they must be lines of 'name: value'"),
        ("images: a\nmasks: b\nout: c\nlearnin_rate: 1", "there is no setting learnin_rate"),
        ("images: a\n1: b", "there is no setting 1"),
        ("images: a\nout: c", "lack masks"),
        ("", "lack images, masks, out"),
    ],
)
def test_what_is_no_settings_is_said(text, words):
    with pytest.raises(ArgumentError, match=words):
        TrainConfig.from_yaml(text)


def test_yaml_is_read_back_and_others_come_before_it():
    config = TrainConfig("a", "b", "c: d", learning_rate=1e-4, classes=7, flip=False)
    assert TrainConfig.from_yaml(config.to_yaml()) == config
    assert TrainConfig.from_yaml(config.to_yaml(), width=3).width == 3
    each = TrainConfig("a", "b", "c", crop=(64, 48, 16))
    assert TrainConfig.from_yaml(each.to_yaml()) == each
    assert each.crop_sides(3) == (64, 48, 16)
    assert TrainConfig.from_yaml("images: a\nmasks: b\nout: c\nvalidation: 0.5\nlearning_rate: 1").learning_rate == 1
