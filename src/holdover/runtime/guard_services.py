"""The services beside a guard in production: heartbeat, freeze watcher, the file of the cell counts.

A guard that was made without `Guard.open`, in a test or a harness, has none of them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from holdover.runtime.background import BackgroundWriter, Pace
from holdover.runtime.breach import make_journal_page
from holdover.runtime.cells import CellCountFile
from holdover.runtime.config import GuardConfig
from holdover.runtime.explain import prepare_explanations
from holdover.runtime.freeze_watcher import FreezeWatcher
from holdover.runtime.guard_memory import GuardMemory
from holdover.runtime.heartbeat import Heartbeat
from holdover.runtime.metrics import attach_metrics
from holdover.runtime.pager import Pager
from holdover.runtime.table_copy import KeyLog

if TYPE_CHECKING:
    from holdover.runtime.guard import Guard


class GuardServices:
    """The services of one guard; each is None until `start`. `background` and `copier` do their work at once
    until then."""

    def __init__(self, guard: Guard) -> None:
        self.freeze_watcher: FreezeWatcher | None = None
        self.heartbeat: Heartbeat | None = None
        self.cell_count_file: CellCountFile | None = None
        self.background = BackgroundWriter()
        self.copier = BackgroundWriter(4)
        self.memory = GuardMemory(guard)

    @property
    def restart_kind(self) -> str:
        """The kind of the last restart: `clean` when the previous process ended in good order, else `kill`."""
        return self.cell_count_file.restart_kind if self.cell_count_file is not None else "kill"

    def start(self, guard: Guard, config: GuardConfig) -> None:
        """Start the services that the configuration asks for."""
        if self.heartbeat is not None:
            raise RuntimeError(f"the services of {guard.name} run already")
        self.cell_count_file = CellCountFile(guard.directory, guard.cells, guard.catalogue.digest)
        if config.metrics is not None:
            attach_metrics(guard, config.metrics)
        self.heartbeat = Heartbeat(guard, config.heartbeat, config.heartbeat_url())
        self.freeze_watcher = FreezeWatcher(
            guard.freezes.follow_store, round(config.guard.obey_within_ms * 1e6), config.store.timeout_s
        )
        if guard.journal is not None:
            guard.journal.on_failure = partial(self._report_lost_lines, guard)
            if config.guard.journal_sync_ms:
                guard.journal.start_syncing(config.guard.journal_sync_ms / 1000)
        self.background.start()
        self.copier.start()
        guard.monitor.key_log = KeyLog()
        guard.monitor.key_log.reset(guard.monitor.tables.by_table)
        predicates = [bound for invariant in guard.catalogue for bound in invariant.predicates]
        self.background.submit("the explanations", lambda pace: prepare_explanations(predicates, pace.give_way))
        self.heartbeat.start()
        self.freeze_watcher.start()
        guard.pager.start()

    def stop(self, pager: Pager) -> None:
        """Stop the services, deliver due pages, write the counts and the final heartbeat."""
        if self.freeze_watcher is not None:
            self.freeze_watcher.stop()
        pager.stop()
        if self.heartbeat is not None:
            self.heartbeat.stop()
        self.copier.stop()
        self.memory.close()
        self.background.stop()
        self.write_cell_counts(running=False)

    def _report_lost_lines(self, guard: Guard, reason: str) -> None:
        """Alert on-call, from the background, that the journal cannot be written; trading goes on."""
        self.memory.lose_journal(reason)
        page = make_journal_page(guard.name, reason, guard.clock(), guard.catalogue.digest)
        channels = guard.pager.channel_names()

        def send(pace: Pace) -> None:
            guard.store.send_page(page, channels)
            guard.pager.wake()

        self.background.submit("the alert about the journal", send, replaces=True)

    def write_cell_counts(self, *, running: bool) -> None:
        """Write the cell counts as they are now, if they have a file."""
        if self.cell_count_file is not None:
            content = self.cell_count_file.encode(running=running)
            self.background.submit("cells.json", partial(_write_counts, self.cell_count_file, content), replaces=True)


def _write_counts(file: CellCountFile, content: bytes, pace: Pace) -> None:
    file.write(content)
