"""Searches. Nothing of Ray is imported before glot has set its environment."""

import glot.training.ray_session  # noqa: F401
