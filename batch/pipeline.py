"""One campaign from audience to report: the only file that knows the order of the stages.

Every stage runs under the recorder: what it raises becomes its record, and the next stage goes on with what there is.
A segment without passages has no variants, a segment without approved variants stays in control, an experiment without
treatment is reported as none. Nothing unsafe can follow from a failure, because assignment takes approvals only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch import columns
from batch.columns import CUSTOMERS, KEY, MESSAGES, SHARDS, TOGETHER, Row, encode, is_well, shard_row, table
from batch.engines import Engines
from batch.mapping import mapped, split
from batch.recorder import Progress, StageRecorder, Work, row_failures
from batch.stages.audience import ReadAudience
from batch.stages.engagement import SimulateEngagement
from batch.stages.generation import ComposeVariants
from batch.stages.hold_back import CUSTOMERS_TOGETHER, JudgeCustomers
from batch.stages.retrieval import RetrievePassages
from batch.stages.safety import CheckSafety
from batch.stages.segmentation import SegmentCustomers
from batch.stages.stage import Stage
from models.campaign import kmeans
from models.campaign.analysis import ExperimentResult, Metric, analyse
from models.campaign.config import CampaignConfig
from models.campaign.experimentation import assign, expected_sizes, merge, plan_experiment, tally
from models.campaign.frames import ToneFrame
from models.campaign.hold_back import count_held_back
from models.campaign.reporting import CampaignReport, SegmentMessages, write_report
from models.campaign.segmentation import RuleSegmenter, Segmenter, summarise
from models.campaign.types import (
    FEATURE_NAMES,
    Arm,
    Assignment,
    CellSummary,
    CheckedVariant,
    Engagement,
    ExperimentPlan,
    HeldBack,
    Judgement,
    Provenance,
    Segment,
    Tone,
)
from models.errors import RapportError, StageFailed
from models.safety.audit import hash_subject
from models.safety.protocol import AuditLog
from models.safety.types import AuditRecord

STAGES = (
    "audience",
    "hold_back",
    "segmentation",
    "retrieval",
    "generation",
    "safety",
    "assignment",
    "engagement",
    "analysis",
    "report",
)
Assigned = tuple[ExperimentPlan | None, list[Assignment]]
Engaged = tuple[list[tuple[Assignment, Engagement]], list[CellSummary]]

#: What the next stage goes on with when a stage failed as a whole.
NOT_ASSIGNED: Assigned = (None, [])
NOT_ENGAGED: Engaged = ([], [])
NOT_ANALYSED: ExperimentResult | None = None
#: Everyone's segment when segmentation as a whole is impossible.
EVERYONE = "everyone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What makes one run of a campaign: its id and day, how much of the audience, and where the report goes."""

    campaign_id: str
    as_of: datetime
    customers: int | None
    report_dir: Path
    hash_salt: str
    shard_size: int = 2_000
    versions: Mapping[str, str] = field(default_factory=dict)


