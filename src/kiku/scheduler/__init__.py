"""THE driver: steps every open session, whoever opened it. File, microphone and socket end here."""

from kiku.scheduler.binding import Binding, Job, Member, OnOutput, Opening, Session, SlotOptions
from kiku.scheduler.scheduler import Scheduler, levels_of

__all__ = [
    "Binding",
    "Job",
    "Member",
    "OnOutput",
    "Opening",
    "Scheduler",
    "Session",
    "SlotOptions",
    "levels_of",
]
