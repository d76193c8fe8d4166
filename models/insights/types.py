"""Values of insights: what was known of a customer at one instant, and the actions that may be taken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: How far ahead churn is predicted.
HORIZON_DAYS = 90
#: The longest time back that a login is looked for.
LOGIN_WINDOW_DAYS = 90
#: Younger customers have no full month of use to judge by; nothing is predicted of them.
MIN_TENURE_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was known of a customer at an instant; counts end at it, days are whole.

    `tenure_days` is `None` before the first subscription, `idle_days` without a login within 90 days.
    `logins_prior_60d` are those of the 60 days before the last 30, `low_ratings_180d` those of 3 or less of 5,
    `late_payments_180d` bills that fell due then and were not paid in time.
    """

    tenure_days: int | None = None
    canceled: bool = False
    trialing: bool = False
    idle_days: int | None = None
    logins_30d: int = 0
    logins_prior_60d: int = 0
    tickets_90d: int = 0
    conversations_90d: int = 0
    low_ratings_180d: int = 0
    overdue: bool = False
    late_payments_180d: int = 0

    @property
    def at_risk(self) -> bool:
        """Whether this is a paying customer of at least 30 days: only those can be said to churn."""
        return (
            self.tenure_days is not None
            and self.tenure_days >= MIN_TENURE_DAYS
            and not self.canceled
            and not self.trialing
        )


class Action(StrEnum):
    """What may be done for a customer. Outreach to try it against nothing is recorded with `NONE`."""

    NONE = "none"
    TRAINING_SESSION = "training_session"
    RENEWAL_CALL = "renewal_call"
    UPGRADE_OFFER = "upgrade_offer"
    BILLING_HELP = "billing_help"
    REFERRAL_ASK = "referral_ask"
    WIN_BACK = "win_back"
