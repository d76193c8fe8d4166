"""Alembic's entry: runs the migrations on the connection that `providers.database.migrate` opened and locked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import Connection

from providers.table_types import Table

attributes = context.config.attributes
connection: Connection = attributes["connection"]


def report(ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]) -> None:
    """Tell the caller which revision has just been applied."""
    attributes["progress"](f"schema {step.up_revision_id} applied")


context.configure(connection=connection, target_metadata=Table.metadata, on_version_apply=report)
with context.begin_transaction():
    context.run_migrations()
