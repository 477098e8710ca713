"""A secret in a name that MLflow shows is refused, without showing it."""

import pytest

from fcnlab.config import TrackingConfig
from fcnlab.config.validation import check_tracking
from fcnlab.core.errors import ConfigError


@pytest.mark.parametrize("key", ["experiment", "run_name", "register_as"])
@pytest.mark.parametrize("name", ["https://user:s3cret@host/x", "study?token=s3cret", "git+https://s3cret@host"])
def test_a_name_with_a_secret(key, name):
    with pytest.raises(ConfigError, match=rf"^tracking\.{key}: holds a password or a token") as caught:
        check_tracking(TrackingConfig(name="mlflow", **{key: name}))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["study", "somebody@example.org", "8 images: a?b", "https://host/study"])
def test_a_name_without_one(name):
    check_tracking(TrackingConfig(name="mlflow", experiment=name, run_name=name))
