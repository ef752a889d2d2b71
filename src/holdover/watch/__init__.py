"""The sidecar: evaluates the catalogue from outside on what a system writes, streams or sends."""

from holdover.watch.drop_copy import URL_SCHEMES, DropCopy, FixConfig
from holdover.watch.hooks import CommandHook, FreezeHook, Hook, HookError, UrlHook
from holdover.watch.jetstream import Stream, StreamAddress
from holdover.watch.judge import FixJudge, Judge, MutationJudge
from holdover.watch.source import Offset, Source, SourceError
from holdover.watch.spool import Spool
from holdover.watch.tail import Tail
from holdover.watch.watch import Watch, WatchStateError

__all__ = [
    "URL_SCHEMES",
    "SourceError",
    "WatchStateError",
    "CommandHook",
    "DropCopy",
    "FixConfig",
    "FixJudge",
    "FreezeHook",
    "Hook",
    "HookError",
    "Judge",
    "MutationJudge",
    "Offset",
    "Source",
    "Spool",
    "Stream",
    "StreamAddress",
    "Tail",
    "UrlHook",
    "Watch",
]
