"""Who is shown personal data unmasked leaves a line in the audit trail; everybody else leaves none."""

from __future__ import annotations

import pytest

from models.enrichment.orchestrator import ContextOrchestrator
from models.enrichment.release import AuditedReader
from models.enrichment.selection import AgentViews
from models.resilience.deadline import Deadline
from models.safety.types import AuditRecord
from tests.fakes.enrichment import all_providers


class Lines:
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []

    def record(self, record: AuditRecord) -> None:
        self.records.append(record)

    async def flush(self) -> None:
        return None


@pytest.mark.parametrize(("agent_type", "lines"), [("sales", 1), ("support", 0), ("general", 0)])
async def test_unmasked_releases_are_audited_without_the_value(agent_type: str, lines: int) -> None:
    views, audit = AgentViews.load(), Lines()
    orchestrator = ContextOrchestrator(all_providers().values(), views=views)
    reader = AuditedReader(orchestrator, views, audit, salt="pepper")
    reading = await reader.read("customer_123", agent_type=agent_type, deadline=Deadline.after(5))
    assert reading.complete
    assert len(audit.records) == lines
    for record in audit.records:
        assert record.action == "context.release"
        assert record.details["agent_type"] == agent_type
        assert "contact_email" in str(record.details["fields"])
        assert "customer_123" not in str(record)
        assert "example.com" not in str(record)
    await orchestrator.close()
