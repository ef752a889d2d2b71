"""The sidecar: the catalogue judged from outside, on a journal, a FIX log or lines of JSON as they are written."""

from holdover.watch.hooks import CommandHook, FreezeHook, Hook, HookFailed, UrlHook
from holdover.watch.judges import FixJudge, Judge, MutationJudge
from holdover.watch.tail import Place, Tail
from holdover.watch.watch import BadState, Watch

__all__ = [
    "BadState",
    "CommandHook",
    "FixJudge",
    "FreezeHook",
    "Hook",
    "HookFailed",
    "Judge",
    "MutationJudge",
    "Place",
    "Tail",
    "UrlHook",
    "Watch",
]
