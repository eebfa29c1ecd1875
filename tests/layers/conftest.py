"""Where a message of the library's own is asked for, it speaks, as it does for users, and not the type checker's."""

import pytest
from jaxtyping import config


@pytest.fixture
def own_messages():
    """No shapes or types in signatures are checked."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
