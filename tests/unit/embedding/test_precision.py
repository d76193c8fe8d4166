"""When a model computes in bf16: the machine must be fast at it, and the vectors must stay the same."""

from __future__ import annotations

import logging

import pytest

from models.embedding.precision import MIN_COSINE, Precision, processor_is_fast_at_bf16, settle


class Cosine:
    """A comparison with a fixed result; counts how often it was made."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.value


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({}, False),
        ({"avx512_f": True, "avx512_vnni": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"amx_tile": True, "num_physical_cores": 1}, False),
    ],
)
def test_a_processor_is_fast_at_bf16_where_it_has_the_instructions(capabilities: dict[str, object], fast: bool) -> None:
    assert processor_is_fast_at_bf16(capabilities) is fast


@pytest.mark.parametrize(
    ("wanted", "fast", "cosine", "settled"),
    [
        (Precision.AUTO, True, 0.9999, Precision.BF16),
        (Precision.AUTO, True, MIN_COSINE, Precision.BF16),
        (Precision.AUTO, True, 0.9989, Precision.FP32),
        (Precision.AUTO, True, float("nan"), Precision.FP32),
        (Precision.AUTO, False, 0.9999, Precision.FP32),
        (Precision.BF16, False, 0.9999, Precision.BF16),
        (Precision.BF16, True, 0.9989, Precision.FP32),
        (Precision.FP32, True, 0.9999, Precision.FP32),
    ],
)
def test_bf16_needs_speed_or_a_wish_and_always_the_same_vectors(
    wanted: Precision, fast: bool, cosine: float, settled: Precision
) -> None:
    assert settle(wanted, fast=fast, cosine=Cosine(cosine)) is settled


@pytest.mark.parametrize(("wanted", "fast"), [(Precision.FP32, True), (Precision.AUTO, False)])
def test_where_bf16_is_out_of_the_question_nothing_is_compared(wanted: Precision, fast: bool) -> None:
    cosine = Cosine(1.0)
    settle(wanted, fast=fast, cosine=cosine)
    assert cosine.asked == 0


def test_the_comparison_is_logged_and_slow_bf16_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="models.embedding.precision"):
        settle(Precision.BF16, fast=False, cosine=Cosine(0.9995))
    warning, compared = caplog.records
    assert warning.levelno == logging.WARNING
    assert "slowly" in warning.getMessage()
    assert (compared.__dict__["cosine"], compared.__dict__["kept"]) == (0.9995, True)


def test_a_refused_bf16_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="models.embedding.precision"):
        settle(Precision.AUTO, fast=True, cosine=Cosine(0.99))
    assert [(record.levelno, record.__dict__["kept"]) for record in caplog.records] == [(logging.WARNING, False)]