class CampaignPipeline:
    """Runs the stages in order; build one per run."""

    def __init__(
        self,
        config: CampaignConfig,
        frames: Mapping[Tone, ToneFrame],
        engines: Engines,
        audit: AuditLog,
        run: Run,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[str], str],
        progress: Progress,
    ) -> None:
        self._config, self._frames, self._engines, self._audit, self._run = config, frames, engines, audit, run
        self._clock, self._new_id, self._progress = clock, new_id, progress
        self._recorder = StageRecorder(total=len(STAGES), clock=clock, progress=progress)
        self._without_consent, self._held_back = 0, HeldBack()

    async def run(self) -> CampaignReport:
        """Run every stage and return the report, which is written too unless its own stage failed."""
        stage, started_at = self._recorder.run, self._clock()
        nobody = table([], CUSTOMERS)
        audience = await stage("audience", self._read_audience, fallback=nobody)
        audience = await stage("hold_back", lambda: self._hold_back(audience), fallback=nobody)
        together = _unsegmented(audience)
        audience, segments = await stage("segmentation", lambda: self._segment(audience), fallback=together)
        messages: list[Row] = [{KEY: s.label, "segment": encode(columns.SEGMENT, s)} for s in segments]
        messages = await stage("retrieval", lambda: self._retrieve(messages), fallback=messages)
        messages = await stage("generation", lambda: self._generate(messages), fallback=messages)
        messages = await stage("safety", lambda: self._check(messages), fallback=messages)
        told = [_messages(segment, row) for segment, row in zip(segments, messages, strict=True)]
        plan, assignments = await stage("assignment", lambda: self._assign(audience, told), fallback=NOT_ASSIGNED)
        engaged, cells = await stage("engagement", lambda: self._engage(audience, assignments), fallback=NOT_ENGAGED)
        result = await stage("analysis", lambda: self._analyse(plan, assignments, cells), fallback=NOT_ANALYSED)
        report = CampaignReport(
            provenance=self._provenance(plan),
            config=self._config,
            segments=tuple(told),
            plan=plan,
            result=result,
            cells=tuple(cells),
            customers=audience.num_rows,
            without_consent=self._without_consent,
            held_back=self._held_back,
            stages=tuple(self._recorder.records),
            started_at=started_at,
            finished_at=self._clock(),
            engines=self._engines.source,
        )
        rows = [(hash_subject(self._run.hash_salt, a.customer_id), a, engagement) for a, engagement in engaged]

        async def write() -> Work[None]:
            await asyncio.to_thread(write_report, report, self._run.report_dir, rows)
            return Work(value=None, rows_in=1, rows_out=1)

        await stage("report", write, fallback=None)
        await self._progress("done", len(STAGES), len(STAGES))
        return replace(report, stages=tuple(self._recorder.records), finished_at=self._clock())

    async def _read_audience(self) -> Work[pa.Table]:
        reader = await self._engines.audience()
        shards = await reader.shards(limit=self._run.customers, size=self._run.shard_size)
        self._without_consent = await reader.without_consent()
        wanted = sum(shard.size for shard in shards)
        rows = await asyncio.to_thread(
            mapped,
            table([shard_row(shard) for shard in shards], SHARDS),
            ReadAudience,
            self._engines.audience,
            self._run.as_of,
            batch_size=1,
        )
        good, bad = split(rows)
        return Work(
            value=good,
            rows_in=wanted,
            rows_out=good.num_rows,
            failures=row_failures(bad, salt=self._run.hash_salt),
            failed=wanted - good.num_rows,
        )

    async def _hold_back(self, audience: pa.Table) -> Work[pa.Table]:
        """Those who are worth writing to now. A customer who could not be judged is held back, and is no failed row."""
        options, wanted = self._config.hold_back, audience.num_rows
        if not options.reasons or not wanted:
            note = "" if options.reasons else "this campaign holds nobody back"
            return Work(value=audience, rows_in=wanted, rows_out=wanted, note=note)
        keys = audience[KEY].to_pylist()
        rows = await asyncio.to_thread(
            mapped, _together(keys), JudgeCustomers, self._engines.contexts, options, batch_size=1
        )
        good, bad = split(rows)
        known = {row[KEY]: columns.judgement_of(row) for row in good.to_pylist()}
        judged = [known.get(key, Judgement(unread=True)) for key in keys]
        held = count_held_back(judged, options)
        if 2 * held.unread > wanted:
            why = f" ({bad[0][columns.ERROR_CODE]}: {bad[0][columns.ERROR]})" if bad else ""
            raise StageFailed(
                f"the context of {held.unread:,} of {wanted:,} customers could not be read{why}; mend what it is read "
                "from, or take hold_back out of the campaign file"
            )
        self._held_back = held
        kept = audience.filter(pa.array([not judgement.held_back for judgement in judged], pa.bool_()))
        note = f"{held.customers:,} held back" + (f", {held.unread:,} of them unread" if held.unread else "")
        return Work(value=kept, rows_in=wanted, rows_out=kept.num_rows, note=note, partial=held.unread > 0)

    async def _segment(self, audience: pa.Table) -> Work[tuple[pa.Table, tuple[Segment, ...]]]:
        segmenter, note = await asyncio.to_thread(self._segmenter, audience)
        rows = await asyncio.to_thread(mapped, audience, SegmentCustomers, segmenter)
        good, bad = split(rows)
        descriptions = {rule.label: rule.description for rule in self._config.segmentation.rules}
        segments = summarise(good["segment"].to_pylist(), _features(good), descriptions=descriptions)
        return Work(
            value=(good, segments),
            rows_in=audience.num_rows,
            rows_out=good.num_rows,
            failures=row_failures(bad, salt=self._run.hash_salt),
            failed=len(bad),
            note=note or f"{len(segments)} segments by {segmenter.method}",
            partial=bool(note),
        )

    def _segmenter(self, audience: pa.Table) -> tuple[Segmenter, str]:
        """The configured segmenter, or the rules with a note when clusters cannot be formed."""
        rules = RuleSegmenter(self._config.segmentation.rules)
        if self._config.segmentation.method == "rules":
            return rules, ""
        options = self._config.segmentation.kmeans
        customers = [columns.customer_of(row) for row in audience.to_pylist()]
        try:
            return kmeans.fit(customers, options, seed=self._config.seed, namer=rules)[0], ""
        except RapportError as exc:
            return rules, f"rules instead of k-means: {exc}"

    async def _retrieve(self, messages: list[Row]) -> Work[list[Row]]:
        return await self._each_segment(messages, RetrievePassages, self._engines.knowledge, self._config.retrieval)

    async def _generate(self, messages: list[Row]) -> Work[list[Row]]:
        work = await self._each_segment(messages, ComposeVariants, self._frames, self._run.campaign_id)
        lost = sum(len(columns.FAILURES.validate_json(row["failures"])) for row in work.value if row.get("failures"))
        return replace(work, partial=lost > 0, note=f"{lost} variants could not be composed" if lost else "")

    async def _check(self, messages: list[Row]) -> Work[list[Row]]:
        work = await self._each_segment(messages, CheckSafety, self._engines.safety)
        for row in work.value:
            for checked in columns.CHECKED.validate_json(row.get("checked") or "[]"):
                self._audit.record(self._audit_record(checked))
        await self._audit.flush()  # a decision that left no trace is none: without it this stage fails, nothing is sent
        return work

    async def _each_segment(self, messages: list[Row], stage: type[Stage], *arguments: Any) -> Work[list[Row]]:
        rows = (await asyncio.to_thread(mapped, table(messages, MESSAGES), stage, *arguments)).to_pylist()
        before = {row[KEY] for row in messages if is_well(row)}
        bad = [row for row in rows if not is_well(row) and row[KEY] in before]
        return Work(
            value=rows,
            rows_in=len(before),
            rows_out=len(before) - len(bad),
            failures=row_failures(bad),
            failed=len(bad),
        )

    def _audit_record(self, checked: CheckedVariant) -> AuditRecord:
        variant = checked.variant
        severities = {f"severity_{finding.harm.value}": finding.severity for finding in checked.findings}
        return AuditRecord(
            audit_id=self._new_id("aud"),
            at=checked.checked_at,
            actor="campaign",
            action="variant.checked",
            subject=variant.variant_id,
            outcome=checked.decision.value,
            request_id=self._run.campaign_id,
            details={
                "segment": variant.segment,
                "tone": variant.tone.value,
                "frame": f"{variant.frame_id}@{variant.frame_version}",
                "policy_version": checked.policy_version,
                "reasons": ", ".join(checked.reasons),
                **severities,
            },
        )

    async def _assign(self, audience: pa.Table, messages: list[SegmentMessages]) -> Work[Assigned]:
        pairs = list(zip(audience[KEY].to_pylist(), audience["segment"].to_pylist(), strict=True))
        if not pairs:
            return Work(value=NOT_ASSIGNED, note="there is no audience")
        options = self._config.experiment
        plan = plan_experiment(
            pairs,
            {told.segment.label: [c.variant.arm for c in told.checked if c.approved] for told in messages},
            salt=self._config.salt,
            alpha=options.alpha,
            primary_metric=options.primary_metric,
        )
        assignments = await asyncio.to_thread(assign, pairs, plan)
        alone = sorted(stratum for stratum, arms in plan.arms.items() if arms == (Arm.CONTROL,))
        note = f"no approved message, all in control: {', '.join(alone)}" if alone else ""
        return Work(
            value=(plan, assignments), rows_in=len(pairs), rows_out=len(assignments), note=note, partial=bool(alone)
        )

    async def _engage(self, audience: pa.Table, assignments: list[Assignment]) -> Work[Engaged]:
        if not assignments:
            return Work(value=NOT_ENGAGED, note="nobody was assigned")
        arms = {assignment.customer_id: assignment.arm.value for assignment in assignments}
        assigned = audience.append_column("arm", pa.array([arms.get(key) for key in audience[KEY].to_pylist()]))
        rows = await asyncio.to_thread(mapped, assigned, SimulateEngagement, self._config.simulation, self._config.seed)
        good, bad = split(rows)
        engaged = [
            (
                Assignment(customer_id=key, stratum=segment, arm=Arm(arm)),
                Engagement(visited=visited, converted=converted, spend_cents=cents),
            )
            for key, segment, arm, visited, converted, cents in zip(
                *(good[name].to_pylist() for name in (KEY, "segment", "arm", "visited", "converted", "spend_cents")),
                strict=True,
            )
        ]
        engaged.sort(key=lambda pair: pair[0].customer_id)
        return Work(
            value=(engaged, merge(tally(engaged))),
            rows_in=len(assignments),
            rows_out=len(engaged),
            failures=row_failures(bad, salt=self._run.hash_salt),
            failed=len(bad),
            note="simulated",
        )

    async def _analyse(
        self, plan: ExperimentPlan | None, assignments: list[Assignment], cells: list[CellSummary]
    ) -> Work[ExperimentResult | None]:
        if plan is None:
            raise StageFailed("there is no experiment plan")
        expected = expected_sizes(((a.customer_id, a.stratum) for a in assignments), plan)
        metric = Metric(plan.primary_metric)
        result = await asyncio.to_thread(analyse, cells, expected, planned=plan.arms, alpha=plan.alpha, primary=metric)
        return Work(value=result, rows_in=len(cells), rows_out=len(result.lifts), note=result.state.value)

    def _provenance(self, plan: ExperimentPlan | None) -> Provenance:
        return Provenance(
            campaign_id=self._run.campaign_id,
            name=self._config.name,
            seed=self._config.seed,
            as_of=self._run.as_of,
            snapshot_hash=plan.snapshot_hash if plan else "",
            config_hash=self._config.hash,
            versions={
                **self._run.versions,
                "campaign file": self._config.version,
                **{f"frame {frame.id}": frame.version for frame in self._frames.values()},
            },
        )


