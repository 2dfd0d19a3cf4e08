"""The version that `/health` reports; pyproject.toml has the same."""

VERSION = "0.1.0"
