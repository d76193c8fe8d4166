"""A request to do something: its intent, its order checked against the customer, an action ready to be confirmed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from models.classification.types import Intent
from models.errors import DeadlineExceeded, DependencyUnavailable
from models.ids import NewId, new_id
from models.resilience.deadline import Deadline
from models.workflows.extraction import account_field, ends_subscription, lone_number_reference, order_references
from models.workflows.protocol import OrderSystem
from models.workflows.replies import Wordings
from models.workflows.types import InboundMessage, NextStep, OrderSummary, PreparedAction, WorkflowResult

logger = logging.getLogger(__name__)

_CANCELLABLE = frozenset({"placed", "packed", "pending", "processing", "confirmed"})
_NOT_REFUNDABLE = frozenset({"cancelled", "returned", "refunded"})
_SUMMARIES: Mapping[Intent, str] = {
    Intent.OPEN_TICKET: "Open a support ticket",
    Intent.TRACK_ORDER: "Show the status of order {order_id}",
    Intent.REFUND: "Refund order {order_id}",
    Intent.CANCEL_ORDER: "Cancel order {order_id}",
    Intent.UPDATE_ACCOUNT: "Change the {field} on the account",
}
#: What `account_field` holds in a result when the whole subscription is to end.
_SUBSCRIPTION = "subscription"
#: What a wish to end a subscription may be taken for.
_MISTAKEN = frozenset({Intent.CANCEL_ORDER, Intent.UPDATE_ACCOUNT, None})
#: Account fields whose new value can be seen in the message by its shape.
_SHAPED_VALUES = {"email": "@", "phone": "0123456789"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What one intent concluded; merged into the result that led here."""

    path: tuple[str, ...]
    next_step: NextStep
    reply: str
    entities: Mapping[str, str | bool] = field(default_factory=dict)
    order_id: str | None = None
    summary_fields: Mapping[str, str] = field(default_factory=dict)
    #: In place of the intent's own summary.
    summary: str = ""
    missing: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    #: Whether there is a side effect to propose at all.
    proposes: bool = True


