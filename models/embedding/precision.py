"""Which number format a model computes in: bf16 where the machine is fast at it and the vectors stay the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import StrEnum

#: Cosine between a text's bf16 and fp32 vectors under which bf16 is not used.
MIN_COSINE = 0.999

#: Short, long, foreign and odd texts on which two precisions are compared, and with which a model is warmed.
PROBE_TEXTS = (
    "yes",
    "Where is my order ORD-10123?",
    "How do I change the address on my invoices before the renewal?",
    "I was charged twice for the same seat, and nobody has answered my two messages of last week!",
    "Die Rechnung ist falsch: bitte prüfen und zurückrufen.",
    "予約を変更したいです 🙂",
    "select a colleague -> role: administrator; error 0x80070057 (again)",
    "A refund is paid to the card you paid with, within five working days after the parcel has reached our warehouse. "
    "If the card has expired, the bank passes the money on to the new one.",
    "The calendar shows the appointments of every clinic. A colleague with the role of an administrator can restore "
    "what was deleted within thirty days; after that it is gone. Reminders go to patients a day before, by message or "
    "by mail, unless the patient has asked for none. Exports hold the same columns as the table on the screen. " * 3,
)

_log = logging.getLogger(__name__)


class Precision(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


def processor_is_fast_at_bf16(capabilities: Mapping[str, object]) -> bool:
    """Whether `torch.cpu.get_capabilities()` names bf16 arithmetic of the processor's own."""
    return any(capabilities.get(name) is True for name in ("avx512_bf16", "amx_bf16", "bf16"))


def settle(wanted: Precision, *, fast: bool, cosine: Callable[[], float]) -> Precision:
    """FP32 or BF16: `auto` tries bf16 only where it is `fast`, and bf16 stays only if `cosine` reaches `MIN_COSINE`.

    `cosine` compares the model in both formats and is asked at most once.
    """
    if wanted is Precision.FP32 or (wanted is Precision.AUTO and not fast):
        return Precision.FP32
    if not fast:
        _log.warning("bf16 is set, and this machine computes it slowly; fp32 would be faster")
    found = cosine()
    kept = found >= MIN_COSINE
    level = logging.INFO if kept else logging.WARNING
    _log.log(level, "bf16 compared with fp32", extra={"cosine": round(found, 6), "kept": kept})
    return Precision.BF16 if kept else Precision.FP32
