"""The invented archive of the app's tests."""

from tests.app.conftest import make, settings  # noqa: F401
