"""The version that runs."""

from importlib.metadata import version

VERSION = version("tidegauge")
