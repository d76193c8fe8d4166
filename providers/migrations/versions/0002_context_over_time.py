"""what happens to customers over time: outreach, announced changes, strategies of context"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "outreach",
        sa.Column("outreach_id", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("propensity", sa.Double(), nullable=True),
        sa.Column("responded", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"], name=op.f("fk_outreach_customer_id")),
        sa.PrimaryKeyConstraint("outreach_id", name=op.f("pk_outreach")),
    )
    op.create_index(op.f("ix_outreach_customer_id_at"), "outreach", ["customer_id", "at"], unique=False)
    op.create_index(op.f("ix_outreach_at"), "outreach", ["at"], unique=False)
    op.create_table(
        "received_events",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_received_events")),
    )
    op.create_index(op.f("ix_received_events_received_at"), "received_events", ["received_at"], unique=False)
    op.create_table(
        "strategy_assignments",
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("strategy", sa.String(), nullable=False),
        sa.Column("assigned_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "customer_id", name=op.f("pk_strategy_assignments")),
    )
    op.create_index(op.f("ix_strategy_assignments_customer_id"), "strategy_assignments", ["customer_id"], unique=False)
    op.create_table(
        "strategy_outcomes",
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("measure", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "event_id", "measure", name=op.f("pk_strategy_outcomes")),
    )
    op.create_index(
        op.f("ix_strategy_outcomes_experiment_measure"), "strategy_outcomes", ["experiment", "measure"], unique=False
    )
    op.add_column("context_history", sa.Column("sources", sa.JSON(), nullable=True))
    op.add_column("context_history", sa.Column("rules", sa.String(), nullable=True))
    op.drop_index(op.f("ix_context_history_customer_id_agent_type_at"), table_name="context_history")
    op.create_index(
        op.f("ix_context_history_customer_id_agent_type_version_id"),
        "context_history",
        ["customer_id", "agent_type", "version_id"],
        unique=False,
    )
    op.create_index(op.f("ix_context_history_at"), "context_history", ["at"], unique=False)
    op.create_index(
        "ix_outbox_undelivered_topic",
        "outbox",
        ["topic", "message_id"],
        unique=False,
        sqlite_where=sa.text("delivered_at IS NULL"),
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    # Every cold read of a customer's context goes through these three: with all its columns in the index, a read
    # touches one place instead of one per row.
    op.drop_index(op.f("ix_product_events_customer_id_name_at"), table_name="product_events")
    op.create_index(
        "ix_product_events_use",
        "product_events",
        ["customer_id", "name", "at", "feature", "quantity", "contact_id"],
        unique=False,
    )
    op.drop_index(op.f("ix_conversations_customer_id_started_at"), table_name="conversations")
    op.create_index(
        op.f("ix_conversations_customer_id_started_at_topic_csat"),
        "conversations",
        ["customer_id", "started_at", "topic", "csat"],
        unique=False,
    )
    op.drop_index(op.f("ix_conversations_agent_id_started_at"), table_name="conversations")
    op.create_index(
        op.f("ix_conversations_agent_id_started_at_ended_at_resolved_csat"),
        "conversations",
        ["agent_id", "started_at", "ended_at", "resolved", "csat"],
        unique=False,
    )
