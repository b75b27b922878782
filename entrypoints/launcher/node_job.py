"""The life of a job on one node, step by step."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from launcher import events
from launcher import plan as plans
from launcher.causes import OK, STOPPED, Cause, CauseError, root_cause
from launcher.checks import (
    FAIL,
    WARN,
    Check,
    gather_facts,
    measured_checks,
    meet_nodes,
    package_versions,
    quick_checks,
    require_fit,
)
from launcher.context import SAGEMAKER
from launcher.data import (
    JobAgreement,
    JobData,
    agreed_from_wire,
    bring_source,
    find_source,
    install_code,
    warn_of_model,
)
from launcher.events import FailureNote, StartUp
from launcher.peers import PeerRoute, Peers, master_name
from launcher.plan import Plan
from launcher.platforms import (
    EnvironmentChange,
    apply_changes,
    preload_hostname,
    route_changes,
    visible_ids,
)
from launcher.ranks import (
    DEEPSPEED,
    HANG_KIND,
    STACK_SITE,
    EndedNodes,
    ExtensionsCache,
    HangWatch,
    RankLayout,
    RanksEnd,
    RankSupervisor,
    StallReport,
    WatchOptions,
    cause_of_bad_stop,
    cause_of_cut,
    cause_of_echo,
    cause_of_hang,
    finished_before_failure,
    hostfile_text,
    layout_ranks,
)
from launcher.stop_request import StopRequest, end_on_stop


class NodeJob:
    """The steps; a step that cannot succeed raises LaunchError, one cut short HaltedError."""

    def __init__(self, plan: Plan, halt: StopRequest, gate: Peers) -> None:
        self._plan = plan
        self._context = plan.context
        self._topology = plan.context.topology
        self._settings = plan.context.settings
        self._halt = halt
        self._gate = gate
        self._ranks: RankSupervisor | None = None
        self._hung: Cause | None = None
        self._route: PeerRoute | None = None
        self._watch: HangWatch | None = None
        self._ended = EndedNodes(gate, self._topology.node_rank, self._topology.nodes)
        self._note = FailureNote(plan.context.failure_file)
        job_start = plan.context.env.get("SLURM_JOB_START_TIME", "")
        self._start_up = StartUp(
            job=self._topology.job,
            attempt=self._topology.attempt,
            nodes=self._topology.nodes,
            **({"job_start": int(job_start)} if job_start.isdecimal() else {}),
        )
        self._data = JobData(
            plan.data,
            self._topology,
            self._context.env,
            halt,
            gate,
            workers=self._settings.number("upload-workers"),
        )

    def rank_pids(self) -> list[int]:
        """The ranks that are running here."""
        return self._ranks.pids() if self._ranks is not None else []

    def run(self) -> int:
        """From meeting the other nodes to the exit code."""
        try:
            return self._steps()
        finally:
            if not self._meets_only:
                self._start_up.tell()  # where it has not come to the ranks
            plans.remove_scratch(self._plan)

    @property
    def _meets_only(self) -> bool:
        """Whether another launcher of this node starts the ranks (--spares)."""
        return self._context.place is not None and self._context.place.meets_only

    def _steps(self) -> int:
        for text in self._plan.warnings:
            events.emit("warning", text=text)
        stage = self._start_up.stage
        with stage("gate"):
            procs = self._meet()
        with stage("preflight"):
            self._preflight()
        if self._meets_only:
            return OK
        with stage("agree"):
            agreed = self._agree()
            ranks = self._layout(procs, agreed)
            plans.make_scratch(self._plan)
        extra = self._prepare(ranks, agreed)
        with stage("others"):
            self._gate.gather("ready", True, halt=self._halt)
        self._data.watch(agreed, self._settings.number("checkpoint-interval"))
        outcome: RanksEnd | None = None
        try:
            outcome = self._train(ranks, extra)
            return self._finish(outcome, ranks)
        except CauseError as error:
            # The others' collectives may have broken off because ranks here had ended.
            if outcome is not None and outcome.early and error.cause.secondary:
                raise CauseError(cause_of_echo(error.cause, outcome)) from error
            raise
        finally:
            # Not before: other nodes' ranks may wait for some that have ended here.
            if self._watch is not None:
                self._watch.stop()

    def _meet(self) -> list[int]:
        """All launchers meet before anything starts; each node's number of ranks."""
        patience = float(self._settings.number("dns-wait"))
        self._gate.connect(patience)
        several = self._topology.nodes > 1
        versions = package_versions(self._context.python, self._context.env) if several else {}
        procs = meet_nodes(
            self._gate,
            self._topology,
            gather_facts(self._plan, versions),
            self._plan.nproc,
            timeout=patience,
            halt=self._halt,
        )
        self._route = self._gate.route()
        if self._route is not None:
            found = route_changes(self._context.env, self._route.interface)
            self._plan = replace(self._plan, changes=(*self._plan.changes, *found))
        if several:
            route = {"by": self._route.interface, "at": self._route.local} if self._route else {}
            events.emit("met", nodes=len(procs), **route)
        return procs

    def _agree(self) -> JobAgreement:
        """Node 0 decides what all have to agree on."""
        mine = self._data.agree().to_wire() if self._topology.node_rank == 0 else None
        return agreed_from_wire(self._gate.gather("agree", mine, halt=self._halt)[0])

    def _layout(self, procs: list[int], agreed: JobAgreement) -> RankLayout:
        several = self._topology.nodes > 1
        port = plans.meeting_port(self._context) if several else plans.free_port()
        visible = visible_ids(self._context.env)
        layout = layout_ranks(
            self._topology, procs, port=port, attempt=agreed.attempt, visible=visible
        )
        if self._route is None:
            return layout
        return replace(layout, master=master_name(layout.master, self._route.master))

    def _prepare(self, ranks: RankLayout, agreed: JobAgreement) -> list[EnvironmentChange]:
        """Everything that has to be here before ranks start; variables that follow from it."""
        stage = self._start_up.stage
        with stage("measure"):
            self._measure(ranks)
        with stage("code"):
            self._source()
        with stage("pre-cmd"):
            self._pre_command()
        with stage("prefetch"):
            self._data.fetch()
        with stage("resume"):
            path = self._data.resume(agreed)
        changes = [EnvironmentChange("LAUNCH_ATTEMPT", str(agreed.attempt), "told to the script")]
        if self._context.platform == SAGEMAKER and self._context.script.endswith(".sh"):
            # What a launch script starts (torchrun --standalone, mpirun) goes by gethostname().
            context = self._context
            preload = preload_hostname(context.env, context.ml, context.python)
            why = "gethostname() answers the name that other nodes know"
            changes += [EnvironmentChange(name, value, why) for name, value in preload.items()]
        if path is not None:
            changes.append(
                EnvironmentChange("LAUNCH_RESUME_FROM", str(path), "the checkpoint to go on from")
            )
        return changes

    def _preflight(self) -> None:
        if self._settings.text("preflight") == "off":
            return
        self._judge(quick_checks(self._plan, self._halt))
        # Every node fit by itself before they do anything together.
        self._gate.gather("fit", True, halt=self._halt)

    def _measure(self, ranks: RankLayout) -> None:
        if self._settings.text("preflight") == "full":
            timeout = float(self._settings.number("preflight-timeout"))
            self._judge(measured_checks(self._plan, ranks, self._halt, timeout))

    def _judge(self, checks: list[Check]) -> None:
        for check in checks:
            if check.level in (WARN, FAIL):
                events.emit("preflight", check=check.name, level=check.level, text=check.text)
        require_fit(checks)

    def _source(self) -> None:
        context = self._context
        if context.platform != SAGEMAKER:
            return
        code = context.ml.code
        source = find_source(context.env, context.hyperparameters, code)
        if source:
            bring_source(self._data.s3, source, code)
        if context.cwd == code:
            # In local mode the code is there without an archive, and its requirements as well.
            install_code(context.python, code, context.script, context.env, self._halt)

    def _pre_command(self) -> None:
        command = self._settings.text("pre-cmd")
        if not command:
            return
        process = subprocess.Popen(
            ["/bin/bash", "-c", command],
            cwd=self._context.cwd,
            env=dict(self._context.env),
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        with process, end_on_stop(process, self._halt):
            code = process.wait()
        events.emit("pre-cmd", code=code)

    def _train(self, ranks: RankLayout, extra: list[EnvironmentChange]) -> RanksEnd:
        context, plan = self._context, self._plan
        env = apply_changes(context.env, [*plan.changes, *extra])
        path = env.get("PYTHONPATH", "")
        # First, so that it is the one that Python takes; it runs the image's own (see there).
        env["PYTHONPATH"] = f"{STACK_SITE}:{path}" if path else str(STACK_SITE)
        if plan.runner == DEEPSPEED:
            (plan.log_dir / "hostfile").write_text(hostfile_text(ranks), encoding="utf-8")
        cache = ExtensionsCache(Path(env["TORCH_EXTENSIONS_DIR"]))
        for lock in cache.clean():
            events.emit("stale-lock", removed=str(lock))
        self._halt.check()
        self._ranks = RankSupervisor(
            plans.planned_commands(plan, ranks),
            env=env,
            cwd=context.cwd,
            log_dir=plan.log_dir,
            first_rank=ranks.first_rank,
            restarts=self._settings.number("max-restarts") > 0,
        )
        changed = [c for c in plan.changes if not c.name.startswith("SM_") and c.name in env]
        events.emit(
            "environment",
            set={c.name: c.value for c in changed if not c.kept},
            kept={c.name: c.value for c in changed if c.kept},
        )
        self._start_up.tell()
        events.emit("ranks", first=ranks.first_rank, here=ranks.nproc, world=ranks.world)
        self._ranks.start()
        watch = self._watch = self._watch_ranks(self._ranks, ranks)
        try:
            with self._halt.telling(watch.mark_cut):
                outcome = self._ranks.wait(
                    self._halt, self._settings.number("grace"), self._ended.others_ended
                )
        finally:
            cache.close()
        self._ended.tell()
        failed = {cause.rank for cause in outcome.causes if cause.rank >= 0}
        return replace(outcome, early=tuple(watch.early_ends(failed)))

    def _watch_ranks(self, supervisor: RankSupervisor, layout: RankLayout) -> HangWatch:
        settings, plan = self._settings, self._plan
        hang = float(settings.number("hang-timeout"))
        after = float(settings.number("wait-report"))
        options = WatchOptions(
            after=min(after, hang) if hang else after,
            hang=hang,
            stop=settings.text("on-hang") == "stop",
            stack_dir=plan.scratch / "stacks",
            report_dir=plan.log_dir / "stalls",
            gpus=plan.gpus.count > 0,
        )

        def report(seen: StallReport) -> None:
            cause = cause_of_hang(seen)
            self._note.write(cause)
            if options.stop and seen.kind == HANG_KIND:
                self._hung = cause
                self._halt.request(cause, hard=True)

        watch = HangWatch(
            options, layout, self._gate, supervisor.pids, report=report, over=self._resumed
        )
        watch.start()
        return watch

    def _resumed(self) -> None:
        """The ranks move again: what the failure file says is not true any more."""
        self._note.remove()
        events.emit("resumed", text="the ranks that were waiting have gone on")

    def _finish(self, outcome: RanksEnd, ranks: RankLayout) -> int:
        """After the ranks: save what is to be saved, and find the exit code."""
        self._note.remove()
        stopped = self._halt.cause is not None and not self._halt.hard
        if self._halt.hard or self._hung is not None:
            raise CauseError(cause_of_cut(self._halt.cause, self._hung, outcome))
        problem: Cause | None = None
        if outcome.code != 0 and not finished_before_failure(self._plan.done_file, ranks, outcome):
            if not stopped:
                root = root_cause(outcome.causes)
                assert root is not None, "a non-zero outcome has a cause"
                raise CauseError(root)
            problem = cause_of_bad_stop(outcome, self._settings.number("grace"))
        self._data.finish(success=not stopped)
        if self._context.platform == SAGEMAKER:
            warn_of_model(self._context.ml.model)
        if problem is not None:
            raise CauseError(problem)
        # Slurm's requeue logic has to see that a stopped job is not a finished one.
        code = STOPPED if stopped and self._context.platform != SAGEMAKER else OK
        events.emit("stopped" if stopped else "done", code=code)
        return code
