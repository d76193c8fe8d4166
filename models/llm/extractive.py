"""The embedded default: answers with the best sentences of the passages, verbatim, and cites each."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.embedding.protocol import Embedder
from models.errors import DeadlineExceeded, ModelRefused, UnsupportedByModel
from models.llm.sentences import Sentence, SentenceKind, split_sentences
from models.llm.types import (
    Capabilities,
    Citation,
    Delta,
    FinishReason,
    LanguageModelReply,
    LanguageModelRequest,
    SourcePassage,
    Usage,
)
from models.resilience.deadline import Deadline

#: Share of each signal in a sentence's score; they add up to one, so that a score stays comparable with a cosine.
SENTENCE_WEIGHT, PASSAGE_WEIGHT, LEXICAL_WEIGHT = 0.6, 0.25, 0.15