def _together(keys: list[str]) -> pa.Table:
    """The customers in groups whose contexts are read together."""
    groups = (tuple(keys[start : start + CUSTOMERS_TOGETHER]) for start in range(0, len(keys), CUSTOMERS_TOGETHER))
    rows = [{"number": i, "customer_ids": encode(columns.TEXT_LIST, group)} for i, group in enumerate(groups)]
    return table(rows, TOGETHER)


def _features(audience: pa.Table) -> NDArray[np.float64]:
    return np.column_stack([audience[name].to_numpy() for name in FEATURE_NAMES])


def _unsegmented(audience: pa.Table) -> tuple[pa.Table, tuple[Segment, ...]]:
    """Everyone in one segment: what the campaign goes on with when segmentation failed."""
    if not audience.num_rows:
        return audience, ()
    position = audience.schema.get_field_index("segment")
    together = audience.set_column(position, "segment", pa.array([EVERYONE] * audience.num_rows))
    return together, summarise([EVERYONE] * audience.num_rows, np.nan_to_num(_features(audience)))


def _messages(segment: Segment, row: Row) -> SegmentMessages:
    return SegmentMessages(
        segment=segment,
        passages=columns.PASSAGES.validate_json(row.get("passages") or "[]"),
        failures=columns.FAILURES.validate_json(row.get("failures") or "[]"),
        variants=columns.VARIANTS.validate_json(row.get("variants") or "[]"),
        checked=columns.CHECKED.validate_json(row.get("checked") or "[]"),
    )
