"""The table of classifiers a setting can name."""

from __future__ import annotations

from models.classification.protocol import Classifier
from models.registry import Registry

ENGINES: Registry[Classifier] = Registry("classifier")
ENGINES.register("exemplars", "models.classification.exemplars:ExemplarClassifier")