class ServiceActionWorkflow:
    """Prepares, never executes. Another customer's order is answered exactly like one that does not exist."""

    def __init__(self, orders: OrderSystem, replies: Wordings, *, ids: NewId = new_id) -> None:
        self._orders = orders
        self._replies = replies
        self._ids = ids

    async def run(
        self, message: InboundMessage, so_far: WorkflowResult, *, customer_known: bool | None, deadline: Deadline
    ) -> WorkflowResult:
        """`customer_known` is `None` when the customer directory did not answer; the order system still decides."""
        references = order_references(message.text)
        if not references and (alone := lone_number_reference(message.text)):
            references = (alone,)
        intent = so_far.classification.intent
        ends = intent in _MISTAKEN and not references and ends_subscription(message.text)
        if ends:
            intent = Intent.UPDATE_ACCOUNT
        entities: dict[str, str | bool] = {**so_far.entities}
        if intent is not None:
            entities["intent"] = str(intent)
        if references:
            entities["order_reference"] = references[0]
        so_far = replace(so_far, entities=entities)
        if intent is None:
            return self._ask(so_far, "intent_unclear", NextStep.PROVIDE_DETAILS, "unclear_request")
        so_far = replace(so_far, decision_path=(*so_far.decision_path, f"intent:{intent}"))
        if message.customer_id is None:
            return self._ask(so_far, "customer_missing", NextStep.IDENTIFY_CUSTOMER, "identify_customer")
        if customer_known is False:
            return self._ask(so_far, "customer_unverified", NextStep.IDENTIFY_CUSTOMER, "customer_not_found")
        if intent is Intent.OPEN_TICKET:
            step = self._open_ticket()
        elif ends:
            step = self._end_subscription()
        elif intent is Intent.UPDATE_ACCOUNT:
            step = self._update_account(message.text)
        else:
            step = await self._with_order(intent, references, message.customer_id, deadline)
        return self._merge(so_far, intent, message.customer_id, step)

    def _ask(self, so_far: WorkflowResult, why: str, next_step: NextStep, wording: str) -> WorkflowResult:
        return replace(
            so_far,
            decision_path=(*so_far.decision_path, why),
            next_step=next_step,
            reply=self._replies.text(wording),
        )

    def _merge(self, so_far: WorkflowResult, intent: Intent, customer_id: str, step: _Step) -> WorkflowResult:
        action = None
        entities = {**so_far.entities, **step.entities}
        if step.proposes:
            ready = not step.missing
            action = PreparedAction(
                action_id=self._ids("act"),
                intent=intent,
                customer_id=customer_id,
                order_id=step.order_id,
                summary=step.summary
                or _SUMMARIES[intent].format_map({"order_id": "", "field": "", **step.summary_fields}).strip(),
                ready=ready,
                missing=step.missing,
            )
            if ready:
                entities["action_id"] = action.action_id
        return replace(
            so_far,
            decision_path=(*so_far.decision_path, *step.path),
            next_step=step.next_step,
            reply=step.reply,
            entities=entities,
            action=action,
            degraded=(*so_far.degraded, *step.degraded),
        )

    def _open_ticket(self) -> _Step:
        return _Step(
            path=("action_prepared",), next_step=NextStep.CONFIRM_ACTION, reply=self._replies.text("ticket_prepared")
        )

    def _end_subscription(self) -> _Step:
        return _Step(
            path=("subscription_named", "action_prepared"),
            next_step=NextStep.CONFIRM_ACTION,
            reply=self._replies.text("subscription_end_prepared"),
            entities={"account_field": _SUBSCRIPTION},
            summary="End the subscription",
        )

    def _update_account(self, text: str) -> _Step:
        name = account_field(text)
        if name is None:
            return _Step(
                path=("account_field_missing",),
                next_step=NextStep.PROVIDE_DETAILS,
                reply=self._replies.text("account_field_needed"),
                missing=("account_field",),
            )
        shown = name.replace("_", " ")
        shape = _SHAPED_VALUES.get(name)
        if shape is not None and not any(character in text for character in shape):
            return _Step(
                path=("account_value_missing",),
                next_step=NextStep.PROVIDE_DETAILS,
                reply=self._replies.text("account_value_needed", field=shown),
                entities={"account_field": name},
                summary_fields={"field": shown},
                missing=("new_value",),
            )
        return _Step(
            path=("action_prepared",),
            next_step=NextStep.CONFIRM_ACTION,
            reply=self._replies.text("account_prepared", field=shown),
            entities={"account_field": name},
            summary_fields={"field": shown},
        )

    async def _with_order(
        self, intent: Intent, references: tuple[str, ...], customer_id: str, deadline: Deadline
    ) -> _Step:
        try:
            async with deadline.enforce("order check"):
                if not references:
                    return self._order_needed(await self._orders.recent(customer_id, limit=3))
                order = await self._orders.find(references[0], customer_id=customer_id)
        except (DependencyUnavailable, DeadlineExceeded) as exc:
            logger.warning("an order could not be checked", extra={"error": exc.code})
            return _Step(
                path=("order_check_unavailable",),
                next_step=NextStep.HUMAN_REVIEW,
                reply=self._replies.text("order_check_unavailable"),
                degraded=("orders",),
                proposes=False,
            )
        if order is None:
            return _Step(
                path=("order_not_found",),
                next_step=NextStep.PROVIDE_DETAILS,
                reply=self._replies.text("order_not_found", order_id=references[0]),
                entities={"order_found": False},
                missing=("order_id",),
            )
        return self._for_order(intent, order)

    def _order_needed(self, recent: list[OrderSummary]) -> _Step:
        orders = ", ".join(f"{order.order_id} ({_items(order)})" for order in recent)
        reply = (
            self._replies.text("order_needed_recent", orders=orders) if orders else self._replies.text("order_needed")
        )
        return _Step(
            path=("order_reference_missing",), next_step=NextStep.PROVIDE_DETAILS, reply=reply, missing=("order_id",)
        )

    def _for_order(self, intent: Intent, order: OrderSummary) -> _Step:
        order_id, items, status = order.order_id, _items(order), order.status.replace("_", " ")
        found = _Step(
            path=("order_verified",),
            next_step=NextStep.CONFIRM_ACTION,
            reply="",
            entities={"order_found": True, "order_status": order.status},
            order_id=order_id,
            summary_fields={"order_id": order_id},
        )
        text = self._replies.text
        if intent is Intent.TRACK_ORDER:
            # Reading a status changes nothing, so there is nothing to confirm.
            reply = (
                text(
                    "order_status_tracked",
                    order_id=order_id,
                    items=items,
                    status=status,
                    tracking_number=order.tracking_number,
                )
                if order.tracking_number
                else text("order_status", order_id=order_id, items=items, status=status)
            )
            path = (*found.path, "order_status_read")
            return replace(found, path=path, next_step=NextStep.ANSWERED, reply=reply, proposes=False)
        possible = (
            order.status in _CANCELLABLE if intent is Intent.CANCEL_ORDER else order.status not in _NOT_REFUNDABLE
        )
        kind = "cancel" if intent is Intent.CANCEL_ORDER else "refund"
        if not possible:
            return replace(
                found,
                path=(*found.path, f"{kind}_impossible"),
                next_step=NextStep.PROVIDE_DETAILS,
                reply=text(f"{kind}_impossible", order_id=order_id, status=status),
                proposes=False,
            )
        total = f"{order.total:.2f} {order.currency}"
        fields = {"order_id": order_id, "items": items} | ({"total": total} if kind == "refund" else {})
        return replace(found, path=(*found.path, "action_prepared"), reply=text(f"{kind}_prepared", **fields))


def _items(order: OrderSummary) -> str:
    shown = ", ".join(order.items[:3])
    return f"{shown} and more" if len(order.items) > 3 else shown or "no items"
