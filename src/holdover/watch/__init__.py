"""The sidecar: the catalogue judged from outside, on what a system writes, streams or sends, as it does so."""

from holdover.watch.dropcopy import DropCopy, FixConfig
from holdover.watch.hooks import CommandHook, FreezeHook, Hook, HookFailed, UrlHook
from holdover.watch.jetstream import Stream, StreamAddress
from holdover.watch.judges import FixJudge, Judge, MutationJudge
from holdover.watch.source import BadSource, Place, Source
from holdover.watch.spool import Spool
from holdover.watch.tail import Tail
from holdover.watch.watch import BadState, Watch

__all__ = [
    "BadSource",
    "BadState",
    "CommandHook",
    "DropCopy",
    "FixConfig",
    "FixJudge",
    "FreezeHook",
    "Hook",
    "HookFailed",
    "Judge",
    "MutationJudge",
    "Place",
    "Source",
    "Spool",
    "Stream",
    "StreamAddress",
    "Tail",
    "UrlHook",
    "Watch",
]
