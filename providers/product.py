"""What Medley's product offers its customers."""

from __future__ import annotations

#: Every feature under the name that product events give it.
FEATURES = ("Projects", "Tasks", "Reports", "Calendar", "Invoicing", "Messages", "Inventory", "Reminders")
